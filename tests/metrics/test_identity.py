import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.metrics.regression import compute_ms_ssim
from scipy.ndimage import gaussian_filter
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from pipeline.metrics.identity import identity, ms_ssim_padding


def scan_and_synthesis(height=192, width=176, samples=2):
    """Smooth random images in [0, 1], noisy copies, and a lesion in each: (reference, image, lesion)."""
    rng = np.random.default_rng(5)
    shape = (samples, 1, height, width)
    reference = np.clip(0.5 + 4 * gaussian_filter(rng.normal(size=shape), (0, 0, 5, 5)), 0, 1)
    image = np.clip(gaussian_filter(reference, (0, 0, 1, 1)) + 0.05 * rng.normal(size=shape), 0, 1)
    lesion = np.zeros(shape)
    lesion[:, :, height // 2 :, width // 3 : width // 2] = 1
    return tuple(torch.tensor(x, dtype=torch.float32) for x in (reference, image, lesion))


@pytest.mark.parametrize("size", [(176, 176), (201, 187)])
def test_without_a_lesion_it_is_the_ms_ssim_of_torchmetrics_and_of_monai(size):
    reference, image, _ = scan_and_synthesis(*size)
    value = identity(image, reference, torch.zeros_like(reference))
    torchmetrics_ms_ssim = MultiScaleStructuralSimilarityIndexMeasure(
        kernel_size=11, sigma=1.5, data_range=1.0, reduction="none"
    )
    assert value.shape == (2,)
    assert (value < 0.98).all()
    torch.testing.assert_close(value, torchmetrics_ms_ssim(image, reference), atol=1e-4, rtol=0)
    torch.testing.assert_close(value, compute_ms_ssim(image, reference, 2)[:, 0], atol=1e-4, rtol=0)


def test_the_lesion_is_set_to_zero_in_both_images():
    reference, image, lesion = scan_and_synthesis()
    expected = compute_ms_ssim((1 - lesion) * image, (1 - lesion) * reference, 2)[:, 0]
    torch.testing.assert_close(identity(image, reference, lesion), expected, atol=1e-4, rtol=0)


def test_a_change_inside_the_lesion_alone_leaves_it_exactly_as_it_was():
    reference, image, lesion = scan_and_synthesis()
    changed = torch.where(lesion.bool(), 1 - image, image)
    assert torch.equal(identity(changed, reference, lesion), identity(image, reference, lesion))
    assert not torch.equal(identity(changed, reference, 0 * lesion), identity(image, reference, 0 * lesion))


def test_the_untouched_scan_has_identity_one():
    reference, _, lesion = scan_and_synthesis()
    assert torch.equal(identity(reference, reference, lesion), torch.ones(2))


def test_the_truth_in_the_lesion_scores_one_and_more_than_the_lesion_left_in_with_noise():
    truth, _, lesion = scan_and_synthesis()
    pathological = torch.where(lesion.bool(), (truth + 0.3).clamp(max=1), truth)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    noisy = (pathological + 0.01 * noise).clamp(0, 1)
    assert torch.equal(identity(truth, pathological, lesion), torch.ones(2))
    assert (identity(noisy, pathological, lesion) < 1 - 1e-4).all()


def test_a_bool_mask_and_intensities_in_another_range_give_the_same_value():
    reference, image, lesion = scan_and_synthesis()
    scaled = identity(255 * image, 255 * reference, lesion.bool(), data_range=255)
    torch.testing.assert_close(scaled, identity(image, reference, lesion), atol=1e-5, rtol=0)


def test_small_images_are_padded_with_background_on_both_sides():
    reference, image, lesion = scan_and_synthesis(208, 160)
    sides = (8, 8, 0, 0)
    padded = identity(F.pad(image, sides), F.pad(reference, sides), F.pad(lesion, sides))
    assert torch.equal(identity(image, reference, lesion), padded)


@pytest.mark.parametrize(
    ("size", "added"),
    [
        ((176, 176), (0, 0)),
        ((256, 240), (0, 0)),
        ((208, 160), (0, 16)),
        ((175, 300), (1, 0)),
        ((28, 28), (148, 148)),
    ],
)
def test_padding_is_what_five_scales_of_eleven_pixels_lack(size, added):
    assert ms_ssim_padding(*size) == added


@pytest.mark.parametrize("size", [(28, 28), (175, 161)])
def test_any_smaller_size_can_be_measured(size):
    reference, image, lesion = scan_and_synthesis(*size)
    value = identity(image, reference, lesion)
    assert ((value > 0) & (value < 1)).all()


def test_opposite_structure_gives_zero_and_not_nan():
    reference, _, lesion = scan_and_synthesis()
    texture = reference - reference.mean()
    assert torch.equal(identity(-texture, texture, lesion), torch.zeros(2))


def test_samples_are_judged_by_themselves():
    reference, image, lesion = scan_and_synthesis()
    alone = [identity(image[i : i + 1], reference[i : i + 1], lesion[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(identity(image, reference, lesion), torch.cat(alone))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        identity(torch.zeros(2, 1, 176, 176), torch.zeros(1, 1, 176, 176), torch.zeros(1, 1, 176, 176))
