import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.regression import compute_ssim_and_cs
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.metrics.fidelity import psnr, ssim, ssim_map


def texture_and_copy(seed=0, shape=(3, 1, 60, 47), noise=0.05):
    """Smooth random images in [0, 1] with a dark border, and the same with noise: (reference, image)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), (0, 0, 3, 3))
    reference = np.clip(0.5 + 2 * smooth, 0, 1)
    reference[..., :6] = 0
    image = np.clip(reference + noise * rng.normal(size=shape), 0, 1)
    return torch.tensor(reference, dtype=torch.float32), torch.tensor(image, dtype=torch.float32)


def central_square(images, half=8):
    height, width = images.shape[-2:]
    mask = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    mask[..., height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = True
    return mask


class TestPsnr:
    @pytest.mark.parametrize("data_range", [1.0, 2.0])
    def test_agrees_with_scikit_image_sample_by_sample(self, data_range):
        reference, image = texture_and_copy()
        expected = [
            peak_signal_noise_ratio(r, i, data_range=data_range)
            for r, i in zip(reference.double().numpy(), image.double().numpy(), strict=True)
        ]
        value = psnr(image, reference, data_range=data_range)
        assert value.shape == (3,)
        assert value.numpy() == pytest.approx(expected, abs=1e-3)

    def test_counts_only_the_pixels_of_the_mask(self):
        reference = torch.zeros(1, 1, 2, 2)
        image = torch.tensor([[[[0.1, 0.3], [9.0, 9.0]]]])
        mask = torch.tensor([[[[1, 1], [0, 0]]]])
        # MSE = (0.01 + 0.09) / 2 = 0.05, and 10 log10(1 / 0.05) = 13.0103 dB
        assert psnr(image, reference, mask).item() == pytest.approx(13.0103, abs=1e-4)

    def test_one_mask_serves_all_channels_and_all_samples(self):
        reference, image = texture_and_copy(shape=(2, 3, 24, 24))
        mask = central_square(reference)[0]
        spread = mask.expand(2, 3, 24, 24).float()
        assert torch.equal(psnr(image, reference, mask), psnr(image, reference, spread))

    def test_a_change_inside_the_lesion_leaves_the_value_of_normal_tissue_exactly(self):
        reference, image = texture_and_copy()
        lesion = central_square(reference)
        changed = torch.where(lesion, 1 - image, image)
        assert not torch.equal(psnr(changed, reference), psnr(image, reference))
        assert torch.equal(psnr(changed, reference, ~lesion), psnr(image, reference, ~lesion))

    def test_identical_images_are_infinitely_good_and_an_empty_mask_is_undefined(self):
        reference, image = texture_and_copy(shape=(1, 1, 20, 20))
        nothing = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
        assert psnr(reference, reference).item() == math.inf
        assert psnr(reference, reference, ~nothing).item() == math.inf
        assert math.isnan(psnr(image, reference, nothing).item())

    @given(seed=st.integers(0, 2**16), low=st.floats(0.01, 0.1), factor=st.floats(1.5, 4))
    @settings(max_examples=25)
    def test_more_noise_means_a_lower_value(self, seed, low, factor):
        generator = torch.Generator().manual_seed(seed)
        reference = torch.rand(1, 1, 16, 16, generator=generator)
        noise = torch.randn(1, 1, 16, 16, generator=generator)
        assert psnr(reference + factor * low * noise, reference) < psnr(reference + low * noise, reference)

    def test_shapes_that_would_broadcast_are_refused(self):
        with pytest.raises(ValueError, match=r"same shape, got \(2, 1, 8, 8\) and \(1, 1, 8, 8\)"):
            psnr(torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 8, 8))


class TestSsimMap:
    @pytest.mark.parametrize(("data_range", "sigma", "window"), [(1.0, 1.5, 11), (2.0, 1.5, 11), (1.0, 1.0, 9)])
    def test_agrees_with_scikit_image_up_to_the_border(self, data_range, sigma, window):
        reference, image = texture_and_copy()
        value = ssim_map(image, reference, data_range, window, sigma)
        assert value.shape == image.shape
        for sample in range(len(image)):
            _, expected = structural_similarity(
                reference[sample, 0].double().numpy(),
                image[sample, 0].double().numpy(),
                gaussian_weights=True,
                sigma=sigma,
                use_sample_covariance=False,
                data_range=data_range,
                full=True,
            )
            np.testing.assert_allclose(value[sample, 0].numpy(), expected, atol=1e-4)

    def test_windows_inside_the_image_agree_with_monai(self):
        reference, image = texture_and_copy(shape=(2, 3, 40, 33))
        expected, _ = compute_ssim_and_cs(image, reference, 2, (11, 11), (1.5, 1.5))
        torch.testing.assert_close(ssim_map(image, reference)[..., 5:-5, 5:-5], expected, atol=1e-3, rtol=0)

    def test_an_image_smaller_than_the_window_is_mirrored_more_than_once(self):
        reference, image = texture_and_copy(shape=(1, 1, 4, 3))
        tiles = [torch.cat([x, x.flip(-1)] * 4, dim=-1) for x in (image, reference)]
        tiles = [torch.cat([x, x.flip(-2)] * 4, dim=-2) for x in tiles]
        tiled = ssim_map(*tiles)[..., 8:12, 6:9]
        torch.testing.assert_close(ssim_map(image, reference), tiled)

    def test_is_the_same_under_mixed_precision(self):
        reference, image = texture_and_copy()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = ssim_map(image, reference)
        assert mixed.dtype == torch.float32
        assert torch.equal(mixed, ssim_map(image, reference))


class TestSsim:
    def test_is_the_mean_of_the_map_over_the_mask(self):
        reference, image = texture_and_copy()
        mask = central_square(reference)
        similarity = ssim_map(image, reference, mask=mask)
        expected = torch.stack([similarity[i][mask[i]].mean() for i in range(3)])
        torch.testing.assert_close(ssim(image, reference, mask), expected)

    def test_with_its_surroundings_it_is_the_mean_of_the_whole_image_s_map(self):
        reference, image = texture_and_copy()
        mask = central_square(reference)
        similarity = ssim_map(image, reference)
        expected = torch.stack([similarity[i][mask[i]].mean() for i in range(3)])
        torch.testing.assert_close(ssim(image, reference, mask, surroundings=True), expected)

    def test_a_window_sees_the_pixels_of_the_mask_only(self):
        reference, image = texture_and_copy(shape=(1, 1, 40, 40))
        mask = central_square(reference)
        weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
        window = np.outer(weights, weights)
        for row, column in ((12, 12), (20, 27), (18, 18)):  # a corner, an edge and the middle of the mask
            part = np.s_[0, 0, row - 5 : row + 6, column - 5 : column + 6]
            w = window * mask[part].numpy()
            x, y = (tensor[part].double().numpy() for tensor in (image, reference))
            mean_x, mean_y = np.average(x, weights=w), np.average(y, weights=w)
            covariance = np.average((x - mean_x) * (y - mean_y), weights=w)
            variances = np.average((x - mean_x) ** 2 + (y - mean_y) ** 2, weights=w)
            expected = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
            expected *= (2 * covariance + 9e-4) / (variances + 9e-4)
            assert ssim_map(image, reference, mask=mask)[0, 0, row, column].item() == pytest.approx(expected, abs=1e-4)

    def test_the_truth_in_the_lesion_scores_one_on_normal_tissue_and_more_than_the_lesion_left_in_with_noise(self):
        reference, _ = texture_and_copy()
        lesion = central_square(reference)
        pathological = torch.where(lesion, (reference + 0.3).clamp(max=1), reference)
        noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
        noisy = (pathological + 0.01 * noise).clamp(0, 1)
        assert torch.equal(ssim(reference, pathological, ~lesion), torch.ones(3))
        assert (ssim(noisy, pathological, ~lesion) < 1 - 1e-4).all()

    def test_what_is_inside_the_lesion_never_counts_in_normal_tissue(self):
        reference, image = texture_and_copy()
        lesion = central_square(reference)
        changed = torch.where(lesion, 1 - image, image)
        assert torch.equal(ssim(changed, reference, ~lesion), ssim(image, reference, ~lesion))

    def test_counts_every_pixel_without_a_mask(self):
        reference, image = texture_and_copy()
        torch.testing.assert_close(ssim(image, reference), ssim_map(image, reference).mean(dim=(1, 2, 3)))

    def test_identical_images_score_exactly_one_and_an_inverted_image_less_than_zero(self):
        reference, _ = texture_and_copy()
        assert torch.equal(ssim(reference, reference), torch.ones(3))
        assert (ssim(1 - reference, reference) < 0).all()

    def test_damage_far_from_the_mask_does_not_count(self):
        reference, image = texture_and_copy()
        mask = central_square(reference, half=4)
        damaged = image.clone()
        damaged[..., :8, :8] = 1
        assert torch.equal(ssim(damaged, reference, mask), ssim(image, reference, mask))

    def test_is_undefined_only_for_the_sample_with_an_empty_mask(self):
        reference, image = texture_and_copy()
        mask = central_square(reference)
        mask[1] = False
        assert ssim(image, reference, mask).isnan().tolist() == [False, True, False]

    def test_shapes_that_would_broadcast_are_refused(self):
        with pytest.raises(ValueError, match="same shape"):
            ssim(torch.zeros(2, 1, 16, 16), torch.zeros(2, 3, 16, 16))
