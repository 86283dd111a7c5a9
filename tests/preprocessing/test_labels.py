"""Healthy, pathological, or neither: by lesion area."""

import numpy as np
import pytest

from pipeline.preprocessing.labels import label_slices


@pytest.mark.parametrize(
    ("min_lesion_mm2", "expected"),
    [
        (0.0, ["healthy", "pathological", "pathological", "pathological"]),
        (10.0, ["healthy", "excluded", "pathological", "pathological"]),
        (10.1, ["healthy", "excluded", "excluded", "pathological"]),
    ],
)
def test_a_slice_is_healthy_without_lesion_and_pathological_with_enough_of_it(
    min_lesion_mm2: float, expected: list[str]
) -> None:
    assert label_slices(np.array([0.0, 0.01, 10.0, 500.0]), min_lesion_mm2) == expected
