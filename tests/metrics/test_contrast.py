"""A lesion's contrast to its surroundings, and the share of normal tissue that was left exactly as it was."""

import math

import pandas as pd
import pytest
import torch

from pipeline.metrics import METRICS
from pipeline.metrics.contrast import AROUND_MM, MARGIN_MM, contrast, contrast_sums, grown, surroundings
from pipeline.metrics.metric import measured

MM = (1.0, 2.0)


def head() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two slices of tissue of 0.4 ± 0.1 with a lesion of 0.7, its mask, and the foreground."""
    generator = torch.Generator().manual_seed(0)
    image = 0.4 + 0.1 * torch.randn(2, 1, 64, 48, generator=generator)
    mask = torch.zeros(2, 1, 64, 48, dtype=torch.bool)
    mask[:, :, 28:36, 20:26] = True
    return torch.where(mask, torch.tensor(0.7), image), mask, torch.ones_like(mask)


def value(image: torch.Tensor, mask: torch.Tensor, foreground: torch.Tensor) -> float:
    return contrast(pd.DataFrame({k: v.numpy() for k, v in contrast_sums(image, mask, foreground, MM).items()}))


def test_it_is_the_distance_of_the_means_in_deviations_of_the_surroundings() -> None:
    image, mask, foreground = head()
    around = image[surroundings(mask, foreground, MM)].double()
    expected = (0.7 - around.mean()) / around.std(unbiased=False)
    assert value(image, mask, foreground) == pytest.approx(float(expected), rel=1e-5)
    assert value(image, mask, foreground) == pytest.approx(3.0, abs=0.3)


def test_a_dark_lesion_stands_out_as_much_as_a_bright_one() -> None:
    image, mask, foreground = head()
    dark = torch.where(mask, torch.tensor(0.1), image)
    assert value(dark, mask, foreground) == pytest.approx(value(image, mask, foreground), abs=0.2)


def test_it_is_gone_where_the_lesion_has_the_mean_of_its_surroundings() -> None:
    image, mask, foreground = head()
    mean = image[surroundings(mask, foreground, MM)].mean()
    assert value(torch.where(mask, mean, image), mask, foreground) == pytest.approx(0, abs=1e-5)


def test_without_surroundings_or_lesion_there_is_no_value() -> None:
    image, mask, foreground = head()
    assert math.isnan(value(image, torch.zeros_like(mask), foreground))
    assert math.isnan(value(image, mask, torch.zeros_like(mask)))


def test_the_surroundings_begin_and_end_at_millimetres_not_at_pixels() -> None:
    _, mask, foreground = head()
    around = surroundings(mask, foreground, MM)[0, 0]
    rows, columns = around[:, 22].nonzero()[:, 0], around[31].nonzero()[:, 0]
    assert int(rows[rows < 28].max()) == 27 - int(MARGIN_MM / MM[0])
    assert int(rows.min()) == 28 - int(AROUND_MM / MM[0])
    assert int(columns[columns < 20].max()) == 19 - int(MARGIN_MM / MM[1])
    assert int(columns.min()) == 20 - int(AROUND_MM / MM[1])


def test_the_share_of_bit_identical_tissue_leaves_the_lesion_and_its_margin_out() -> None:
    image, mask, foreground = head()
    metric = METRICS["bit_identical"]
    given = {"image": image, "mask": mask, "foreground": foreground, "spacing_mm": MM}

    def share(twin: torch.Tensor) -> float:
        return metric.combine(
            pd.DataFrame({k: v.numpy() for k, v in measured(metric, {**given, "twin": twin}).items()})
        )

    near = grown(mask, MARGIN_MM, MM)
    assert share(torch.where(near, torch.tensor(0.0), image)) == 1.0
    changed = image.clone()
    changed[:, :, 0, :] += 1e-6
    far = (~near).sum().item()
    assert share(changed) == pytest.approx(1 - 2 * 48 / far)
