"""A scorer's error on held-out patients: by scan, kept with the run, and refused where the file is none."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.training import ScoreValidation
from pipeline.training.held_out import HELD_OUT_FILE, HeldOut, held_out_error, read_held_out, write_held_out

ALL = ("pathological", "healthy", "unknown")


@pytest.fixture(scope="module")
def slices(phantom_cohort: Path) -> SliceDataset:
    """Four scans of 12 slices each, of patients of whom no two have the same age."""
    return SliceDataset(phantom_cohort, "training", Grid(4.0, (64, 64)), ALL)


def ages(slices: SliceDataset) -> list[float]:
    return [slices[index]["target"].item() for index in range(len(slices))]


def test_an_answer_for_a_scan_is_the_mean_over_its_slices(slices):
    """Errors of slices that cancel in a scan are none."""
    offs = [2.0 if index % 2 else -2.0 for index in range(len(slices))]
    offs[:12] = [3.0] * 12
    answers = [torch.tensor([age + off]) for age, off in zip(ages(slices), offs, strict=True)]
    known = held_out_error(slices, "training", answers, [torch.tensor([age]) for age in ages(slices)])
    assert (known.split, known.patients, known.scans) == ("training", 4, 4)
    assert known.mean_absolute_error == pytest.approx(3 / 4, abs=1e-5)
    assert known.root_mean_squared_error == pytest.approx((9 / 4) ** 0.5, abs=1e-5)
    assert known.accuracy is None


def test_of_classes_it_is_the_share_of_scans_that_are_told_right(slices):
    first = slices.subject_of[0].subject
    right = [int(age) % 2 for age in ages(slices)]
    answers = [
        torch.tensor([0.3, 0.7]) if (subject.subject == first) != bool(label) else torch.tensor([0.8, 0.2])
        for subject, label in zip(slices.subject_of, right, strict=True)
    ]
    known = held_out_error(slices, "test", answers, [torch.tensor([float(label)]) for label in right], classes=True)
    assert known.accuracy == 0.75
    assert known.mean_absolute_error is None


def test_where_slices_of_a_scan_are_of_several_classes_each_counts_for_itself(slices):
    """A lesion is seen in some slices of a scan; the mean over all of them is right about none."""
    right = [float(index % 2) for index in range(len(slices))]
    answers = [torch.tensor([1 - label, label]) for label in right]
    answers[:6] = [answer.flip(0) for answer in answers[:6]]
    known = held_out_error(slices, "test", answers, [torch.tensor([label]) for label in right], classes=True)
    assert (known.accuracy, known.scans, known.slices) == (pytest.approx(42 / 48), 4, 48)
    assert (known.counted, HeldOut(split="test", patients=1, scans=1).counted) == ("slices", "scans")


def test_answers_that_are_no_numbers_leave_no_earlier_error_behind(slices, tmp_path):
    zeros = [torch.zeros(1)] * len(slices)
    write_held_out(tmp_path, held_out_error(slices, "validation", zeros, zeros))
    assert read_held_out(tmp_path) is not None
    nothing = [torch.full((1,), torch.nan)] * len(slices)
    write_held_out(tmp_path, held_out_error(slices, "validation", nothing, zeros))
    assert read_held_out(tmp_path) is None


class Seventy(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.full((len(image), 1), 70.0)


def test_a_validation_keeps_it_in_the_run(slices, tmp_path):
    validation = ScoreValidation(tmp_path, slices, SimpleInferer())
    engine = SimpleNamespace(main_export=Seventy(), state=SimpleNamespace(device="cpu", metrics={}, epoch=1))
    validation.validate(engine)
    by_scan = {subject.subject: age for subject, age in zip(slices.subject_of, ages(slices), strict=True)}
    expected = sum(abs(70 - age) for age in by_scan.values()) / 4
    assert read_held_out(tmp_path).mean_absolute_error == pytest.approx(expected)
    assert engine.state.metrics["mean_absolute_error"] > 0


def test_a_validation_of_classes_counts_those_told_right(phantom_cohort, tmp_path):
    class TwoClasses(SliceDataset):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {**super().__getitem__(index), "target": torch.tensor([float(index >= 12)])}

    class Second(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.tensor([[0.0, 5.0]]).expand(len(image), 2)

    data = TwoClasses(phantom_cohort, "training", Grid(4.0, (64, 64)), ALL)
    validation = ScoreValidation(tmp_path, data, SimpleInferer(), classes=["first", "second"])
    engine = SimpleNamespace(main_export=Second(), state=SimpleNamespace(device="cpu", metrics={}, epoch=1))
    validation.validate(engine)
    assert engine.state.metrics == {"accuracy": pytest.approx(36 / 48)}
    assert read_held_out(tmp_path).accuracy == 0.75


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"split": "validation", "patients": 0, "scans": 1}',
        '{"split": "<b>", "patients": 1, "scans": 1}',
        "[]",
    ],
)
def test_what_holds_no_error_is_refused(content, tmp_path):
    (tmp_path / HELD_OUT_FILE).write_text(content)
    with pytest.raises(UsageError, match="holds no error of held-out patients"):
        read_held_out(tmp_path)
