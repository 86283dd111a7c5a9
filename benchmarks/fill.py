"""What `fill` and `synthesize` cost beside the harmonic fill and beside their bare networks, and their memory.

    python benchmarks/fill.py [--scan FILE] [--mask FILE]

Without a scan, a phantom of 240×240×155 voxels of 1 mm is made, with a bright ball of 50 ml in it, and its mask.
`synthesize` fills what it finds, not the mask. Each command runs in a process of its own. Seconds are of the processor,
user and system, of all threads, so that other work on the machine hardly counts; `wall` is the clock's. `start` is the
program's imports and the loading of weights; `networks` is what was spent inside them while the scan was worked on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

# What is typed, the kind of predictor, the bundle, and the precision of its networks.
COMMANDS = {
    "harmonic": ("fill -b harmonic", "filler", "harmonic", "float32"),
    "fill": ("fill", "filler", "fill", "float32"),
    "fill_bfloat16": ("fill --precision bfloat16", "filler", "fill", "bfloat16"),
    "synthesize": ("synthesize", "translator", "lesion+fill", "float32"),
    "synthesize_bfloat16": ("synthesize --precision bfloat16", "translator", "lesion+fill", "bfloat16"),
}
LESION_ML, SOFT_MM, ASIDE = 50.0, 2.0, np.array([25, 10, 10])
COLUMNS = ("command", "filled, ml", "start", "scan", "networks", "scan / networks", "scan / harmonic", "all / harmonic")


def phantom(folder: Path) -> tuple[Path, Path]:
    """A scan with a bright ball, and its mask."""
    from pipeline.phantoms import brain_phantom

    made = brain_phantom(0, shape=(240, 240, 155), spacing_mm=(1.0, 1.0, 1.0))
    centre = np.argwhere(made.healthy > 0).mean(axis=0) + ASIDE
    distance = np.linalg.norm(np.moveaxis(np.indices(made.healthy.shape), 0, -1) - centre, axis=-1)
    inside = (distance < (LESION_ML * 1000 * 3 / 4 / np.pi) ** (1 / 3)) & (made.healthy > 0)
    soft = np.clip((distance[inside].max() - distance) / SOFT_MM, 0, 1) * inside
    sick = (made.healthy + 500 * soft).astype(np.int16)
    paths = folder / "scan.nii.gz", folder / "mask.nii.gz"
    for path, voxels in zip(paths, (sick, inside.astype(np.uint8)), strict=True):
        nib.save(nib.Nifti1Image(voxels, made.affine), path)
    return paths


def timed_inferer(inferer: Any) -> Any:
    """The same inferer, which adds up the processor time of its networks in `seconds`."""
    from monai.inferers import Inferer

    class Timed(Inferer):
        seconds = 0.0

        def __call__(self, images: Any, network: Any) -> Any:
            before = time.process_time()
            output = inferer(images, network)
            self.seconds += time.process_time() - before
            return output

    return Timed()


def worked(command: str, scan: Path, mask: Path, out: Path) -> dict[str, float]:
    """Run one command in this process."""
    from pipeline.allocator import keep_freed_memory, kept_objects

    _, kind, bundle, precision = COMMANDS[command]
    keep_freed_memory()  # as the command line does
    with kept_objects():
        from pipeline.bundles import find_parts
        from pipeline.inference import Request, load_parts, predict_scans
        from pipeline.inference.outputs import Form
        from pipeline.reports import ScanPage
        from pipeline.scans.sources import open_sources

        loaded = load_parts(find_parts(bundle), kind, "cpu", precision=precision)
    timed = []
    for part in (getattr(loaded.predictor, "segmenter", None), getattr(loaded.predictor, "filler", loaded.predictor)):
        if hasattr(part, "runner"):
            part.runner.inferer = timed_inferer(part.runner.inferer)
            timed.append(part.runner.inferer)
    start = time.process_time()
    with open_sources([scan]) as sources:
        masks = {} if kind == "translator" else dict.fromkeys(sources, mask)
        request = Request(form=Form(None, ScanPage(viewer=False)), masks=masks, force=True)
        outcome = predict_scans(
            sources, loaded.predictor, loaded.provenance, out, lambda *_: None, request, loaded.metadata
        )
    assert not outcome.of("failed"), outcome
    (record,) = outcome.records.values()
    filled = next(iter(out.glob("*_mask.nii.gz")))
    return {
        "start": start,
        "scan": time.process_time() - start,
        "networks": sum(inferer.seconds for inferer in timed),
        "ml": float(np.count_nonzero(np.asanyarray(nib.load(filled).dataobj))) / 1000,
        "gib": (record.peak_memory_mib or float("nan")) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--only", choices=COMMANDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if (given.scan is None) != (given.mask is None):
        parser.error("give both of --scan and --mask, or none")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.only:
            print(json.dumps(worked(given.only, given.scan, given.mask, folder / "out")))
            return
        from pipeline.devices import has_bfloat16, pick_device

        scan, mask = (given.scan, given.mask) if given.scan else phantom(folder)
        print(f"| {' | '.join((*COLUMNS, 'wall', 'GiB'))} |\n|---|{'---:|' * (len(COLUMNS) + 1)}")
        first: dict[str, float] = {}
        for command, (typed, *_, precision) in COMMANDS.items():
            if precision == "bfloat16" and not has_bfloat16(pick_device("cpu")):
                continue
            clock = time.perf_counter()
            arguments = [sys.executable, __file__, "--only", command, "--scan", scan, "--mask", mask]
            answer = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
            wall = time.perf_counter() - clock
            found = json.loads(answer.stdout.splitlines()[-1])
            first = first or found
            whole, of_first = (each["start"] + each["scan"] for each in (found, first))
            cells = [
                f"`{typed}`",
                f"{found['ml']:.0f}",
                *(f"{found[part]:.1f}" for part in ("start", "scan", "networks")),
                f"{found['scan'] / found['networks']:.2f}" if found["networks"] else "",
                *(f"{ratio:.1f}" for ratio in (found["scan"] / first["scan"], whole / of_first, wall)),
                f"{found['gib']:.2f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
