"""What studies of translation share: scores with known answers, controls, and slices of two domains."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluation.controls import HISTOGRAM, INTENSITY, SOURCE
from pipeline.studies.paired_slices import Pairs, Unpaired, control_scores, intensity_controls, scores, translated


@pytest.fixture
def pairs() -> Pairs:
    """Two patients with two slices each: a disc of noise with a bright square, and its negative as target."""
    draw = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    disc = ((rows - 16) ** 2 + (columns - 16) ** 2 < 14**2).float()
    mask = torch.zeros(4, 1, 32, 32)
    mask[:, :, 12:16, 12:16] = 1
    image = disc * (0.4 + 0.1 * torch.rand(4, 1, 32, 32, generator=draw) + 0.4 * mask)
    target = torch.where(disc > 0, 1 - image, torch.zeros(()))
    return Pairs(image, target, mask, ["a", "a", "b", "b"], 4.0)


def test_the_target_itself_is_right_in_every_score(pairs: Pairs) -> None:
    found = scores(pairs.target_image, pairs)
    assert found["psnr"] == float("inf")
    assert found["ssim"] == pytest.approx(1)
    assert found["sharpness"] == pytest.approx(1)
    assert found["contrast"] == pytest.approx(-40, abs=3)


def test_an_offset_costs_psnr_alone_and_a_blur_costs_sharpness(pairs: Pairs) -> None:
    offset = scores(torch.where(pairs.foreground, pairs.target_image + 0.1, 0.0), pairs)
    assert offset["psnr"] == pytest.approx(20, abs=1e-3)
    assert offset["contrast"] == pytest.approx(scores(pairs.target_image, pairs)["contrast"], abs=1e-3)
    assert offset["sharpness"] == pytest.approx(1, abs=1e-5)
    blurred = nn.functional.avg_pool2d(pairs.target_image, 3, stride=1, padding=1)
    assert scores(blurred, pairs)["sharpness"] < 0.75


def test_without_a_lesion_nothing_is_said_of_contrast(pairs: Pairs) -> None:
    assert scores(pairs.target_image, replace(pairs, mask=torch.zeros_like(pairs.mask)))["contrast"] is None


def test_a_map_of_intensities_undoes_a_negative_and_a_rising_one_cannot(pairs: Pairs) -> None:
    made = {name: make(pairs.image) for name, make in intensity_controls(pairs).items()}
    torch.testing.assert_close(made[SOURCE], pairs.image)
    torch.testing.assert_close(made[INTENSITY], pairs.target_image, atol=0.01, rtol=0)
    by_name = {row["row"]: row for row in control_scores(pairs, pairs)}
    assert by_name[INTENSITY]["psnr"] > 40 > by_name[HISTOGRAM]["psnr"] > by_name[SOURCE]["psnr"]
    assert by_name["the target itself"]["psnr"] is None


def test_histogram_matching_gives_the_targets_their_distribution(pairs: Pairs) -> None:
    made = intensity_controls(pairs)[HISTOGRAM](pairs.image)
    inside = pairs.foreground
    shares = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(
        np.quantile(made[inside], shares), np.quantile(pairs.target_image[inside], shares), atol=0.01
    )


def test_an_unpaired_slice_comes_with_the_target_of_anybody(pairs: Pairs) -> None:
    torch.manual_seed(0)
    data = Unpaired(pairs.image, pairs.target_image)
    drawn = [data[0]["healthy"] for _ in range(40)]
    assert torch.equal(data[0]["image"], pairs.image[0])
    for target in pairs.target_image:
        assert any(torch.equal(each, target) for each in drawn)


def test_slices_are_translated_as_they_come_and_clipped(pairs: Pairs) -> None:
    class Doubles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.factor * image

    many = pairs.chosen([0, 1, 2, 3] * 6)
    torch.testing.assert_close(translated(Doubles(), many.image), (2 * many.image).clamp(0, 1))
