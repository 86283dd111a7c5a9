"""Enhancement adds the pathological residual (GVS, Section III-C), and α = 0 changes nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from pipeline.errors import UsageError
from pipeline.scans import Scan
from pipeline.synthesis import Synthesizer, Twin, enhance


@pytest.fixture
def twin(scan: Scan, make_synthesizer: Callable[..., Synthesizer], darken: nn.Module) -> Twin:
    return make_synthesizer(darken)(scan)


def test_alpha_zero_gives_the_input_back_bit_for_bit(twin: Twin) -> None:
    assert enhance(twin, 0.0)[0].tobytes() == twin.scan.stored.tobytes()


def test_signal_is_added_not_removed(twin: Twin) -> None:
    x_p, x_s = twin.scan.stored.astype(float), twin.stored.astype(float)
    np.testing.assert_allclose(enhance(twin, 0.7)[0], x_p + 0.7 * (x_p - x_s), atol=0.5)


def test_contrast_of_a_bright_lesion_rises_with_alpha(twin: Twin) -> None:
    lesion = twin.scan.stored > 600
    tissue = (twin.scan.stored > 300) & ~lesion

    def contrast(alpha: float) -> float:
        enhanced = enhance(twin, alpha)[0]
        return float(enhanced[lesion].mean() - enhanced[tissue].mean())

    contrasts = [contrast(alpha) for alpha in (0.0, 0.3, 0.5, 0.7, 1.0)]
    assert contrasts == sorted(contrasts)
    assert contrasts[-1] > 1.5 * contrasts[0]


def test_minus_one_is_the_printed_direction_and_gives_the_twin(twin: Twin) -> None:
    np.testing.assert_array_equal(enhance(twin, -1.0)[0], twin.stored)


def test_voxels_the_method_left_alone_stay(twin: Twin) -> None:
    same = twin.stored == twin.scan.stored
    np.testing.assert_array_equal(enhance(twin, 1.0)[0][same], twin.scan.stored[same])


def test_alpha_that_is_no_number_is_refused(twin: Twin) -> None:
    with pytest.raises(UsageError, match="alpha must be a finite number, found nan"):
        enhance(twin, float("nan"))


def test_values_are_kept_within_the_data_type_and_that_is_said(twin: Twin) -> None:
    enhanced, notes = enhance(twin, 200.0)
    limit = np.iinfo(np.int16).max
    assert enhanced.max() == limit
    assert notes == [f"{(enhanced == limit).sum()} voxels reached the limits of int16 and were clipped there"]
    assert enhance(twin, 0.7)[1] == []
