"""What `synthesize` costs over the bare network on the same slices, and how much memory it takes.

    python benchmarks/synthesize.py [--scan FILE] [--preset paper|laptop]

Without a scan, a phantom of 240×240×155 voxels of 1 mm is made. The network is run over the same slices on its
own grid, with the same batch size, in the same run.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from pipeline.inference import Translator, predict_scans
from pipeline.networks import JohnsonGenerator
from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import read_nifti
from pipeline.scans.sources import open_sources

PRESETS = {
    "paper": ({"filters": 32}, Grid(1.0, (240, 240))),
    "laptop": ({"filters": 16, "upsampling": "bilinear", "output": "residual"}, Grid(2.0, (128, 128))),
}


def phantom_scan(folder: Path) -> Path:
    phantom = brain_phantom(0, shape=(240, 240, 155), spacing_mm=(1.0, 1.0, 1.0))
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), folder / "phantom.nii.gz")
    return folder / "phantom.nii.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    settings, grid = PRESETS[arguments.preset]
    torch.manual_seed(0)
    synthesizer = Translator(JohnsonGenerator(**settings), grid, WindowRule())

    slices: list[tuple[int, ...]] = []
    original = synthesizer.runner.inferer

    def noting(images: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        slices.append(tuple(images.shape))
        return original(images, network)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = arguments.scan or phantom_scan(folder)
        shape = read_nifti(scan).shape
        synthesizer.runner.inferer = noting
        with open_sources([scan]) as sources:
            predict_scans(sources, synthesizer, {}, folder / "warm", lambda *_: None)
        synthesizer.runner.inferer = original
        whole, bare = [], []
        for repeat in range(arguments.repeats):
            start = time.perf_counter()
            with open_sources([scan]) as sources:
                outcome = predict_scans(sources, synthesizer, {}, folder / str(repeat), lambda *_: None)
            whole.append(time.perf_counter() - start)
            assert not outcome.of("failed"), outcome
            start = time.perf_counter()
            with torch.inference_mode():
                for batch in slices:
                    synthesizer.runner.network(torch.zeros(batch))
            bare.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    count = sum(batch[0] for batch in slices)
    print(
        f"{shape}: {count} slices; read, synthesise, write {np.median(whole):.2f} s; "
        f"bare network {np.median(bare):.2f} s; ratio {np.median(whole) / np.median(bare):.2f}; "
        f"peak memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
