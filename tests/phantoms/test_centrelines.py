"""Simulated centrelines: they are what they were drawn as, and that can be read from the curve."""

import numpy as np
import pytest
import torch

from pipeline.phantoms.centrelines import (
    SCALE,
    CentrelineDataset,
    as_curves,
    centreline,
    largest_gap,
    measured,
    off_surface_mm,
)

DRAWN = [centreline(seed) for seed in range(200)]


@pytest.mark.parametrize(
    ("name", "least"), [("right", 1.0), ("length_mm", 0.999), ("winding_mm", 0.7), ("radius_mm", 0.999)]
)
def test_each_parameter_can_be_read_from_the_curve(name: str, least: float) -> None:
    known, found = (
        [getattr(each, name) for each in side] for side in ([k for _, k in DRAWN], [measured(c) for c, _ in DRAWN])
    )
    assert np.corrcoef(known, found)[0, 1] ** 2 >= least - 1e-9


def test_points_are_equally_far_from_each_other_and_vessels_taper() -> None:
    for curve, known in DRAWN[:20]:
        assert curve.shape == (4, 32)
        steps = np.linalg.norm(np.diff(curve[:3]), axis=0)
        assert steps == pytest.approx(known.length_mm / 31, rel=0.03)
        assert curve[3, 0] == pytest.approx(2 * curve[3, -1], rel=1e-5)
        assert largest_gap(curve) < 1.03


def test_vessels_lie_on_the_heart_s_surface_and_what_leaves_it_is_measured() -> None:
    curves = np.stack([curve for curve, _ in DRAWN])
    assert off_surface_mm(curves).max() < 0.1
    away = curves.copy()
    away[:, :3] *= 50 / 45
    assert off_surface_mm(away) == pytest.approx(5, abs=0.1)


def test_a_hole_is_seen() -> None:
    curve = DRAWN[0][0].copy()
    curve[:3, 16:] += 20
    assert largest_gap(curve) > 3


def test_both_sides_are_drawn_alike_and_do_not_cross() -> None:
    right = [known.right for _, known in DRAWN]
    assert 0.4 < np.mean(right) < 0.6
    for curve, known in DRAWN:
        assert (curve[0] > 0).all() == known.right
        assert (curve[0] > 0).any() == known.right


def test_a_seed_is_a_vessel_and_a_data_set_holds_them_scaled() -> None:
    data = CentrelineDataset(range(3, 6))
    assert len(data) == 3
    np.testing.assert_allclose(as_curves(data.curves), np.stack([centreline(seed)[0] for seed in (3, 4, 5)]), rtol=1e-5)
    assert data.known == [centreline(seed)[1] for seed in (3, 4, 5)]
    assert torch.equal(data[1]["image"], data.curves[1])
    assert float(data.curves.abs().max()) < 1.1
    assert len(SCALE) == 4
