"""Training on a cohort larger than memory: memory, disk and processor time of its slices, and who waits for whom.

    python benchmarks/large_cohort.py [--patients 3 12] [--slices 155] [--side 240] [--step-ms 50] [--workers 1]
    python benchmarks/large_cohort.py --patients 37 369                          as large as BRATS: 10 GB of TMPDIR
    python benchmarks/large_cohort.py --dataset holes --patients 2 4 --batches 3 --step-ms 175       blocks of `fill`

Each number of patients has a process of its own, which reads slices as `gvs` does at its paper's size, or blocks as
`fill` and `lesion` do, in batches of 8 and random order. Memory that belongs to the process, and cannot be given back
(RssAnon), is what must not grow; pages of the file are the operating system's to keep or to drop. In place of a
network, the loop sleeps for the time that a step is assumed to take on a GPU; waiting is the share of the loop's time
in which no batch was there. Patients are copies of one phantom, which is read and unpacked for each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, DistributedSampler

from pipeline.phantoms import brain_phantom
from pipeline.phantoms.lesion_slices import LesionSlices
from pipeline.preprocessing.cohort import Settings, write_tables
from pipeline.preprocessing.cohort_format import LEVELS, Subject, write_stored
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.hole_slices import HoleDataset
from pipeline.preprocessing.slices import SliceDataset

LABELS = ("healthy", "pathological")
BATCH = 8
# What an item is: a slice, or a block of up to eight slices that are cut, filled or planted anew.
DATASETS: dict[str, Callable[[Path, Grid], Any]] = {
    "slices": lambda folder, grid: SliceDataset(folder, "training", grid, LABELS),
    "holes": lambda folder, grid: HoleDataset(folder, "training", grid),
    "lesions": lambda folder, grid: LesionSlices(folder, "training", grid),
}


def make_volumes(folder: Path, slices: int, side: int) -> list[float]:
    """A phantom's image and mask as a cohort has them, and the lesion's area in each slice."""
    phantom = brain_phantom(0, shape=(side, side, slices), spacing_mm=(1.0, 1.0, 1.0))
    top = np.percentile(phantom.image, 99.5)
    levels = np.rint(np.clip(phantom.image / top, 0, 1) * LEVELS).astype(np.uint16)
    write_stored(folder / "images" / "p.nii.gz", np.moveaxis(levels, 2, 0), phantom.affine)
    lesion = np.moveaxis(phantom.lesion > 0, 2, 0)
    write_stored(folder / "masks" / "p.nii.gz", lesion.astype(np.uint8), phantom.affine)
    areas: list[float] = lesion.sum(axis=(1, 2)).astype(float).tolist()
    return areas


def make_cohort(folder: Path, volumes: Path, areas_mm2: list[float], patients: int) -> None:
    """A preprocessed cohort, all of whose scans are one file."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
        os.link(volumes / name / "p.nii.gz", folder / name / "p.nii.gz")
    subjects = [
        Subject(
            subject=f"p{number:05}", patient=f"p{number:05}", images="images/p.nii.gz", masks="masks/p.nii.gz",
            spacing_mm=(1.0, 1.0, 1.0), labels=["pathological" if area else "healthy" for area in areas_mm2],
            lesion_mm2=areas_mm2, split="training",
        )
        for number in range(patients)
    ]  # fmt: skip
    write_tables(folder, subjects, {**asdict(Settings()), "split": (1.0, 0.0, 0.0)}, "phantom", [])


def mib(key: str) -> float:
    """A figure of this process's memory, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(key)) / 1024


@contextmanager
def peak_of(key: str) -> Iterator[Callable[[], float]]:
    """The largest size while the block lasts, looked at fifty times a second."""
    largest, ended = [mib(key)], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            largest[0] = max(largest[0], mib(key))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield lambda: largest[0]
    ended.set()
    thread.join()


def read(folder: Path, kind: str, side: int, step_s: float, workers: int, batches: int) -> dict[str, float]:
    """Unpack a cohort and read batches from it in random order, as a training does."""
    before, start = mib("RssAnon"), time.process_time()
    with peak_of("RssAnon") as peak:
        data = DATASETS[kind](folder, Grid(1.0, (side, side)))
        unpacking, unpacked = time.process_time() - start, peak()
    slices = data if isinstance(data, SliceDataset) else data.scans
    found: dict[str, float] = {
        "slices": len(slices),
        "disk_mib": (slices.images.nbytes + slices.masks.nbytes) / 2**20,
        "unpack_ms": 1000 * unpacking / len(slices),
        "unpack_mib": unpacked - before,
    }
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=1, rank=0, seed=0)
    collate = None if kind == "slices" else list
    with peak_of("RssAnon") as peak:
        start = time.process_time()
        for number, _ in enumerate(DataLoader(data, BATCH, sampler=sampler, collate_fn=collate)):
            if number == batches - 1:
                break
        found["read_ms"] = 1000 * (time.process_time() - start) / (BATCH * batches)
        found["read_mib"] = peak() - before
    loader = iter(DataLoader(data, BATCH, sampler=sampler, num_workers=workers, collate_fn=collate))
    next(loader)  # workers have started
    waited, start = 0.0, time.perf_counter()
    for _ in range(min(batches, len(data) // BATCH - 1)):
        asked = time.perf_counter()
        next(loader)
        waited += time.perf_counter() - asked
        time.sleep(step_s)
    found["waiting"] = waited / (time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", nargs="+", type=int, default=[3, 12])
    parser.add_argument("--dataset", choices=DATASETS, default="slices")
    parser.add_argument("--slices", type=int, default=155)
    parser.add_argument("--side", type=int, default=240)
    parser.add_argument("--step-ms", type=float, default=50.0, help="that a step on a batch is assumed to take")
    parser.add_argument("--workers", type=int, default=1, help="that prepare batches; the bundles' default on a GPU is "
                        "as many as there are processors")  # fmt: skip
    parser.add_argument("--batches", type=int, default=40, help="to read")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # of a child of this program: the cohort
    given = parser.parse_args()
    if given.work:
        print(
            json.dumps(read(given.work, given.dataset, given.side, given.step_ms / 1000, given.workers, given.batches))
        )
        return
    found = []
    print(f"{'patients':>8} {'slices':>7} {'file, MiB':>10} {'unpacking: MiB':>15} {'ms a slice':>11} "
          f"{'reading: MiB':>13} {'ms an item':>11} {'waiting':>8}", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        areas_mm2 = make_volumes(Path(name), given.slices, given.side)
        for patients in given.patients:
            cohort = Path(name) / str(patients)
            make_cohort(cohort, Path(name), areas_mm2, patients)
            command = [sys.executable, __file__, *sys.argv[1:], "--work", str(cohort)]
            row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            found.append(row)
            print(f"{patients:8} {row['slices']:7.0f} {row['disk_mib']:10.0f} {row['unpack_mib']:15.0f} "
                  f"{row['unpack_ms']:11.2f} {row['read_mib']:13.0f} {row['read_ms']:11.2f} {row['waiting']:8.1%}",
                  flush=True)  # fmt: skip
    first, last = found[0], found[-1]
    grown = max(last["unpack_mib"], last["read_mib"]) - max(first["unpack_mib"], first["read_mib"])
    batch_ms = BATCH * last["read_ms"]
    print(f"memory grew by {grown:.0f} MiB while the slices grew by {last['disk_mib'] - first['disk_mib']:.0f} MiB; "
          f"a batch takes {batch_ms:.0f} ms of one processor, {batch_ms / given.step_ms:.2f} "
          f"of a step of {given.step_ms:g} ms")  # fmt: skip


if __name__ == "__main__":
    main()
