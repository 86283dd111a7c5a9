"""Train a bundle on another machine: pack a cohort here, train and resume there, take the weights home.

    python scripts/train_packed.py pack COHORT -o .carry/cohort.tar [--decibels 42]
    python scripts/train_packed.py train gvs .carry/cohort.tar -o .carry/run --minutes 9 --to $OUT [--epochs 60 …]

A packed cohort holds the windowed slices in 8 bits instead of 16, as JPEG 2000: without further loss, or with a mean
squared error of so many decibels below the whole range. At 40 dB, 80 whole heads take about 22 MB, and the error in
the head is 1.3 % of the window, not more than a scan's noise.

`train` unpacks it, starts the training or goes on with the one in RUN, stops it at its last whole epoch when the
minutes are over, then lets the validation patients choose among the kept epochs and copies weights, curves, log and
scores to the folder of `--to`. The same command again goes on. Options that are not known here are handed to
`phs-pipeline train`. Needs nothing but this checkout and its dependencies, and no network.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("run.json", "selection.json", "curves.csv", "curves.png", "train.log", "configs/train.json")

sys.path.insert(0, str(ROOT))
Image.MAX_IMAGE_PIXELS = None  # a volume is one tall picture of ours
from pipeline.files import written_aside  # noqa: E402
from pipeline.preprocessing.cohort_format import LEVELS, read_cohort, read_stored  # noqa: E402

STEP = LEVELS // 255
STORED = "stored.json"  # of each image, what a picture does not hold


def pack(cohort: Path, packed: Path, decibels: float | None) -> None:
    """Write the cohort as one tar file, its images in 256 levels."""
    subjects = read_cohort(cohort).subjects
    stored = {}
    with written_aside(packed) as aside, tarfile.open(aside, "w") as archive:
        for name in ("cohort.json", "settings.json", *(subject.masks for subject in subjects if subject.masks)):
            archive.add(cohort / name, name)
        for path in (path for subject in subjects for path in subject.channels.values()):
            levels = np.round(read_stored(cohort / path) / STEP).astype(np.uint8)
            stored[path] = {"affine": nib.load(cohort / path).affine.tolist(), "slices": len(levels)}
            _add(archive, _picture(path), _compressed(levels, decibels))
        _add(archive, STORED, json.dumps(stored).encode())
    print(f"{packed}: {packed.stat().st_size / 1e6:.1f} MB, {len(subjects)} scans")


def _compressed(levels: NDArray[np.uint8], decibels: float | None) -> bytes:
    """Slices (N, H, W) below one another, as one JPEG 2000 picture."""
    how = {} if decibels is None else {"quality_mode": "dB", "quality_layers": [decibels], "irreversible": True}
    content = io.BytesIO()
    Image.fromarray(levels.reshape(-1, levels.shape[2])).save(content, "JPEG2000", **how)
    return content.getvalue()


def _picture(path: str) -> str:
    return path.replace(".nii.gz", ".jp2")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def unpack(packed: Path, cohort: Path) -> None:
    """Make it a preprocessed cohort again; `cohort.json` comes last: an interrupted one is not taken for finished."""
    with tarfile.open(packed) as archive:
        archive.extractall(cohort, filter="data")
    (cohort / "cohort.json").rename(cohort / "unfinished.json")
    stored = json.loads((cohort / STORED).read_text())
    # Decoding and compressing leave Python's lock: threads do.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: _unpack_one(cohort, path, **stored[path]), stored))
    (cohort / "unfinished.json").rename(cohort / "cohort.json")


def _unpack_one(cohort: Path, path: str, affine: list[list[float]], slices: int) -> None:
    with Image.open(cohort / _picture(path)) as picture:
        tall = np.asarray(picture).astype(np.uint16) * STEP
    volume = np.moveaxis(tall.reshape(slices, -1, tall.shape[1]), 0, 2)
    with written_aside(cohort / path) as aside:
        nib.save(nib.Nifti1Image(volume, np.array(affine)), aside)
    (cohort / _picture(path)).unlink()


def train(
    bundle: str, packed: Path, run: Path, minutes: float, to: Path, judge_iterations: int, rest: list[str]
) -> int:
    """Train for so many minutes, choose an epoch, and copy what is worth keeping."""
    cohort = run.with_name(run.name + "_cohort")
    if not (cohort / "cohort.json").is_file():
        shutil.rmtree(cohort, ignore_errors=True)
        unpack(packed, cohort)
    command = [sys.executable, "-m", "pipeline.cli"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    training = [*command, "train", bundle, "--data", str(cohort), "-o", str(run)]
    if (run / "configs" / "train.json").is_file():
        training.append("--resume")
    else:
        training += ["--set", "keep_every=1", *rest]
    run.parent.mkdir(parents=True, exist_ok=True)
    log = run.with_name(run.name + ".log")
    with log.open("ab") as out:
        process = subprocess.Popen(training, env=environment, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            code = process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
            code = 0
            print(f"stopped after {minutes:g} minutes; the same command goes on from the last whole epoch")
    print(log.read_text()[-2000:])
    if code:
        return code
    choice = [*command, "select", str(run), "--data", str(cohort), "--judge-iterations", str(judge_iterations)]
    code = subprocess.call(choice, env=environment, cwd=ROOT)
    shutil.copyfile(log, run / "train.log")
    to.mkdir(parents=True, exist_ok=True)
    exports = [f"models/{name}.pt" for name in ("model", "cycle", "segmentor", "checkpoint")]
    for name in (*KEPT, *exports):
        if (run / name).is_file():
            shutil.copyfile(run / name, to / Path(name).name)
    if (run / "selection.json").is_file():
        print(json.dumps(json.loads((run / "selection.json").read_text()), indent=1)[:1000])
    return code


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a cohort as one small file")
    packing.add_argument("cohort", type=Path)
    packing.add_argument("-o", "--output", type=Path, required=True)
    packing.add_argument("--decibels", type=float, help="PSNR of the images; without it no further loss")
    training = commands.add_parser("train", help="train from such a file, or go on")
    training.add_argument("bundle")
    training.add_argument("packed", type=Path)
    training.add_argument("-o", "--output", type=Path, required=True, help="the run; give it again to go on")
    training.add_argument("--minutes", type=float, default=9.0)
    training.add_argument("--to", type=Path, required=True, help="folder for what is worth keeping")
    training.add_argument("--judge-iterations", type=int, default=600, help="of the segmentor that chooses")
    known, rest = parser.parse_known_args()
    if known.command == "pack":
        pack(known.cohort, known.output, known.decibels)
        return 0
    return train(
        known.bundle,
        known.packed,
        known.output.resolve(),
        known.minutes,
        known.to.resolve(),
        known.judge_iterations,
        rest,
    )


if __name__ == "__main__":
    sys.exit(main())
