"""A sampler's images come from the seed alone, lie in [0, 1], and are numbers."""

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import PredictionEvaluator, Sampler, ScanDataset
from pipeline.inference.sampler import masks_on
from pipeline.preprocessing.grid import Grid


class Shown(nn.Module):
    """The first twelve numbers of a latent, as an image of 3×4 pixels."""

    def forward(self, latents: Tensor) -> Tensor:
        return latents[:, :12].reshape(-1, 1, 3, 4)


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, latents: Tensor) -> Tensor:
        return torch.full((len(latents), 1, 3, 4), self.value)


class Outputs(nn.Module):
    """Zeros of a shape that is given."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, latents: Tensor) -> Tensor:
        return torch.zeros(self.shape)


def sampler(network: nn.Module | None = None, **options: Any) -> Sampler:
    return Sampler(network or Shown(), **{"latent": 16, "spacing_mm": 2.0, **options})


def test_images_are_what_the_network_makes_of_standard_normal_latents() -> None:
    images = sampler().sample(400, seed=0)
    assert images.shape == (400, 3, 4)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)
    # Clipped to [0, 1]: half of a normal distribution lies below 0, and 15.9 % above 1.
    assert (images == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert (images == 1).mean() == pytest.approx(0.159, abs=0.02)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_the_same_seed_gives_the_same_images_whatever_the_batch_size(batch_size: int) -> None:
    images = sampler(batch_size=batch_size).sample(7, seed=5)
    np.testing.assert_array_equal(images, sampler().sample(7, seed=5))
    np.testing.assert_array_equal(images[:4], sampler(batch_size=batch_size).sample(4, seed=5))
    assert not np.array_equal(images, sampler(batch_size=batch_size).sample(7, seed=6))


def test_the_random_state_of_the_process_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    images = sampler().sample(3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(images, sampler().sample(3, seed=0))


def test_no_two_images_of_a_run_are_the_same() -> None:
    images = sampler(batch_size=2).sample(6, seed=0)
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(images, 2))


def test_the_inferer_runs_the_network() -> None:
    def halves(latents: Tensor, network: nn.Module) -> Tensor:
        return network(latents) / 2

    images = sampler(Constant(0.8), inferer=halves).sample(2, seed=0)
    np.testing.assert_allclose(images, 0.4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ScanError, match="NaN or infinite values, expected numbers"):
        sampler(Constant(value)).sample(2, seed=0)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 8, 8), (2, 16), (1, 1, 8, 8)])
def test_what_is_no_slice_of_one_channel_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"put out .* for 2 latents, expected images \(2, 1, H, W\)"):
        sampler(Outputs(*shape)).sample(2, seed=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"latent": 0}, "latent: found 0, expected a whole number from 1 to 4096"),
        ({"latent": 2.5}, "latent: found 2.5, expected a whole number from 1 to 4096"),
        ({"batch_size": 0}, "batch_size: found 0, expected a whole number from 1 to 4096"),
        ({"batch_size": True}, "batch_size: found True, expected a whole number"),
        ({"spacing_mm": 0}, "spacing_mm: found 0, expected millimetres from 0.01 to 100"),
        ({"spacing_mm": float("nan")}, "spacing_mm: found nan, expected millimetres"),
        ({"spacing_mm": "1"}, "spacing_mm: found '1', expected millimetres"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        sampler(**options)


@pytest.mark.parametrize(
    ("count", "seed", "sentence"),
    [
        (0, 0, "count: found 0, expected a whole number from 1 to 9999"),
        (10_000, 0, "count: found 10000, expected a whole number from 1 to 9999"),
        (1, -1, "seed: found -1, expected a whole number from 0"),
    ],
)
def test_requests_out_of_range_are_refused(count: int, seed: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        sampler().sample(count, seed)


def test_it_is_no_predictor_for_scans(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(UsageError, match=r"is a sampler, which takes no scans, .* use `phs-pipeline sample`"):
        PredictionEvaluator(sampler(), ScanDataset(tmp_path), tmp_path / "bundle", tmp_path / "out")


# Images that are conditioned, or made with their masks


class Told(nn.Module):
    """Images as bright as the second of the two class numbers, or as the mask that is given."""

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        return latents[:, -1:, None, None].expand(-1, 1, 3, 4) if mask is None else mask / 2


def test_classes_come_in_turn_or_as_asked() -> None:
    of_class = sampler(Told(), condition="class", batch_size=2)
    drawn = of_class.draw(5, seed=0)
    assert drawn.labels == ("healthy", "pathological", "healthy", "pathological", "healthy")
    assert drawn.images.mean(axis=(1, 2)).tolist() == [0, 1, 0, 1, 0]
    assert of_class.draw(3, seed=0, label="pathological").images.mean() == 1
    with pytest.raises(UsageError, match="class: found 'sick', expected one of healthy, pathological"):
        of_class.draw(3, seed=0, label="sick")
    with pytest.raises(UsageError, match="found a sampler whose images are of no class"):
        sampler().draw(3, seed=0, label="healthy")


def test_masks_are_taken_in_turn() -> None:
    masks = np.zeros((2, 16, 16), np.uint8)
    masks[0, :3] = 1
    masks[1, 5:] = 1
    of_masks = sampler(Told(), condition="mask", grid=Grid(2.0, (16, 16)), batch_size=2)
    drawn = of_masks.draw(3, seed=0, masks=masks)
    assert drawn.masks is not None
    np.testing.assert_array_equal(drawn.masks, masks[[0, 1, 0]])
    np.testing.assert_array_equal(drawn.images, masks[[0, 1, 0]] / 2)
    with pytest.raises(UsageError, match="masks: found none, expected some for a sampler of the condition mask"):
        of_masks.draw(3, seed=0)
    with pytest.raises(UsageError, match="masks: found some, expected none for a sampler of the condition none"):
        sampler().draw(3, seed=0, masks=masks)
    with pytest.raises(UsageError, match="grid: found none"):
        sampler(Told(), condition="mask")


def test_a_second_channel_is_the_lesion_mask_of_joint_synthesis() -> None:
    class Both(nn.Module):
        def forward(self, latents: Tensor) -> Tensor:
            return torch.stack((torch.full((len(latents), 3, 4), 0.2), torch.full((len(latents), 3, 4), 0.7)), dim=1)

    drawn = sampler(Both(), joint=True).draw(2, seed=0)
    assert drawn.masks is not None
    assert drawn.masks.dtype == np.uint8
    assert (drawn.images.max(), int(drawn.masks.min())) == (pytest.approx(0.2), 1)
    with pytest.raises(UsageError, match=r"for 1 latents, expected images \(1, 2, H, W\)"):
        sampler(joint=True).draw(1, seed=0)


def test_a_mask_s_slices_with_a_lesion_lie_on_the_sampler_s_grid(tmp_path: Path) -> None:
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[2:4, 4:6, 1] = 3
    nib.save(nib.Nifti1Image(mask, np.diag([4.0, 4.0, 5.0, 1.0])), tmp_path / "lesion.nii.gz")
    (found,) = masks_on(Grid(2.0, (16, 16)), [tmp_path / "lesion.nii.gz"])
    expected = np.zeros((16, 16))
    expected[4:8, 8:12] = 1
    np.testing.assert_array_equal(found, expected)
    nib.save(nib.Nifti1Image(mask * 0, np.diag([4.0, 4.0, 5.0, 1.0])), tmp_path / "empty.nii.gz")
    with pytest.raises(ScanError, match="found no lesion that is seen on the grid of 2 mm"):
        masks_on(Grid(2.0, (16, 16)), [tmp_path / "empty.nii.gz"])
