"""A filler's validation: how much closer to the truth than the fill it starts from."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.hole_slices import HoleDataset
from pipeline.training import FillValidation


class Halves(nn.Module):
    """Halves the error of what it is shown, by knowing the truth."""

    def __init__(self, truths: list[Tensor], factor: float) -> None:
        super().__init__()
        self.truths, self.factor = iter(truths), factor

    def forward(self, shown: Tensor) -> Tensor:
        truth = torch.stack([next(self.truths) for _ in shown])
        return truth + self.factor * (shown[:, 1:2] - truth)


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
