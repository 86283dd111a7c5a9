"""Enhancement adds the pathological residual (GVS, Section III-C), and α = 0 changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from pipeline.errors import UsageError
from pipeline.inference import Translator
from pipeline.inference.enhance import enhance as enhance_result
from pipeline.scans import Scan, read_nifti


def enhance(twin: Any, alpha: float) -> tuple[np.ndarray, list[str]]:
    """The enhanced voxels, and what was said of them."""
    enhanced = enhance_result(twin.result, alpha)
    return enhanced.main.voxels, enhanced.notes[len(twin.notes) :]


@pytest.fixture
def twin(scan: Scan, make_synthesizer: Callable[..., Translator], darken: nn.Module) -> Any:
    return make_synthesizer(darken)(scan)


def test_alpha_zero_gives_the_input_back_bit_for_bit(twin: Any) -> None:
    assert enhance(twin, 0.0)[0].tobytes() == twin.scan.stored.tobytes()


def test_signal_is_added_not_removed(twin: Any) -> None:
    x_p, x_s = twin.scan.stored.astype(float), twin.stored.astype(float)
    np.testing.assert_allclose(enhance(twin, 0.7)[0], x_p + 0.7 * (x_p - x_s), atol=0.5)


def test_contrast_of_a_bright_lesion_rises_with_alpha(twin: Any) -> None:
    lesion = twin.scan.stored > 600
    tissue = (twin.scan.stored > 300) & ~lesion

    def contrast(alpha: float) -> float:
        enhanced = enhance(twin, alpha)[0]
        return float(enhanced[lesion].mean() - enhanced[tissue].mean())

    contrasts = [contrast(alpha) for alpha in (0.0, 0.3, 0.5, 0.7, 1.0)]
    assert contrasts == sorted(contrasts)
    assert contrasts[-1] > 1.5 * contrasts[0]


def test_minus_one_is_the_printed_direction_and_gives_the_twin(twin: Any) -> None:
    np.testing.assert_array_equal(enhance(twin, -1.0)[0], twin.stored)


def test_voxels_the_method_left_alone_stay(twin: Any) -> None:
    same = twin.stored == twin.scan.stored
    np.testing.assert_array_equal(enhance(twin, 1.0)[0][same], twin.scan.stored[same])


def test_alpha_that_is_no_number_is_refused(twin: Any) -> None:
    with pytest.raises(UsageError, match="alpha must be a finite number, found nan"):
        enhance(twin, float("nan"))


def test_values_beyond_the_data_type_are_kept_in_a_wider_one_and_that_is_said(twin: Any) -> None:
    enhanced, notes = enhance(twin, 200.0)
    np.testing.assert_array_equal(enhanced, twin.scan.stored + np.rint(200 * twin.anomaly))
    assert enhanced.dtype == np.int32
    assert notes == ["values beyond the limits of int16 are kept in int32"]
    assert enhance(twin, 0.7)[1] == []


def test_no_signal_is_the_least_that_a_voxel_shows(
    head: np.ndarray, write_scan: Callable[..., Path], make_synthesizer: Callable[..., Translator]
) -> None:
    class Brighten(nn.Module):
        def forward(self, image):
            return image + 0.2

    twin = make_synthesizer(Brighten())(read_nifti(write_scan((head / 4).astype(np.uint8), scaling=(4.0, 0.0))))
    enhanced, notes = enhance(twin, 5.0)
    assert enhanced.dtype == np.uint8
    assert not enhanced[twin.edited & (head < 600)].any()
    (note,) = notes
    assert note.endswith("voxels reached 0, below which uint8 has no values, and were held there")
