"""What preprocessing costs beside merely reading and writing the same files.

    python benchmarks/preprocess.py ../shared/data/lgg

Prints the time of both over all cores, their ratio, and the largest process's memory for half of the scans and for all:
equal numbers mean that memory does not grow with the cohort.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.cohorts import Case, find_cases
from pipeline.preprocessing.cohort import Settings, preprocess


def read_and_write(case: Case, directory: Path) -> None:
    """Decode a scan and its mask, and encode their voxels again."""
    for kind, path in (("image", case.image), ("mask", case.mask)):
        image = nib.load(path)
        voxels = np.asanyarray(image.dataobj)
        nib.save(nib.Nifti1Image(voxels.astype(image.get_data_dtype()), None, image.header),
                 directory / f"{case.subject}_{kind}.nii.gz")  # fmt: skip


def baseline(cases: list[Case], directory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    with concurrent.futures.ProcessPoolExecutor(cores, mp_context=context) as pool:
        for job in [pool.submit(read_and_write, case, directory) for case in cases]:
            job.result()


def datalist(cases: list[Case], path: Path) -> Path:
    entries = [{"image": str(case.image), "mask": str(case.mask), "subject": case.subject} for case in cases]
    path.write_text(json.dumps({"training": entries}))
    return path


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def preprocess_listed(listed: Path, directory: Path) -> None:
    preprocess(listed, directory, Settings())


def peak_mib(listed: Path, directory: Path, answer: multiprocessing.Queue) -> None:
    preprocess_listed(listed, directory)
    usage = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    answer.put(max(usage) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, help="a cohort in a known layout")
    cohort = parser.parse_args().cohort.resolve()
    cases = find_cases(cohort).cases
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        everything = datalist(cases, directory / "all.json")
        half = datalist(cases[::2], directory / "half.json")
        (directory / "baseline").mkdir()
        reading = seconds(lambda: baseline(cases, directory / "baseline"))
        processing = seconds(lambda: preprocess_listed(everything, directory / "preprocessed"))
        print(f"{len(cases)} scans on {len(os.sched_getaffinity(0))} cores")
        print(f"reading and writing  {reading:6.1f} s")
        print(f"preprocess           {processing:6.1f} s")
        print(f"ratio                {processing / reading:6.2f}")
        for name, listed in (("half", half), ("all", everything)):
            answer = context.Queue()
            process = context.Process(target=peak_mib, args=(listed, directory / f"memory-{name}", answer))
            process.start()
            print(f"peak memory, {name:<7} {answer.get():6.0f} MiB")
            process.join()


if __name__ == "__main__":
    main()
