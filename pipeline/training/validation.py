"""After each epoch: a figure over the validation slices for the curves, and a panel of some of them to look at.

One handler for each kind of main export; a bundle's `train.json` names the one that fits.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Events
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from pipeline.errors import UsageError
from pipeline.metrics import psnr
from pipeline.metrics.anomaly import Residual, anomaly_map, average_precision, best_threshold
from pipeline.mosaic import difference, grey, mosaic, outlined, save_png
from pipeline.networks.dcgan import Condition, class_of, with_class
from pipeline.preprocessing.degraded import DegradedDataset
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.hole_slices import HoleDataset
from pipeline.preprocessing.mapped_samples import MappedSamples
from pipeline.preprocessing.pairs import PairedDataset
from pipeline.preprocessing.slices import SliceDataset
from pipeline.training.distributed import gathered, rank, world_size
from pipeline.training.held_out import held_out_error, write_held_out
from pipeline.training.trainer import PlayerTrainer

# As far from the input as another slice of another person.
DESTROYED_DB = 10.0
SAME = 1e-8  # of a mean squared error: no difference
COLLAPSED = 0.1  # of the diversity of real slices
HALF = 0.5  # from where a mask that is made counts as lesion

logger = logging.getLogger(__name__)

Sample = dict[str, Tensor]
Picture = NDArray[np.uint8]


class Validation(ABC):
    """Runs the main export over the validation slices, after every so many epochs and the last.

    A subclass says what its figure is called, how it is computed, and what a row of its panel shows. The figure goes to
    `engine.state.metrics`, the panel to `panels/epoch_NNN.png`. With no validation slices nothing is done.

    Args:
        folder: the run's folder.
        dataset: validation slices.
        inferer: runs the network on a batch.
        batch_size: slices at once.
        rows: slices in the panel, spread evenly over the dataset.
        every: epochs from one validation to the next: on a GPU an epoch may take less time than looking at it.
    """

    figure: str
    takes = "image"  # what of a sample the network sees
    titles: tuple[str, ...] = ()
    legend = ""

    def __init__(
        self,
        folder: Path | str,
        dataset: SliceDataset | PairedDataset | DegradedDataset | Sequence[Sample],
        inferer: Inferer,
        batch_size: int = 8,
        rows: int = 6,
        every: int = 1,
    ) -> None:
        if every < 1:
            raise UsageError(f"validate_every is at least 1 epoch, found {every}")
        self.every = every
        self.folder = Path(folder)
        self.dataset = dataset
        self.inferer = inferer
        self.batch_size = batch_size
        self.shown = sorted({round(row * (len(self.dataset) - 1) / max(1, rows - 1)) for row in range(rows)})

    @abstractmethod
    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """The figure, from each slice and what the network made of it: they come once, and are not all in memory."""

    def row(self, sample: Sample, output: Tensor) -> list[Picture]:
        """The panels of one slice, one for each of `titles`."""
        del sample, output
        return []

    @abstractmethod
    def alarm(self, figure: float) -> str | None:
        """What to say of a training that ends with a figure at which its result is of no use."""

    def attach(self, engine: PlayerTrainer) -> None:
        """Validate in all processes, each on its share; the first one measures, draws and says."""
        if len(self.dataset):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate_in_turn)
        if len(self.dataset) and rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self._warn)

    def _validate_in_turn(self, engine: PlayerTrainer) -> None:
        if engine.state.epoch % self.every == 0 or engine.state.epoch == engine.state.max_epochs:
            self.validate(engine)
        else:
            # A figure of another epoch is none of this one.
            engine.state.metrics.pop(self.figure, None)

    def _warn(self, engine: PlayerTrainer) -> None:
        said = self.alarm(engine.state.metrics[self.figure]) if self.figure in engine.state.metrics else None
        if said:
            logger.warning("%s: %s; look at its panels, and train again with smaller rates", self.folder, said)

    @torch.inference_mode()
    def validate(self, engine: PlayerTrainer) -> None:
        """Run the main export over the validation slices."""
        outputs = self._outputs(engine.main_export.eval(), engine.state.device)
        if rank() > 0:
            deque(outputs, maxlen=0)
            return
        kept: list[tuple[Sample, Tensor]] = []
        engine.state.metrics[self.figure] = self.measure(self._kept(outputs, kept))
        if self.titles:
            rows = [self.row(*pair) for pair in kept]
            save_png(
                self.folder / "panels" / f"epoch_{engine.state.epoch:03d}.png",
                mosaic(list(self.titles), rows, self.legend),
            )

    def _kept(
        self, outputs: Iterable[tuple[Sample, Tensor]], kept: list[tuple[Sample, Tensor]]
    ) -> Iterator[tuple[Sample, Tensor]]:
        """All outputs, of which those of the panel are kept."""
        for index, pair in enumerate(outputs):
            if self.titles and index in self.shown:
                kept.append(pair)
            yield pair

    def _outputs(self, network: nn.Module, device: torch.device) -> Iterator[tuple[Sample, Tensor]]:
        """In the first process all slices in their order; the others work with it and give nothing."""
        count = len(self.dataset)
        for first in range(0, count, world_size() * self.batch_size):
            share = range(first + rank() * self.batch_size, min(first + (rank() + 1) * self.batch_size, count))
            samples = {index: self.dataset[index] for index in share}
            made: dict[int, Tensor] = {}
            if samples:
                images = torch.stack([sample[self.takes] for sample in samples.values()]).to(device)
                made = dict(zip(share, self.inferer(images, network).float().cpu(), strict=True))
            together = {index: output for part in gathered(made) for index, output in part.items()}
            if rank() == 0:
                for index in sorted(together):
                    yield samples.get(index) or self.dataset[index], together[index]


class TranslationValidation(Validation):
    """Normal-tissue PSNR in dB of a translator; input, pseudo-healthy image, difference and mask."""

    figure = "psnr_normal"
    titles = ("input", "pseudo-healthy", "difference", "lesion mask")
    legend = "SYNTHETIC - not for diagnosis; difference: orange removed, blue added"

    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """The mean over slices; the infinite PSNR of a slice left as it was would hide all others.

        Normal tissue is the foreground outside the lesion but for the pixels beside it, which are part lesion where the
        grid is coarser than the scan.
        """
        values = []
        for sample, x_s in outputs:
            x_p, mask = sample["image"], sample["mask"]
            normal = (x_p > AIR) & (max_pool2d(mask, 3, stride=1, padding=1) == 0)
            if normal.any():
                values.append(float(psnr(x_s[None], x_p[None], normal[None])))
        psnrs = torch.tensor(values)
        changed = psnrs[~psnrs.isinf()]
        return float((changed if len(changed) else psnrs).mean())

    def alarm(self, figure: float) -> str | None:
        """Below `DESTROYED_DB` normal tissue is no longer this person's."""
        return None if figure >= DESTROYED_DB else f"normal tissue is destroyed, its validation PSNR is {figure:.1f} dB"

    def row(self, sample: Sample, output: Tensor) -> list[Picture]:
        """A network that broke down is drawn black; its figure says nan."""
        x, m, s = sample["image"][0].numpy(), sample["mask"][0].numpy(), output[0].nan_to_num().numpy()
        return [grey(x), grey(s), difference(x - s), outlined(x, m)]


class PairedValidation(Validation):
    """PSNR in dB of a translation against the target image, over head or body; source, translation, target, difference.

    `dataset` has pairs, as `pipeline.preprocessing.pairs.PairedDataset`, or degraded slices beside what they were.
    """

    figure = "psnr"
    titles = ("source", "translated", "target", "difference")
    legend = "SYNTHETIC - not for diagnosis; difference to the target: orange too dark, blue too bright"

    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """The mean over slices that show anything."""
        pairs = ((made, sample["target_image"]) for sample, made in outputs)
        psnrs = [psnr(made[None], y[None], y[None] > AIR)[0] for made, y in pairs if (y > AIR).any()]
        return float(torch.stack(psnrs).mean())

    def alarm(self, figure: float) -> str | None:
        """Below `DESTROYED_DB` the translation shows something else."""
        return None if figure >= DESTROYED_DB else f"the translation's validation PSNR is {figure:.1f} dB"

    def row(self, sample: Sample, output: Tensor) -> list[Picture]:
        """Of several sources the first alone, and of neighbouring slices the middle one."""
        middle = getattr(self.dataset, "neighbours", 0)
        x, y, made = sample["image"][middle].numpy(), sample["target_image"][0].numpy(), output[0].nan_to_num().numpy()
        return [grey(x), grey(made), grey(y), difference(y - made)]


class SegmentationValidation(Validation):
    """Dice of a segmenter, pooled over all validation slices; input, found and drawn mask.

    Of a segmenter of several labels it is that of all together, each held against the slices of which it is the target.
    """

    figure = "dice"
    titles = ("input", "found", "drawn")
    legend = "found by the network - not for diagnosis"

    @property
    def neighbours(self) -> int:
        """Slices above and below that the network sees with each."""
        return getattr(self.dataset, "neighbours", 0)

    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """2 |found ∩ drawn| / (|found| + |drawn|); nan where neither has a pixel."""
        both = either = torch.tensor(0)
        for sample, logits in outputs:
            found, drawn = logits > 0, _by_label(sample, len(logits))
            both, either = both + (found & drawn).sum(), either + found.sum() + drawn.sum()
        return float(2 * both / either)

    def alarm(self, figure: float) -> str | None:
        """Where nothing that was drawn is found."""
        return None if figure > 0 else "the network finds no lesion of the validation slices"

    def row(self, sample: Sample, output: Tensor) -> list[Picture]:
        """The first sequence, with the outlines of both masks; a standardised one from its darkest to its brightest."""
        x, m = sample["image"][self.neighbours].numpy(), sample["mask"][0].numpy()
        if x.min() < 0:
            x = (x - x.min()) / max(float(np.ptp(x)), SAME)
        return [grey(x), outlined(x, (output > 0).any(dim=0).float().numpy()), outlined(x, m)]


class AnomalyValidation(Validation):
    """Average precision of a detector's anomaly map over all pixels of the validation slices, lesions being positive.

    The threshold with the best Dice over them is kept with the network's weights, as its `threshold`.

    Args:
        folder: the run's folder.
        dataset: slices with and without lesion.
        inferer: runs the network on a batch.
        batch_size: slices at once.
        every: epochs from one validation to the next.
        residual: see `anomaly_map`.
        smooth: likewise.
    """

    figure = "average_precision"
    titles = ("input", "reconstruction", "anomaly", "found", "drawn")
    legend = "reconstruction: SYNTHETIC - not for diagnosis"

    def __init__(
        self,
        folder: Path | str,
        dataset: SliceDataset,
        inferer: Inferer,
        batch_size: int = 8,
        every: int = 1,
        residual: Residual = "absolute",
        smooth: int = 1,
    ) -> None:
        super().__init__(folder, dataset, inferer, batch_size, every=every)
        self.residual, self.smooth = residual, smooth
        self.threshold = 0.0

    def validate(self, engine: PlayerTrainer) -> None:
        """Run the main export over the validation slices, and give it the threshold that they chose."""
        super().validate(engine)
        threshold = engine.main_export.threshold
        if isinstance(threshold, Tensor):
            threshold.fill_(self.threshold)

    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """Of all pixels of head or body; nan where none of them is lesion."""
        anomalies, lesions = [], []
        for sample, healthy in outputs:  # whose tissue alone is kept
            x = sample["image"]
            tissue = x > AIR
            anomalies.append(anomaly_map(x[None], healthy[None], self.residual, self.smooth)[0][tissue])
            lesions.append((sample["mask"] > 0)[tissue])
        anomaly, lesion = torch.cat(anomalies), torch.cat(lesions)
        if not lesion.any() or not anomaly.isfinite().all():
            return math.nan
        self.threshold, _ = best_threshold(anomaly, lesion)
        return average_precision(anomaly, lesion)

    def alarm(self, figure: float) -> str | None:
        """Where there was nothing to choose a threshold by."""
        return None if figure > 0 else "the validation slices chose no threshold, so that no mask can be made"

    def row(self, sample: Sample, output: Tensor) -> list[Picture]:
        """The anomaly twice as bright, with the outlines of what is found and drawn."""
        x, healthy = sample["image"], output.nan_to_num()
        anomaly = (anomaly_map(x[None], healthy[None], self.residual, self.smooth)[0] * (x > AIR))[0].numpy()
        found = (anomaly >= max(self.threshold, SAME)).astype(np.float32)
        brain = x[0].numpy()
        return [grey(brain), grey(healthy[0].numpy()), grey(2 * anomaly), outlined(brain, found),
                outlined(brain, sample["mask"][0].numpy())]  # fmt: skip


def _by_label(sample: Sample, labels: int) -> Tensor:
    """The drawn mask at the place of its label, bool, shape (labels, H, W)."""
    drawn = sample["mask"] > 0
    if labels == 1:
        return drawn
    return drawn & (torch.arange(labels) == sample["target"])[:, None, None]


class ScoreValidation(Validation):
    """Mean absolute error of a scorer over the validation slices, in the target's units; of classes the accuracy.

    The error by scan goes to `held_out.json`, from where `predict` tells it beside its answers.

    Args:
        folder: the run's folder.
        dataset: validation slices.
        inferer: runs the network on a batch.
        batch_size: slices at once.
        every: epochs from one validation to the next.
        classes: names of the classes; None for a number.
    """

    def __init__(
        self,
        folder: Path | str,
        dataset: SliceDataset,
        inferer: Inferer,
        batch_size: int = 8,
        every: int = 1,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__(folder, dataset, inferer, batch_size, every=every)
        self.slices = dataset
        self.classes = classes
        self.figure = "accuracy" if classes else "mean_absolute_error"

    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """The mean of |score − target|, or of whether the largest logit is that of the right class."""
        pairs = [(sample["target"], score) for sample, score in outputs]
        answers = [score.softmax(dim=0) if self.classes else score for _, score in pairs]
        targets = [target for target, _ in pairs]
        error = held_out_error(self.slices, "validation", answers, targets, bool(self.classes))
        write_held_out(self.folder, error)
        if self.classes:
            return float(torch.stack([(score.argmax() == target).float() for target, score in pairs]).mean())
        return float(torch.stack([(score - target).abs().mean() for target, score in pairs]).mean())

    def alarm(self, figure: float) -> str | None:
        """Where it is no number; how large an error is of use depends on the target."""
        return None if math.isfinite(figure) else "the validation error is no number"


class FillValidation(Validation):
    """How much closer to the truth a filler comes than the harmonic fill that it starts from, in dB of PSNR.

    Args:
        folder: the run's folder.
        dataset: blocks with fixed holes; all their slices are kept, in a file.
        inferer: runs the network on a batch.
        batch_size: slices at once.
        every: epochs from one validation to the next.
    """

    figure = "psnr_gain"
    takes = "shown"
    titles = ("truth", "start", "filled", "difference", "hole")
    legend = "SYNTHETIC - not for diagnosis; difference to the truth: orange too dark, blue too bright"

    def __init__(
        self, folder: Path | str, dataset: HoleDataset, inferer: Inferer, batch_size: int = 8, every: int = 1
    ) -> None:
        slices = (sample for index in range(len(dataset)) for sample in dataset[index])
        self.neighbours = dataset.neighbours
        super().__init__(folder, MappedSamples(slices), inferer, batch_size, every=every)

    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """The mean over slices, inside the hole."""
        gains = [
            10 * (self._error(sample, self._start(sample)) / self._error(sample, output)).log10()
            for sample, output in outputs
        ]
        return float(torch.stack(gains).mean())

    def alarm(self, figure: float) -> str | None:
        """Where nothing was learned."""
        return None if figure > 0 else "the network fills no better than the harmonic fill that it starts from"

    def row(self, sample: Sample, output: Tensor) -> list[Picture]:
        """What was there, the start, the result, what it lacks, and where the hole is."""
        x, m, y = sample["image"][0].numpy(), sample["mask"][0].numpy(), output[0].nan_to_num().numpy()
        return [grey(x), grey(self._start(sample)[0].numpy()), grey(y), difference(x - y), outlined(x, m)]

    def _start(self, sample: Sample) -> Tensor:
        return sample["shown"][self.neighbours : self.neighbours + 1]

    def _error(self, sample: Sample, filled: Tensor) -> Tensor:
        hole = sample["mask"] > 0
        return (filled - sample["image"])[hole].square().mean().clamp_min(SAME)


class SampleValidation(Validation):
    """How much a generator's images differ from each other, against how much the validation slices do.

    Each slice's image is drawn from the same noise after every epoch, and conditioned on what the slice shows, where
    images are conditioned.

    Args:
        folder: the run's folder.
        dataset: validation slices, with masks.
        inferer: runs the network on a batch.
        latent: numbers of noise.
        condition: as of the method.
        batch_size: slices at once.
        every: epochs from one validation to the next.
    """

    figure = "diversity"
    titles = ("real", "drawn")
    legend = "SYNTHETIC images, of no person - not for diagnosis"

    def __init__(
        self,
        folder: Path | str,
        dataset: SliceDataset,
        inferer: Inferer,
        latent: int,
        condition: Condition = "none",
        batch_size: int = 8,
        every: int = 1,
    ) -> None:
        super().__init__(folder, dataset, inferer, batch_size, every=every)
        self.noise = torch.randn(len(dataset), latent, generator=torch.Generator().manual_seed(0))
        self.condition = condition

    def measure(self, outputs: Iterable[tuple[Sample, Tensor]]) -> float:
        """The mean deviation of a pixel over the images drawn, divided by that over the slices."""
        real, drawn = _Spread(), _Spread()
        for sample, image in outputs:
            real.add(sample["image"])
            drawn.add(image[:1])
        return float(drawn.mean() / real.mean().clamp_min(SAME))

    def alarm(self, figure: float) -> str | None:
        """Where all images are one."""
        return (
            None if figure >= COLLAPSED else f"all images are alike (diversity {figure:.2f}): the generator collapsed"
        )

    def row(self, sample: Sample, output: Tensor) -> list[Picture]:
        """A slice and an image, with the lesion's outline where it is made or given."""
        real, drawn = sample["image"][0].numpy(), output[0].nan_to_num().numpy()
        if len(output) == 1 and self.condition != "mask":
            return [grey(real), grey(drawn)]
        mask = sample["mask"][0] if self.condition == "mask" else (output[1] >= HALF).float()
        return [outlined(real, sample["mask"][0].numpy()), outlined(drawn, mask.numpy())]

    def _outputs(self, network: nn.Module, device: torch.device) -> Iterator[tuple[Sample, Tensor]]:
        for indices in torch.arange(len(self.dataset)).split(self.batch_size):
            samples = [self.dataset[int(index)] for index in indices]
            given = [self.noise[indices].to(device)]
            masks = torch.stack([sample["mask"] for sample in samples]).to(device)
            if self.condition == "class":
                given = [with_class(given[0], class_of(masks))]
            elif self.condition == "mask":
                given.append(masks)
            yield from zip(samples, self.inferer(given[0], network, *given[1:]).float().cpu(), strict=True)


class _Spread:
    """Standard deviation of each pixel over images that come one after the other (Welford, Technometrics 4, 1962)."""

    def __init__(self) -> None:
        self.count = 0
        self.average, self.squares = torch.zeros(()), torch.zeros(())

    def add(self, image: Tensor) -> None:
        """One more image."""
        self.count += 1
        change = image.double() - self.average
        self.average = self.average + change / self.count
        self.squares = self.squares + change * (image - self.average)

    def mean(self) -> Tensor:
        """The mean over pixels."""
        return (self.squares / (self.count - 1)).sqrt().mean()
