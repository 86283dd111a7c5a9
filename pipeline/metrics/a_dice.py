"""A-Dice: how fast a segmentor learns to find the original lesions in the synthetic images (GVS, Section IV, Eq. 8).

Where the lesion is really gone, image and mask contradict each other and the segmentor fits them slowly: lower is
healthier (the paper's "faster convergence" after Eq. 8 is a slip). An artifact is fitted fast and counts as lesion,
also one that a segmentor trained on real lesions would miss.

The paper names the rate, 0.1, and E = 20 epochs. Fixed here, the same for every image set: MONAI's U-Net, stochastic
gradient descent with momentum 0.9 (or Adam, with which rates as low as that of Fig. 5b learn sooner), two-class cross-
entropy as for GVS' segmentor, no augmentation, no decay of the rate. Values can only be compared between sets of
equally many slices on the same grid (an epoch of twice the slices has twice the steps) and between the same settings,
so report them beside their bracket: the original images above, healthy slices with `random_lesion_masks` below. The
seed matters most between the two, where the Dice leaves zero late: on 50 slices the deviation over three seeds reached
0.17.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

from pipeline.networks import UNetSegmentor

# Without momentum, 20 epochs of 50 slices are too few for a lesion filled with a constant to be fitted at all: it would
# pass for healthy tissue.
MOMENTUM = 0.9
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float], Optimizer]] = {
    "sgd": lambda parameters, rate: SGD(parameters, lr=rate, momentum=MOMENTUM),
    "adam": lambda parameters, rate: Adam(parameters, lr=rate),
}
NOTHING_LEARNED = 0.99
SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class ADice:
    """A-Dice of one image set, trained from several seeds.

    Attributes:
        per_seed: (1/E) Σ dice_e of each seed, in [0, 1]; `nan` where the training collapsed.
        curves: dice_e of each seed after each epoch, in [0, 1]; ends early where the loss was no longer finite.
        collapsed: whether the training of a seed failed, so that its Dice says nothing about the images.
    """

    per_seed: list[float]
    curves: list[list[float]]
    collapsed: list[bool]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds that did not collapse; None if all did."""
        values = self._values()
        return statistics.fmean(values) if values else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds that did not collapse, n − 1 in the denominator; None below two."""
        values = self._values()
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self) -> list[float]:
        return [value for value, collapsed in zip(self.per_seed, self.collapsed, strict=True) if not collapsed]


def a_dice(
    images: Tensor,
    masks: Tensor,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 20,
    rate: float = 0.1,
    batch_size: int = 8,
    filters: int = 8,
    device: torch.device | str = "cpu",
    optimizer: str = "sgd",
    progress: Callable[[int, int], None] | None = None,
) -> ADice:
    """A-Dice, (1/E) Σ_e dice_e: a segmentor is trained on the images with their lesion masks, and judged on the same.

    dice_e is pooled over all slices after epoch e, 2 |P ∩ L| / (|P| + |L|) with P the pixels of probability above one
    half, the network in evaluation mode.

    A training has collapsed if its loss is no longer finite, or if after the last epoch the network gives one answer
    for all pixels of all slices (no lesion, or lesion everywhere) *and* its cross-entropy over them is not at least
    1 % below that of the best constant answer, the entropy of the lesion's share. A Dice of 0 alone is no collapse:
    from images without a trace of lesion the network still learns where lesions cannot be, in air for one, long before
    any pixel reaches one half, and the cross-entropy shows that.

    Args:
        images: synthetic images, shape (N, 1, H, W), values in [0, 1]; H and W divisible by 16, at least 32.
        masks: original lesions, values in {0, 1}, same shape.
        seeds: of the initial weights and the order of the slices, one training each; the global random state is
            neither used nor changed.
        epochs: E.
        rate: of the optimiser.
        batch_size: slices in a step.
        filters: channels of the U-Net's first stage.
        device: where to train.
        optimizer: `sgd` or `adam`, of `OPTIMIZERS`.
        progress: called with (epochs done, epochs in all), counted over the seeds.

    Raises:
        ValueError: if the shapes differ or are not (N, 1, H, W), or no lesion is annotated at all.
    """
    if images.shape != masks.shape or images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(
            "images and masks must have the same shape (N, 1, H, W), "
            f"got {tuple(images.shape)} and {tuple(masks.shape)}"
        )
    if not masks.any():
        raise ValueError(f"A-Dice needs lesions to learn, found none in {len(masks)} masks")
    x, y = images.to(device, torch.float32), masks.to(device, torch.float32)
    per_seed, curves, collapsed = [], [], []
    for trained, seed in enumerate(seeds):
        start = trained * epochs

        def report(epoch: int, start: int = start) -> None:
            if progress:
                progress(start + epoch, len(seeds) * epochs)

        curve, failed = _train(x, y, seed, epochs, rate, batch_size, filters, report, optimizer)
        per_seed.append(math.nan if failed else sum(curve) / epochs)
        curves.append(curve)
        collapsed.append(failed)
    return ADice(per_seed, curves, collapsed)


def random_lesion_masks(masks: Tensor, foreground: Tensor, seed: int = 0) -> Tensor:
    """Real lesions' shapes at random places of healthy slices, for the lower bracket of A-Dice.

    Each healthy slice gets the lesions of one pathological slice, drawn in turn from a shuffled list and shifted as a
    whole: to any place where they lie inside the foreground, or, if there is none, to one where as much of them as
    possible does; what lies outside is cut off.

    Args:
        masks: lesions of the pathological slices, values in {0, 1}, shape (N, 1, H, W); slices without are skipped.
        foreground: head or body of the healthy slices, bool, shape (N', 1, H, W).
        seed: of the draw; the global random state is neither used nor changed.

    Returns:
        Masks for the healthy slices, dtype and device of `masks`, shape (N', 1, H, W).

    Raises:
        ValueError: if the slices differ in size, or no lesion is annotated at all.

    Example:
        >>> import torch
        >>> lesion = torch.tensor([[[[1, 0, 0], [1, 0, 0], [0, 0, 0]]]])
        >>> random_lesion_masks(lesion, torch.tensor([[[[0, 0, 0], [0, 0, 1], [0, 0, 1]]]]).bool())
        tensor([[[[0, 0, 0],
                  [0, 0, 1],
                  [0, 0, 1]]]])
    """
    if masks.shape[1:] != foreground.shape[1:]:
        raise ValueError(
            f"masks and foreground must have slices of one size, got {tuple(masks.shape)} and {tuple(foreground.shape)}"
        )
    shapes = masks[masks.flatten(1).any(dim=1)].cpu()
    if not len(shapes):
        raise ValueError(f"random lesions need shapes to draw from, found none in {len(masks)} masks")
    generator = torch.Generator().manual_seed(seed)
    placed = torch.zeros(len(foreground), *masks.shape[1:], dtype=masks.dtype)
    order = torch.randperm(len(shapes), generator=generator)
    for turn, inside in enumerate(foreground.cpu().bool()):
        lesion = shapes[order[turn % len(order)]]
        pixels = torch.nonzero(lesion[0])
        overlap = _overlaps(lesion[0], inside[0])
        best = torch.nonzero(overlap == overlap.max())
        shift = best[int(torch.randint(len(best), (), generator=generator))]
        h, w = (pixels + shift - torch.tensor(lesion.shape[1:])).T
        on_slice = (h >= 0) & (h < inside.shape[1]) & (w >= 0) & (w < inside.shape[2])
        placed[turn, 0, h[on_slice], w[on_slice]] = 1
        placed[turn] *= inside
    return placed.to(masks.device)


def _train(
    x: Tensor,
    y: Tensor,
    seed: int,
    epochs: int,
    rate: float,
    batch_size: int,
    filters: int,
    report: Callable[[int], None],
    optimizer_name: str,
) -> tuple[list[float], bool]:
    """The Dice after each epoch, and whether the training collapsed."""
    # Weights are drawn on the CPU, so that every device starts from the same.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        segmentor = UNetSegmentor(filters=filters).to(x.device)
    order = torch.Generator().manual_seed(seed)
    optimizer = OPTIMIZERS[optimizer_name](segmentor.parameters(), rate)
    share = float(y.mean())
    entropy = float(functional.binary_cross_entropy(torch.tensor(share), torch.tensor(share)))
    curve: list[float] = []
    collapsed = False
    for epoch in range(1, epochs + 1):
        segmentor.train()
        for rows in torch.randperm(len(x), generator=order).to(x.device).split(batch_size):
            loss = functional.binary_cross_entropy_with_logits(segmentor(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        overlap, found, cross_entropy = _on_training_data(segmentor, x, y)
        if not math.isfinite(cross_entropy):
            return curve, True
        curve.append(2 * overlap / (found + int(y.sum())))
        collapsed = found in {0, y.numel()} and cross_entropy >= NOTHING_LEARNED * entropy
        report(epoch)
    return curve, collapsed


@torch.inference_mode()
def _on_training_data(segmentor: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int, float]:
    """Pixels found and annotated, pixels found, mean cross-entropy."""
    segmentor.eval()
    overlap, found, cross_entropy = 0, 0, 0.0
    for images, lesion in zip(x.split(SLICES_AT_ONCE), y.split(SLICES_AT_ONCE), strict=True):
        logits = segmentor(images)
        overlap += int(((logits > 0) & lesion.bool()).sum())
        found += int((logits > 0).sum())
        cross_entropy += float(functional.binary_cross_entropy_with_logits(logits, lesion, reduction="sum"))
    return overlap, found, cross_entropy / y.numel()


def _overlaps(lesion: Tensor, inside: Tensor) -> Tensor:
    """Lesion pixels inside the foreground, for each shift from (−H, −W) to (H − 1, W − 1); shape (2H, 2W)."""
    height, width = lesion.shape
    size = (2 * height, 2 * width)
    spectrum = torch.fft.rfft2(inside.double(), size) * torch.fft.rfft2(lesion.double(), size).conj()
    counts: Tensor = torch.fft.irfft2(spectrum, size).roll((height, width), (0, 1)).round()
    return counts
