"""Voxels through ITK, read in a process of its own.

ITK's decoders are written for sound files: a damaged JPEG stream crashes the process that decodes it, a damaged header
makes it allocate or search without end. A child process with limited memory and time takes that away from the run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORKER = Path(__file__).with_name("itk_worker.py")
# Each further thread would take address space from the images, and nothing here computes.
THREADS = ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# ITK and its buffers, without any voxels.
BASE_MEMORY = 3 << 29
# The file's bytes, the decoded image, the same in the stored type, and the copy that is saved.
COPIES = 5
# The slowest decoder (JPEG 2000) on a slow core; the start takes longest on a busy machine.
BYTES_A_SECOND = 2 << 20
START_SECONDS = 60


@dataclass(frozen=True)
class ItkImage:
    """What ITK makes of a file.

    Args:
        voxels: memory-mapped, slowest axis first, for example (slices, rows, columns).
        affine: indices (fastest axis first) to millimetres in LPS+, shape (4, 4), for an image with three axes.
        problem: why there are no voxels, if so.
    """

    voxels: NDArray[np.generic]
    affine: NDArray[np.float64]
    problem: str | None = None


def read_with_itk(files: Sequence[Path], image_io: str, most_bytes: int, folder: Path) -> list[ItkImage]:
    """Read images in a child process.

    Args:
        files: the images.
        image_io: ITK's reader, for example "GDCMImageIO"; "" lets it choose.
        most_bytes: what one image may hold; one that claims more is not read.
        folder: an empty folder for what passes between the processes; the caller removes it.

    Returns:
        An image for each file, up to and including the first one with a problem.
    """
    job = folder / "job"
    total = most_bytes * len(files)
    job.write_text(
        json.dumps(
            {
                "files": [os.fspath(file.absolute()) for file in files],
                "image_io": image_io,
                "most_bytes": most_bytes,
                "memory": BASE_MEMORY + COPIES * most_bytes,
            }
        )
    )
    problem = "crashed the decoder"
    try:
        subprocess.run(  # noqa: S603  # our own script, with a file of ours as its only argument
            [sys.executable, os.fspath(WORKER), os.fspath(job)],
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_SECONDS + total / BYTES_A_SECOND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = "kept the decoder busy without end"
    try:
        lines = (folder / "answers").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    images: list[ItkImage] = []
    for number in range(len(files)):
        try:
            answer = json.loads(lines[number])
        except (IndexError, ValueError):
            return [*images, ItkImage(np.empty(0), np.eye(4), problem)]
        images.append(_image(answer, folder / f"{number}.npy"))
        if images[-1].problem:
            break
    return images


def _image(answer: dict[str, Any], voxels: Path) -> ItkImage:
    affine = np.eye(4)
    if "problem" in answer:
        return ItkImage(np.empty(0), affine, answer["problem"])
    if "dtype" not in answer:
        several = answer["components"] > 1
        found = f"{answer['components']} values a voxel" if several else f"{answer['bytes']} bytes in its header alone"
        return ItkImage(np.empty(0), affine, f"holds {found}")
    axes = len(answer["size"])
    if axes >= 3:
        direction = np.array(answer["direction"]).reshape(axes, axes)[:3, :3]
        affine[:3, :3] = direction * answer["spacing"][:3]
        affine[:3, 3] = answer["origin"][:3]
    return ItkImage(np.load(voxels, mmap_mode="r"), affine)
