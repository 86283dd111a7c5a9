"""What the commands that look at a whole cohort cost for 1,000 scans and for 10,000: processor time, memory, ratios.

    python benchmarks/ten_thousand.py [--counts 1000 10000] [--only preprocess index verify evaluate compare]

Scans are tiny; headers, sidecars, pages, records and tables are those that the program writes. Each command runs in a
process of its own. Ten times as many scans at a ratio of 10 is linear; below 10, what the program's start takes counts.
Memory is flat where the last column is small: KiB that one more scan adds to the largest size of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

    from pipeline.metrics import Metric

SHAPE = (20, 24, 6)
SLICES = 10  # of each scan, in the tables of an evaluation
CONTROLS = ("untouched input", "mean-filled lesion", "ring-filled lesion", "mirrored hemisphere", "harmonic")
METHODS = ("gvs", "cyclegan")
PROGRAM = [sys.executable, "-m", "pipeline.cli"]


def scan_file(path: Path) -> Path:
    """A tiny scan, and its lesion mask beside it."""
    voxels = np.zeros(SHAPE, np.int16)
    voxels[4:16, 4:20] = 400 + np.random.default_rng(0).integers(0, 50, (12, 16, 6))
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:11, 8:12, 2:4] = 1
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    nib.save(nib.Nifti1Image(voxels, affine), path)
    nib.save(nib.Nifti1Image(mask, affine), path.with_name("mask.nii.gz"))
    return path


def make_cohort(folder: Path, count: int) -> None:
    """A BIDS dataset, its files hard links of one scan and one mask."""
    scan = scan_file(folder / "scan.nii.gz")
    for number in range(count):
        name = f"sub-{number:05}"
        image = folder / "bids" / name / "anat" / f"{name}_FLAIR.nii.gz"
        mask = folder / "bids" / "derivatives" / "lesions" / name / "anat" / f"{name}_label-lesion_mask.nii.gz"
        for path, of in ((image, scan), (mask, scan.with_name("mask.nii.gz"))):
            path.parent.mkdir(parents=True)
            os.link(of, path)


def make_results(folder: Path, count: int) -> None:
    """What `synthesize` writes of one scan, under many names; every 20th failed, every 7th is warned of."""
    import torch

    from pipeline.inference import Request, Translator, predict_scans
    from pipeline.inference.outputs import Form
    from pipeline.networks import JohnsonGenerator
    from pipeline.preprocessing.grid import Grid
    from pipeline.preprocessing.window import WindowRule
    from pipeline.reports import ScanPage
    from pipeline.scans.sources import open_sources

    torch.manual_seed(0)
    translator = Translator(JohnsonGenerator(filters=2), Grid(2.0, (32, 32)), WindowRule())
    out, name = folder / "out", "scan00000"
    provenance, request = {"Bundle": "gvs", "BundleVersion": "1"}, Request(form=Form(page=ScanPage()))
    with open_sources([scan_file(folder / f"{name}.nii.gz")]) as sources:
        predict_scans(sources, translator, provenance, out, lambda *_: None, request)
    made = sorted(out.glob(f"{name}*"))
    sidecar = next(path for path in made if path.suffix == ".json" and "Figures" in json.loads(path.read_text()))
    told = sidecar.read_text()
    (out / "failed").mkdir()
    for number in range(1, count):
        other = f"scan{number:05}"
        if number % 20 == 0:
            note = {"Scan": other, "PathSha256": f"{number:08x}", "Error": f"{other}: is truncated"}
            (out / "failed" / f"{other}_{number:08x}.json").write_text(json.dumps(note))
            continue
        for path in made:
            if path != sidecar:
                os.link(path, out / path.name.replace(name, other))
        content = json.loads(told.replace(name, other))
        for figure in content["Figures"]:
            figure["value"] = figure["value"] and figure["value"] * (number % 97 + 1) / 97
        content["Warnings"] = ["The spacing is 5 mm, the training's was 1 mm."] if number % 7 == 0 else []
        (out / sidecar.name.replace(name, other)).write_text(json.dumps(content, indent=2))


def write_index(folder: Path, count: int) -> None:
    """Index and table of all results, as every run ends with."""
    from pipeline.inference.run import Outcome
    from pipeline.reports.folder import write_folder_pages

    write_folder_pages(folder / "out", Outcome({}), count)


def figures(seed: int) -> tuple[list[dict[str, Any]], set[str]]:
    """What the metrics measure on some slices of noise, and the fields that they had."""
    import torch

    from pipeline.evaluation.scores import score_rows
    from pipeline.metrics import METRICS

    noise = torch.Generator().manual_seed(seed)
    image, mask = torch.rand(SLICES, 1, 32, 32, generator=noise), torch.zeros(SLICES, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:14, 9:15] = True
    twin = (image + 0.1 * torch.rand(image.shape, generator=noise)).clamp(0, 1)
    given = {"image": image, "mask": mask, "foreground": torch.ones_like(mask), "twin": twin, "spacing_mm": (1.0, 1.0),
             "found": mask & (twin > 0.7), "voxel_ml": 0.001}  # fmt: skip
    return score_rows({}, list(range(SLICES)), given, METRICS.values()), set(given)


def write_tables(folder: Path, count: int) -> None:
    """Tables of an evaluation of a method and five controls: all but reading scans and running networks."""
    from pipeline.evaluation.slice_table import SliceTable
    from pipeline.files import write_table
    from pipeline.metrics import METRICS
    from pipeline.metrics.metric import metrics_for

    table = SliceTable()
    measured = {row: figures(place) for place, row in enumerate((METHODS[0], *CONTROLS))}
    for number in range(count):
        keys = {"patient": f"sub-{number:05}", "subject": f"sub-{number:05}"}
        for method, (rows, _) in measured.items():
            table.add([{"method": method, **keys, **row} for row in rows])
    metrics = metrics_for(METRICS, measured[METHODS[0]][1])
    write_report_of(folder / METHODS[0], METHODS[0], table.volumes(metrics), metrics)
    write_table(folder / METHODS[0] / "slices.csv", table.frames())


def write_report_of(report: Path, name: str, volumes: "DataFrame", metrics: "list[Metric]") -> None:
    """What a report holds of volumes."""
    from pipeline.evaluation.scores import score_methods
    from pipeline.files import table_csv, write_json, write_text

    count, dice = volumes["subject"].nunique(), {"pooled": 0.8, "mean_per_slice": 0.7}
    summary = {
        "format": 2, "method": name, "kind": "translator", "provenance": {"Bundle": name}, "a_dice": None,
        "cohort": {"sha256": "a", "split": "test", "patients": count, "volumes": count, "slices": SLICES * count,
                   "unit": "pathological slice"},
        "judge": {"network": "UNet", "seed": 1, "iterations": 1, "weights_sha256": "a", "dice": {"test": dice}},
        "metrics": [metric.record() for metric in metrics],
        "methods": score_methods(volumes, metrics),
    }  # fmt: skip
    write_text(report / "patients.csv", table_csv(volumes))
    write_json(report / "summary.json", summary)


def make_reports(folder: Path, count: int) -> None:
    """Two reports on the same scans, whose figures are those of one scan, and noise."""
    import pandas as pd

    from pipeline.evaluation.scores import score_volumes
    from pipeline.metrics import METRICS
    from pipeline.metrics.metric import metrics_for

    for name in METHODS:
        measured = {row: figures(100 + place) for place, row in enumerate(CONTROLS)}
        measured = {name: figures(METHODS.index(name)), **measured}
        metrics = metrics_for(METRICS, measured[name][1])
        keys = {"patient": "", "subject": ""}
        rows = [{"method": method, **keys, **row} for method, (found, _) in measured.items() for row in found]
        volumes = score_volumes(pd.DataFrame(rows), metrics).loc[lambda frame: np.repeat(frame.index, count)]
        volumes["subject"] = volumes["patient"] = [f"sub-{n:05}" for _ in measured for n in range(count)]
        drawn = np.random.default_rng(0).uniform(0.9, 1.0, len(volumes))
        for metric in metrics:
            if metric.level != "pooled":
                volumes[metric.name] *= drawn
        write_report_of(folder / name, name, volumes, metrics)


# Of each row of the table: what it needs, made beforehand, and the command, or the work in this file that it is.
MADE = {
    "preprocess": make_cohort,
    "index": make_results,
    "verify": make_results,
    "evaluate": None,
    "compare": make_reports,
}
WORK = {"index": write_index, "evaluate": write_tables}
COMMANDS = {
    "preprocess": ["preprocess", "{}/bids", "-o", "{}/cohort", "--dry-run"],
    "verify": ["verify", "{}/out"],
    "compare": ["compare", *(f"{{}}/{name}" for name in METHODS), "-o", "{}/compared", "--no-panel"],
}
LABELS = {
    "preprocess": "preprocess --dry-run",
    "index": "index page and scores.csv",
    "verify": "verify FOLDER",
    "evaluate": f"tables of evaluate, {SLICES} slices, 6 rows",
    "compare": "compare, 2 reports",
}


def measured(command: list[str]) -> tuple[float, float]:
    """Processor seconds and peak memory (MiB) of a command that succeeds."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            said.seek(0)
            sys.exit(said.read().decode())
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs=2, type=int, default=[1000, 10_000], metavar="N")
    parser.add_argument("--only", nargs="+", choices=MADE, default=list(MADE))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)  # what a child of this program does, and where
    given = parser.parse_args()
    if given.work:
        WORK[given.work[0]](Path(given.work[1]), given.counts[0])
        return
    few, many = given.counts
    print(f"{'':38} {few:>7} scans {'':8} {many:>7} scans {'':8} {'ratio':>6} {'KiB':>7}")
    print(f"{'':38} {'CPU s':>9} {'MiB':>9}   {'CPU s':>9} {'MiB':>9}   {'of s':>8} {'a scan':>7}")
    for name in given.only:
        taken = []
        for count in given.counts:
            with tempfile.TemporaryDirectory() as folder:
                make = MADE[name]
                if make is not None:
                    make(Path(folder), count)
                command = [*PROGRAM, *(part.format(folder) for part in COMMANDS.get(name, ()))]
                if name in WORK:
                    command = [sys.executable, __file__, "--counts", str(count), "0", "--work", name, folder]
                taken.append(measured(command))
        (s, mib), (more_s, more_mib) = taken
        grown = 1024 * (more_mib - mib) / (many - few)
        print(f"{LABELS[name]:38} {s:9.1f} {mib:9.0f}   {more_s:9.1f} {more_mib:9.0f}   {more_s / s:8.1f} {grown:7.1f}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
