"""What shares gain: two of them on a processor each, against one run of all scans on one processor, and on both.

    python benchmarks/shares.py [--count 24] [--bundle gvs]

Each is the whole command in processes of their own, on copies of one phantom, its start and the index included. They
run one after the other, `--repeat` times in turns; the medians are compared. Needs two idle processors, and `taskset`
(Linux).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib

from pipeline.phantoms import brain_phantom


def seconds(command: list[str], processors: list[str]) -> float:
    """Time until all shares have ended; each has its own processors."""
    start = time.perf_counter()
    shares = [
        subprocess.Popen(
            ["taskset", "--cpu-list", own, *command, "--num-parts", str(len(processors)), "--part-id", str(part)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for part, own in enumerate(processors)
    ]
    if any(share.wait() for share in shares):
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--bundle", default="gvs")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    first, second, *_ = sorted(os.sched_getaffinity(0))
    ways = {
        "one run on one processor": [f"{first}"],
        "two shares on a processor each": [f"{first}", f"{second}"],
        "one run on both processors": [f"{first},{second}"],
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantom = brain_phantom(0)
        scans = [folder / "scans" / f"scan{number:03}.nii.gz" for number in range(arguments.count)]
        scans[0].parent.mkdir()
        nib.save(nib.Nifti1Image(phantom.image, phantom.affine), scans[0])
        for scan in scans[1:]:
            shutil.copyfile(scans[0], scan)
        command = [sys.executable, "-m", "pipeline.cli", "synthesize", str(scans[0].parent), "-b", arguments.bundle]
        for _ in range(arguments.repeat):
            for way, processors in ways.items():
                taken[way].append(seconds([*command, "--force", "-o", str(folder / "out")], processors))
                shutil.rmtree(folder / "out")
    medians = {way: statistics.median(times) for way, times in taken.items()}
    alone, *_ = medians.values()
    for way, median in medians.items():
        print(f"{way}: {median:.1f} s for {arguments.count} scans, {alone / median:.2f} times as fast as the first")


if __name__ == "__main__":
    main()
