"""A filler's validation: how much closer to the truth than the fill it starts from."""

import math
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.hole_slices import HoleDataset
from pipeline.training import (
    AnomalyValidation,
    FillValidation,
    PairedValidation,
    SampleValidation,
    SegmentationValidation,
)


class Halves(nn.Module):
    """Halves the error of what it is shown, by knowing the truth."""

    def __init__(self, truths: list[Tensor], factor: float) -> None:
        super().__init__()
        self.truths, self.factor = iter(truths), factor

    def forward(self, shown: Tensor) -> Tensor:
        truth = torch.stack([next(self.truths) for _ in shown])
        return truth + self.factor * (shown[:, 1:2] - truth)


class Start(nn.Module):
    """Gives back the start."""

    def forward(self, shown: Tensor) -> Tensor:
        return shown[:, 1:2]


@pytest.mark.parametrize(("factor", "gain_db"), [(1.0, 0.0), (0.5, 6.0206), (0.1, 20.0), (2.0, -6.0206)])
def test_the_figure_is_the_gain_over_the_start_in_db(
    phantom_cohort: Path, tmp_path: Path, factor: float, gain_db: float
) -> None:
    data = HoleDataset(phantom_cohort, "validation", Grid(4.0, (64, 64)), fixed=True)
    validation = FillValidation(tmp_path, data, SimpleInferer(), batch_size=3)
    truths = [sample["image"] for sample in validation.dataset]
    engine = SimpleNamespace(
        main_export=Halves(truths, factor), state=SimpleNamespace(device="cpu", metrics={}, epoch=1)
    )
    validation.validate(engine)  # type: ignore[arg-type]
    assert engine.state.metrics["psnr_gain"] == pytest.approx(gain_db, abs=1e-2)
    assert (validation.alarm(engine.state.metrics["psnr_gain"]) is None) == (gain_db > 0)
    assert (tmp_path / "panels" / "epoch_001.png").is_file()


def test_it_looks_every_so_many_epochs_and_at_the_end(phantom_cohort: Path, tmp_path: Path) -> None:
    data = HoleDataset(phantom_cohort, "validation", Grid(4.0, (64, 64)), fixed=True)
    validation = FillValidation(tmp_path, data, SimpleInferer(), every=3)
    engine = Engine(lambda *_: None)
    engine.main_export = Start()
    engine.state.device = "cpu"
    validation.attach(engine)  # type: ignore[arg-type]
    seen: list[int] = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: seen.append(engine.state.epoch) if engine.state.metrics else None
    )
    engine.run([0], max_epochs=5)
    assert seen == [3, 5]
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["epoch_003.png", "epoch_005.png"]


def test_never_is_not_every_so_many(phantom_cohort: Path, tmp_path: Path) -> None:
    data = HoleDataset(phantom_cohort, "validation", Grid(4.0, (64, 64)), fixed=True)
    with pytest.raises(UsageError, match=r"validate_every is at least 1 epoch, found 0"):
        FillValidation(tmp_path, data, SimpleInferer(), every=0)


def test_a_translation_s_figure_is_its_psnr_where_the_target_shows_anything(tmp_path: Path) -> None:
    target = torch.zeros(1, 8, 8)
    target[:, :4] = 0.5
    pairs = [{"image": torch.rand(2, 8, 8), "target_image": shown} for shown in (target, torch.zeros(1, 8, 8))]
    validation = PairedValidation(tmp_path, pairs, SimpleInferer())
    # 0.1 off inside is 20 dB; what is made of air, and of slices of air alone, does not count.
    made = torch.where(target > 0, target + 0.1, 0.9)
    assert validation.measure([(pair, made) for pair in pairs]) == pytest.approx(20, abs=1e-3)
    assert len(validation.row(pairs[0], made)) == len(validation.titles)
    assert validation.alarm(20) is None
    assert "9.0 dB" in str(validation.alarm(9))


class TestSegmentation:
    def sample(self, target: float, left: bool) -> dict[str, Tensor]:
        mask = torch.zeros(1, 8, 8)
        mask[:, : 4 if left else 8, :4] = 1
        return {"image": 3 * torch.randn(1, 8, 8), "mask": mask, "target": torch.tensor([target])}

    def validation(self, folder: Path) -> SegmentationValidation:
        return SegmentationValidation(folder, [], SimpleInferer())

    def test_of_several_labels_each_is_held_against_the_slices_of_which_it_is_the_target(self, tmp_path: Path) -> None:
        samples = [self.sample(0, left=True), self.sample(1, left=False)]
        right, none = 2 * torch.cat([samples[0]["mask"], samples[0]["mask"] * 0]) - 1, torch.full((2, 8, 8), -1.0)
        # 16 of 16 pixels of the first, none of 32 of the second: 2 · 16 / (16 + 48).
        measured = self.validation(tmp_path).measure([(samples[0], right), (samples[1], none)])
        assert measured == pytest.approx(0.5)
        # Found where it is, and called the other.
        assert self.validation(tmp_path).measure([(samples[0], right.flip(0)), (samples[1], none)]) == 0

    def test_a_standardised_image_is_shown_from_its_darkest_to_its_brightest(self, tmp_path: Path) -> None:
        sample = self.sample(0, left=True)
        shown, *_ = self.validation(tmp_path).row(sample, torch.full((1, 8, 8), -1.0))
        assert (shown.min(), shown.max()) == (0, 255)


class TestSamples:
    class Slices(nn.Module):
        """Noise of two numbers as images of 8×8 pixels, so many times as spread."""

        def __init__(self, spread: float) -> None:
            super().__init__()
            self.spread = spread

        def forward(self, noise: Tensor, mask: Tensor | None = None) -> Tensor:
            image = self.spread * noise[:, :1, None, None].expand(-1, 1, 8, 8)
            return image if mask is None else image + mask

    @pytest.mark.parametrize("condition", ["none", "class", "mask"])
    @pytest.mark.parametrize(("spread", "collapsed"), [(1.0, False), (0.01, True)])
    def test_the_figure_is_the_spread_of_images_against_that_of_slices(
        self, tmp_path: Path, spread: float, collapsed: bool, condition: str
    ) -> None:
        torch.manual_seed(0)
        slices = [{"image": torch.randn(1, 1, 1).expand(1, 8, 8), "mask": torch.zeros(1, 8, 8)} for _ in range(400)]
        validation = SampleValidation(tmp_path, slices, SimpleInferer(), 2, condition)  # type: ignore[arg-type]
        engine = SimpleNamespace(
            main_export=self.Slices(spread), state=SimpleNamespace(device="cpu", metrics={}, epoch=1)
        )
        validation.validate(engine)  # type: ignore[arg-type]
        assert engine.state.metrics["diversity"] == pytest.approx(spread, rel=0.15)
        assert (validation.alarm(engine.state.metrics["diversity"]) is not None) == collapsed
        assert (tmp_path / "panels" / "epoch_001.png").is_file()


class Smooth(nn.Module):
    """Reconstructs everything as 0.3, and has a threshold to be given."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        return torch.full_like(image, 0.3)


def anomalies(*lesions: float, mask: bool = True) -> list[dict[str, Tensor]]:
    """Slices of 0.3 with a quarter of a lesion's level, and air around."""
    slices = []
    for level in lesions:
        image, lesion = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
        image[:, 2:6, 2:6] = 0.3
        image[:, 2:4, 2:4] = level
        lesion[:, 2:4, 2:4] = float(mask)
        slices.append({"image": image, "mask": lesion})
    return slices


def validated(folder: Path, slices: list[dict[str, Tensor]]) -> tuple[AnomalyValidation, float, float]:
    """The handler, its figure, and the threshold that the network was given."""
    validation = AnomalyValidation(folder, slices, SimpleInferer(), residual="brighter")  # type: ignore[arg-type]
    engine = SimpleNamespace(main_export=Smooth(), state=SimpleNamespace(device="cpu", metrics={}, epoch=1))
    validation.validate(engine)  # type: ignore[arg-type]
    return validation, engine.state.metrics["average_precision"], float(engine.main_export.threshold)


def test_the_threshold_of_the_best_dice_on_validation_slices_is_kept_with_the_network(tmp_path: Path) -> None:
    validation, figure, threshold = validated(tmp_path, anomalies(0.9, 0.8))
    assert figure == pytest.approx(1.0)
    assert threshold == pytest.approx(0.5)
    assert validation.alarm(figure) is None
    assert (tmp_path / "panels" / "epoch_001.png").is_file()


def test_air_is_not_counted(tmp_path: Path) -> None:
    _, figure, _ = validated(tmp_path, anomalies(0.3, 0.3))
    assert figure == pytest.approx(0.25), "the lesion's share of the head, since nothing stands out"


def test_without_drawn_lesions_there_is_no_threshold_and_that_is_said(tmp_path: Path) -> None:
    validation, figure, threshold = validated(tmp_path, anomalies(0.9, mask=False))
    assert figure != figure
    assert threshold == 0
    assert "chose no threshold" in (validation.alarm(figure) or "")


def test_slices_and_what_is_made_of_them_are_not_all_in_memory_at_once(tmp_path: Path) -> None:
    """Of a cohort as large as BRATS, the validation slices are gigabytes."""
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

    class Pairs:
        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            if index >= len(self):
                raise IndexError
            image = torch.full((1, 8, 8), 0.5 + index / 1000)
            alive.add(image)
            return {"image": image, "target_image": image, "mask": torch.zeros(1, 8, 8)}

    class Watched(PairedValidation):
        most = 0

        def measure(self, outputs: Iterable[tuple[dict[str, Tensor], Tensor]]) -> float:
            def watched() -> Iterator[tuple[dict[str, Tensor], Tensor]]:
                for pair in outputs:
                    self.most = max(self.most, len(alive))
                    yield pair

            return super().measure(watched())

    validation = Watched(tmp_path, Pairs(), SimpleInferer(), batch_size=4, rows=3)  # type: ignore[arg-type]
    engine = SimpleNamespace(main_export=nn.Identity(), state=SimpleNamespace(device="cpu", metrics={}, epoch=1))
    validation.validate(engine)  # type: ignore[arg-type]
    assert math.isinf(engine.state.metrics["psnr"])
    assert 4 <= validation.most <= 2 * 4 + 3
    assert (tmp_path / "panels" / "epoch_001.png").is_file()
