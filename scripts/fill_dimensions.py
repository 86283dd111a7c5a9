"""Should a filler see slices with their neighbours, or volumes? Both are trained for the same processor time.

    python scripts/fill_dimensions.py COHORT --minutes 15 -o dimensions.md

COHORT is a preprocessed one (`fill_cohort.py` lists that of the shipped filler). The 2.5-D network is that of the
bundle `fill`, preset `laptop`; the 3-D one has the same filters, loss, optimiser and holes, and convolutions of 3×3×3
over blocks of 16 slices. Both start as the harmonic fill, run on one thread, and are measured on the same holes of the
validation patients: the gain in PSNR over the harmonic fill, over all voxels of a block's holes, the mean over a
patient's blocks.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.comparison.significance import wilcoxon_signed_rank  # noqa: E402
from pipeline.methods import Inpainting  # noqa: E402
from pipeline.networks import FillNetwork  # noqa: E402
from pipeline.preprocessing.grid import Grid  # noqa: E402
from pipeline.preprocessing.harmonic import harmonic_fill  # noqa: E402
from pipeline.preprocessing.hole_slices import HoleDataset, network_channels  # noqa: E402
from pipeline.preprocessing.neighbours import with_neighbours  # noqa: E402

GRID, CROP, DEPTH, FILTERS = Grid(2.0, (128, 128)), (64, 64), 16, 16
RATE, ITEMS, LARGEST_GRADIENT = 0.001, 4, 1.0
AIR = 0.04


class VolumeNetwork(nn.Module):
    """A 3-D U-Net whose output is added to the harmonic fill; takes (B, 4, D, H, W), gives (B, 1, D, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        features = (FILTERS, 2 * FILTERS, 4 * FILTERS, 8 * FILTERS, 8 * FILTERS, FILTERS)
        self.unet = BasicUNet(spatial_dims=3, in_channels=5, out_channels=1, features=features, norm="batch")
        nn.init.zeros_(self.unet.final_conv.weight)
        nn.init.zeros_(self.unet.final_conv.bias)

    def forward(self, shown: Tensor) -> Tensor:
        """The filled block."""
        filled, hole, other, other_hole = shown.split(1, dim=1)
        tissue = ((filled > AIR) & (hole < 0.5)).to(filled)
        count = tissue.sum(dim=(1, 2, 3, 4), keepdim=True).clamp_min(1)
        mean = (filled * tissue).sum(dim=(1, 2, 3, 4), keepdim=True) / count
        scale = (((filled - mean).square() * tissue).sum(dim=(1, 2, 3, 4), keepdim=True) / count).sqrt().clamp_min(1e-3)
        head, other_head = ((part > AIR).to(filled) for part in (filled, other))
        features = [(filled - mean) / scale * head, hole, head, (other - mean) / scale * other_head, other_hole]
        return filled + hole * scale * self.unet(torch.cat(features, dim=1)).to(filled)


class Blocks(HoleDataset):
    """Whole blocks of `DEPTH` slices instead of single slices."""

    def whole(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Truth (slices, H, W), hole, and channels (slices, 4, H, W) of a block."""
        volume = self.items[index]
        truth, head, hole, spacing_mm = self._with_holes(volume, rng)
        filled = harmonic_fill(truth, hole, head & ~hole, spacing_mm)
        channels = network_channels(torch.from_numpy(filled), torch.from_numpy(hole), volume.line)
        return torch.from_numpy(truth), torch.from_numpy(hole), channels

    def cropped(self, index: int) -> dict[str, Tensor]:
        """A crop of a block around a hole: `shown` (4, D, h, w), `image` and `mask` (1, D, h, w)."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        truth, hole, channels = self.whole(index, rng)
        areas = hole.sum(dim=(1, 2)).numpy()
        middle = int(rng.choice(len(areas), p=areas / areas.sum()))
        first = int(np.clip(middle - DEPTH // 2, 0, max(0, len(areas) - DEPTH)))
        places = np.clip(np.arange(first, first + DEPTH), 0, len(areas) - 1)
        rows, columns = self._window(hole[middle].numpy(), rng)
        shown = channels[places][:, :, rows, columns].transpose(0, 1)
        return {"shown": shown, "image": truth[places][None, :, rows, columns], "mask": shown[1:2]}


class Folded(nn.Module):
    """A network of volumes as one of slices, so that the same loss is taken."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, shown: Tensor) -> Tensor:
        """The slices of all blocks, (B · D, 1, H, W)."""
        return fold(self.network(shown))


def fold(blocks: Tensor) -> Tensor:
    """(B, 1, D, H, W) to (B · D, 1, H, W)."""
    return blocks.transpose(1, 2).flatten(0, 1)


def batches(cohort: Path, volumes: bool) -> Iterator[dict[str, Tensor]]:
    """Training batches without end."""
    kind = Blocks if volumes else HoleDataset
    dataset = kind(cohort, "training", GRID, crop=CROP)
    while True:
        chosen = torch.randint(len(dataset), (ITEMS,)).tolist()
        if volumes:
            samples = [dataset.cropped(index) for index in chosen]  # type: ignore[attr-defined]
        else:
            samples = [sample for index in chosen for sample in dataset[index]]
        batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        yield batch | {"image": fold(batch["image"]), "mask": fold(batch["mask"])} if volumes else batch


def trained(cohort: Path, volumes: bool, seconds: float) -> tuple[nn.Module, int]:
    """A network after so much processor time of this process, and its iterations."""
    torch.manual_seed(0)
    network: nn.Module = VolumeNetwork() if volumes else FillNetwork(filters=FILTERS)
    method = Inpainting(Folded(network) if volumes else network)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    start, iterations = time.process_time(), 0
    for batch in batches(cohort, volumes):
        spent = time.process_time() - start
        if spent > seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * max(1e-3, 1 - spent / seconds) ** 0.8
        with torch.autocast("cpu", torch.bfloat16):
            terms = method.supervise(batch, {})
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        # Without both the 3-D network diverges: few blocks make a batch, and one may have a hole of some voxels alone.
        if nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT).isfinite():
            optimizer.step()
        iterations += 1
    return network.eval(), iterations


@torch.inference_mode()
def gains(cohort: Path, network: nn.Module, volumes: bool) -> dict[str, float]:
    """The gain over the harmonic fill in dB, by validation patient."""
    dataset = Blocks(cohort, "validation", GRID, fixed=True)
    found: dict[str, list[float]] = defaultdict(list)
    for index, volume in enumerate(dataset.items):
        truth, hole, channels = dataset.whole(index, np.random.default_rng((0, index)))
        if volumes:
            places = np.clip(np.arange(-(-len(truth) // DEPTH) * DEPTH), 0, len(truth) - 1)
            made = network(channels[places].transpose(0, 1)[None])[0, 0, : len(truth)].clamp(0, 1)
        else:
            made = network(with_neighbours(channels, np.arange(len(truth)), 1))[:, 0]
        errors = [float(((image - truth)[hole] ** 2).mean()) + 1e-10 for image in (channels[:, 0], made)]
        subject = dataset.scans.subject_of[volume.first]
        found[subject.patient].append(10 * float(np.log10(errors[0] / errors[1])))
    return {patient: float(np.mean(each)) for patient, each in found.items()}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--minutes", type=float, default=15, help="processor time of each training")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| network | parameters | iterations | gain over harmonic, dB |", "|---|---:|---:|---:|"]
    results: list[Any] = []
    for name, volumes in (("2.5-D", False), ("3-D", True)):
        network, iterations = trained(given.cohort, volumes, 60 * given.minutes)
        gain = np.array(list(gains(given.cohort, network, volumes).values()))
        results.append(gain)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f"| {name} | {parameters:,} | {iterations} | {gain.mean():+.2f} ± {gain.std(ddof=1):.2f} |")
        print(lines[-1], flush=True)
    p = wilcoxon_signed_rank(*results).p
    lines += ["", f"{given.minutes:g} minutes each; {len(results[0])} validation patients, Wilcoxon p = {p:.2g}."]
    given.output.write_text("\n".join(lines) + "\n")
    print(lines[-1])


if __name__ == "__main__":
    main()
