"""What `study domain-adaptation` trains and tests with: slices of two domains in memory, split by patient."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.phantoms.scanner import FIRST, SECOND, Scanner
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.modalities import DRAWN
from pipeline.preprocessing.slices import SliceDataset
from pipeline.preprocessing.splits import SPLITS

# Of the patients with simulated scanners: labelled on scanner A, unlabelled on scanner B, tested on both.
SHARES = (0.4, 0.4, 0.2)
# Of the patients of a real source domain: those whose slices are tested; of a real target domain.
SOURCE_TEST, TARGET_TEST = 0.2, 0.5
QUANTILES = np.linspace(0, 1, 257)


@dataclass(frozen=True)
class Slices(Dataset[dict[str, Tensor]]):
    """Slices of one domain, in memory.

    Attributes:
        images: shape (N, 1, H, W), in [0, 1].
        masks: same shape, 0 or 1.
        patients: whose each slice is.
        truth: the same slices as the source domain shows them, where that is known.
    """

    images: Tensor
    masks: Tensor
    patients: tuple[str, ...]
    truth: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index], "mask": self.masks[index]}

    @property
    def by_patient(self) -> dict[str, list[int]]:
        """The indices of each patient's slices."""
        found: dict[str, list[int]] = {}
        for index, patient in enumerate(self.patients):
            found.setdefault(patient, []).append(index)
        return found

    def of(self, patients: Sequence[str]) -> "Slices":
        """Those of some patients."""
        wanted = set(patients)
        kept = [index for index, patient in enumerate(self.patients) if patient in wanted]
        return Slices(self.images[kept], self.masks[kept], tuple(self.patients[index] for index in kept))

    def each(self, change: Callable[[Tensor, str], Tensor]) -> Tensor:
        """Images after a change that sees the slices of one patient at a time."""
        changed = torch.empty_like(self.images)
        for patient, mine in self.by_patient.items():
            changed[mine] = change(self.images[mine], patient)
        return changed

    def showing(self, images: Tensor) -> "Slices":
        """The same slices with other images."""
        return Slices(images, self.masks, self.patients, self.truth)


@dataclass(frozen=True)
class Domains:
    """What one seed trains and tests with. Nobody is trained and tested with.

    Attributes:
        source: labelled.
        target: of which the oracle alone sees masks.
        source_test, target_test: held out; with simulated scanners the same patients on both.
    """

    source: Slices
    target: Slices
    source_test: Slices
    target_test: Slices


def read_slices(cohort: Path, grid: Grid) -> Slices:
    """All slices of a cohort whose lesions are drawn, whatever split they are in.

    Raises:
        UsageError: if the cohort has several channels, or no such slice.
    """
    content = read_cohort(cohort)
    if len(content.channels) != 1:
        raise UsageError(
            f"{cohort}: has the channels {', '.join(content.channels)}, expected one, which both domains have; "
            "preprocess with --modality"
        )
    used = [split for split in SPLITS if any({*DRAWN} & {*subject.labels} for subject in content.of(split))]
    parts = [SliceDataset(cohort, split, grid, DRAWN) for split in used]
    samples = [part[index] for part in parts for index in range(len(part))]
    if not samples:
        raise UsageError(f"{cohort}: found no slice with a drawn lesion mask; preprocess scans with masks")
    return Slices(
        torch.stack([sample["image"] for sample in samples]),
        torch.stack([sample["mask"] for sample in samples]),
        tuple(patient for part in parts for patient in part.patients),
    )


def simulated(slices: Slices, spacing_mm: float, seed: int) -> Domains:
    """Patients drawn for two simulated scanners: A, whose masks are known, and B."""
    order = np.random.default_rng(seed).permutation(sorted(set(slices.patients))).tolist()
    number = {patient: place for place, patient in enumerate(order)}
    first, second = (max(1, round(share * len(order))) for share in SHARES[:2])
    on_first, on_second, tested = order[:first], order[first : first + second], order[first + second :]

    def scanned(patients: Sequence[str], scanner: Scanner) -> Slices:
        mine = slices.of(patients)
        which = (FIRST, SECOND).index(scanner)
        images = mine.each(lambda given, patient: scanner.scan(given, spacing_mm, (seed, which, number[patient])))
        return mine.showing(images)

    source_test, target_test = scanned(tested, FIRST), scanned(tested, SECOND)
    truth = Slices(target_test.images, target_test.masks, target_test.patients, source_test.images)
    return Domains(scanned(on_first, FIRST), scanned(on_second, SECOND), source_test, truth)


def real(slices: Slices, source: Sequence[str], target: Sequence[str], seed: int) -> Domains:
    """Patients of two domains drawn for training and test."""
    draw = np.random.default_rng(seed)
    parts = []
    for patients, share in ((source, SOURCE_TEST), (target, TARGET_TEST)):
        order = draw.permutation(sorted(patients)).tolist()
        tested = max(1, round(share * len(order)))
        parts.append((slices.of(order[tested:]), slices.of(order[:tested])))
    (source_train, source_test), (target_train, target_test) = parts
    return Domains(source_train, target_train, source_test, target_test)


def matched(slices: Slices, reference: Slices) -> Tensor:
    """Images of each patient with the histogram of a domain.

    Quantiles of what is brighter than Otsu's threshold, in which noise of the air has no part, are brought onto each
    other, and what is darker is scaled (as Nyúl and Udupa 1999 do with landmarks).

    Args:
        slices: to change.
        reference: the domain, all of its patients taken together.

    Returns:
        Shape (N, 1, H, W), in [0, 1].
    """
    of_domain = _landmarks(reference.images)

    def match(images: Tensor, patient: str) -> Tensor:
        del patient
        return torch.from_numpy(np.interp(images.numpy(), _landmarks(images), of_domain)).float()

    return slices.each(match)


def _landmarks(images: Tensor) -> NDArray[np.float64]:
    values = images.numpy()
    if values.min() < values.max():
        values = values[values > threshold_otsu(values)]  # type: ignore[no-untyped-call]
    return np.concatenate([[0.0], np.quantile(values, QUANTILES)])


class Beside(Dataset[dict[str, Tensor]]):
    """Slices of one domain beside slices of another, drawn at random, under the names that a method gives them.

    What is drawn comes from torch's global random state, which checkpoints keep.

    Args:
        first: an epoch has its slices.
        second: the other domain.
        names: of the batch: 0 for the first or 1 for the second, and `image` or `mask`.
    """

    def __init__(self, first: Slices, second: Slices, names: Mapping[str, tuple[int, str]]) -> None:
        self.domains, self.names = (first, second), names

    def __len__(self) -> int:
        return len(self.domains[0])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first, second = self.domains
        samples = first[index], second[int(torch.randint(len(second), ()))]
        return {name: samples[domain][key] for name, (domain, key) in self.names.items()}


class RandomContrast(Dataset[dict[str, Tensor]]):
    """Slices with a contrast that is drawn anew each time: x^γ, log₂ γ uniform in [−1, 1].

    Args:
        slices: as they are.
    """

    def __init__(self, slices: Slices) -> None:
        self.slices = slices

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.slices[index]
        return {**sample, "image": sample["image"] ** float(2 ** (2 * torch.rand(()) - 1))}
