"""What many scans cost: the whole command's time against the steady cost of one, and memory after few and after many.

    python benchmarks/many_scans.py [--count 100]

The command runs in a process of its own, on copies of one phantom (240×240×155 voxels) with the shipped weights. Its
steady cost per scan is the median time between two finished scans in the second half of the run.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.phantoms import brain_phantom


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantom = brain_phantom(0, shape=(240, 240, 155), spacing_mm=(1.0, 1.0, 1.0))
        (folder / "scans").mkdir()
        first = folder / "scans" / "scan000.nii.gz"
        nib.save(nib.Nifti1Image(phantom.image, phantom.affine), first)
        for place in range(1, count):
            shutil.copyfile(first, folder / "scans" / f"scan{place:03}.nii.gz")
        out = folder / "out"
        command = [sys.executable, "-m", "pipeline.cli", "synthesize", folder / "scans", "-o", out, "--force"]
        start = time.perf_counter()
        subprocess.run([*command, "--report", out / "run.json"], check=True, capture_output=True)
        whole = time.perf_counter() - start
        finished = np.sort([path.stat().st_mtime for path in out.glob("*_desc-pseudohealthy.json")])
        steady = float(np.median(np.diff(finished)[count // 2 :]))
        memory = [scan["PeakMemoryMiB"] for scan in json.loads((out / "run.json").read_text())["Scans"]]
    print(
        f"{count} scans: {whole:.1f} s; steady {steady:.2f} s a scan; ratio {whole / (count * steady):.2f}; "
        f"memory {np.median(memory[2:10]):.0f} MiB at the start, {np.median(memory[-8:]):.0f} MiB at the end"
    )


if __name__ == "__main__":
    main()
