"""Where the head is."""

import numpy as np

from pipeline.preprocessing.foreground import foreground


def test_largest_object_with_its_holes_filled_in_each_slice() -> None:
    axial = np.zeros((3, 20, 20), np.float32)
    axial[:, 4:16, 4:16] = 0.6
    axial[:, 8:12, 8:12] = 0.0  # ventricles, dark in FLAIR
    axial[1, 0, 0] = 1.0  # a bright speck of noise in the air
    expected = np.zeros((3, 20, 20), bool)
    expected[:, 4:16, 4:16] = True
    np.testing.assert_array_equal(foreground(axial), expected)


def test_air_is_not_foreground() -> None:
    axial = np.full((2, 10, 10), 0.03, np.float32)
    axial[:, 3:7, 3:7] = 0.1
    assert foreground(axial).sum() == 2 * 16


def test_nothing_but_air() -> None:
    assert not foreground(np.zeros((2, 5, 5), np.float32)).any()
