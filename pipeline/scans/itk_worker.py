"""Reads images with ITK and saves their voxels; runs as a script in a process of its own (see `itk_reader`).

It imports nothing of the pipeline, so that it starts fast.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK


def read(file: str, image_io: str, most_bytes: int, output: Path) -> dict[str, Any]:
    """Read one image and save its voxels, slowest axis first; the answer lacks "dtype" where they were not read."""
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
        size = [int(length) for length in reader.GetSize()]
        components = int(reader.GetNumberOfComponents())
        voxel = SimpleITK.Image([1] * len(size), reader.GetPixelID(), components).GetSizeOfPixelComponent()
        claimed = math.prod(size) * components * voxel
        answer = {
            "size": size,
            "bytes": claimed,
            "components": components,
            "spacing": list(reader.GetSpacing()),
            "origin": list(reader.GetOrigin()),
            "direction": list(reader.GetDirection()),
        }
        if claimed > most_bytes or components > 1:
            return answer
        image = reader.Execute()
        voxels = SimpleITK.GetArrayViewFromImage(image)
        np.save(output, voxels)
    except (RuntimeError, MemoryError):
        return {"problem": "cannot be decoded"}
    except OSError:
        return {"problem": "finds no room in the temporary folder (set TMPDIR)"}
    return {**answer, "dtype": str(voxels.dtype)}


def limit_memory(size: int) -> None:
    """A damaged header may ask the decoders for any amount; where the system can, it gets no more than this."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def main() -> None:
    """Work through the job that the first argument names; one line of JSON for each file."""
    job = json.loads(Path(sys.argv[1]).read_text())
    limit_memory(job["memory"])
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    folder = Path(sys.argv[1]).parent
    with (folder / "answers").open("w") as answers:
        for number, file in enumerate(job["files"]):
            answer = read(file, job["image_io"], job["most_bytes"], folder / f"{number}.npy")
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
