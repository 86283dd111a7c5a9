"""How far a scorer is off on patients that it was not trained on: kept in its run, told beside each of its answers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, ValidationError
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.files import small_text, write_json
from pipeline.preprocessing.slices import SliceDataset
from pipeline.preprocessing.splits import Split

HELD_OUT_FILE = "held_out.json"


class HeldOut(BaseModel):
    """The error of a scorer over the scans of a split, of which each answer is the mean over its slices.

    Attributes:
        split: of the cohort.
        patients, scans: how many.
        mean_absolute_error, root_mean_squared_error: of a number, in its units.
        accuracy: of classes: share of scans whose most probable class is the right one; or of slices, where these are
            counted.
        slices: how many, where slices of one scan have classes of their own; None where scans are counted.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    split: Split
    patients: PositiveInt
    scans: PositiveInt
    mean_absolute_error: NonNegativeFloat | None = None
    root_mean_squared_error: NonNegativeFloat | None = None
    accuracy: NonNegativeFloat | None = None
    slices: PositiveInt | None = None

    @property
    def counted(self) -> str:
        """What the accuracy is a share of: `scans`, or `slices`."""
        return "scans" if self.slices is None else "slices"

    @property
    def of_whom(self) -> str:
        """For a sentence, e.g. `7 held-out patients (validation)`."""
        return f"{self.patients} held-out patient{'s' * (self.patients != 1)} ({self.split})"


def held_out_error(
    slices: SliceDataset, split: Split, answers: Sequence[Tensor], targets: Sequence[Tensor], classes: bool = False
) -> HeldOut | None:
    """The error of a scorer's answers to all slices of a split, taken together by scan.

    Where slices of one scan are of several classes, each slice counts for itself.

    Args:
        slices: of the split.
        split: its name.
        answers: of each slice, shape (1,), or probabilities (K,) of classes.
        targets: of each slice, shape (1,).
        classes: whether targets are indices of classes.

    Returns:
        None if an answer is no number.
    """
    if not all(answer.isfinite().all() for answer in answers):
        return None
    scans: dict[str, list[int]] = {}
    for index, subject in enumerate(slices.subject_of):
        scans.setdefault(subject.subject, []).append(index)
    of_scans = list(scans.values())
    if classes and any(len({float(targets[index]) for index in mine}) > 1 for mine in of_scans):
        of_scans = [[index] for mine in of_scans for index in mine]
    means = torch.stack([torch.stack([answers[index] for index in mine]).mean(dim=0) for mine in of_scans])
    truths = torch.stack([torch.stack([targets[index] for index in mine]).mean() for mine in of_scans])
    counted = len(of_scans) if len(of_scans) > len(scans) else None
    if classes:
        figures = {"accuracy": float((means.argmax(dim=1) == truths).float().mean())}
    else:
        errors = means[:, 0] - truths
        figures = {
            "mean_absolute_error": float(errors.abs().mean()),
            "root_mean_squared_error": float(errors.square().mean().sqrt()),
        }
    patients = len(set(slices.patients))
    return HeldOut(split=split, patients=patients, scans=len(scans), slices=counted, **figures)


def write_held_out(run: Path, error: HeldOut | None) -> None:
    """Keep the error in a run's folder, in place of an earlier one."""
    if error is None:
        (run / HELD_OUT_FILE).unlink(missing_ok=True)
    else:
        write_json(run / HELD_OUT_FILE, error.model_dump(exclude_none=True))


def read_held_out(run: Path) -> HeldOut | None:
    """The error that a run or a bundle holds; None where it holds none.

    Raises:
        UsageError: if the file is damaged.
    """
    path = run / HELD_OUT_FILE
    if not path.is_file():
        return None
    try:
        return HeldOut.model_validate_json(small_text(path))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise UsageError(
            f"{path}: holds no error of held-out patients, expected what `phs-pipeline train` writes; restore or "
            "remove the file"
        ) from error
