"""A segmenter's mask and probability lie on the scan's own grid, inside the slab, for one sequence or several."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import Inputs, Segmenter
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan, read_nifti

HIGH = 1000.0


class Bright(nn.Module):
    """Logits that are positive where a channel is brighter than a level."""

    def __init__(self, channel: int = 0, level: float = 0.6) -> None:
        super().__init__()
        self.channel, self.level = channel, level
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        return 20 * (image[:, self.channel : self.channel + 1] - self.level)


def segmenter(network: nn.Module | None = None, spacing_mm: float = 1.0, **options) -> Segmenter:
    grid = options.pop("grid", Grid(spacing_mm, (32, 32)))
    return Segmenter(network or Bright(), grid, WindowRule(fixed=(0, HIGH)), **options)


def test_the_mask_is_where_the_network_says_so_and_the_map_is_its_probability(scan: Scan) -> None:
    result = segmenter()(Inputs(scan))
    mask, probability = result.products
    assert (mask.name, mask.kind, probability.kind) == ("lesion", "mask", "map")
    assert mask.voxels.shape == probability.voxels.shape == scan.shape
    assert (mask.voxels.dtype, probability.voxels.dtype) == (np.uint8, np.float32)
    expected = 1 / (1 + np.exp(-20 * (np.clip(scan.intensities() / HIGH, 0, 1) - 0.6)))
    np.testing.assert_allclose(probability.voxels, expected * result.region, atol=1e-5)
    np.testing.assert_array_equal(mask.voxels, (probability.voxels >= 0.5) & result.region)
    assert mask.voxels.sum() > 20


@pytest.mark.parametrize("flip", [(-1, 1, 1), (1, -1, -1)])
def test_in_a_scan_that_lies_otherwise_the_same_voxels_are_found(
    head: np.ndarray, write_scan: Callable[..., Path], flip: tuple[int, ...]
) -> None:
    plain = segmenter()(Inputs(read_nifti(write_scan(head)))).main.voxels
    turned = head[tuple(slice(None, None, step) for step in flip)]
    scan = read_nifti(write_scan(turned, "turned.nii.gz", np.diag([*map(float, flip), 1.0])))
    found = segmenter()(Inputs(scan)).main.voxels
    np.testing.assert_array_equal(found[tuple(slice(None, None, step) for step in flip)], plain)


def test_from_a_coarser_grid_the_border_has_no_steps_of_that_grid(scan: Scan) -> None:
    fine, coarse = (segmenter(Bright(level=0.2), mm)(Inputs(scan)).main.voxels for mm in (1.0, 2.0))
    assert coarse.shape == scan.shape
    assert 2 * (fine & coarse).sum() / (fine.sum() + coarse.sum()) > 0.9
    pairs = coarse[:20:2] != coarse[1:20:2]
    assert pairs.any(), "neighbouring voxels of one coarse pixel differ"


def test_volumes_are_counted_in_millilitres_of_the_scan_s_voxels(
    head: np.ndarray, write_scan: Callable[..., Path]
) -> None:
    scan = read_nifti(write_scan(head, affine=np.diag([2.0, 1.0, 3.0, 1.0])))
    result = segmenter()(Inputs(scan))
    (figure,) = result.figures
    assert (figure.name, figure.units) == ("LesionMl", "ml")
    assert figure.value == pytest.approx(result.main.voxels.sum() * 6 / 1000)


def test_outside_the_slab_nothing_is_found_and_that_is_said(scan: Scan) -> None:
    result = segmenter(slab=Slab(slices=2, thickness_mm=None))(Inputs(scan))
    found = scan.axial(result.main.voxels).any(axis=(1, 2))
    assert found.sum() == 2
    assert not scan.axial(result.first("map").voxels)[~found].any()
    assert any("slices outside the 2 middle slices" in note for note in result.notes)
    whole = scan.axial(segmenter()(Inputs(scan)).main.voxels)
    np.testing.assert_array_equal(scan.axial(result.main.voxels)[found], whole[found])


def test_a_higher_threshold_takes_less_and_is_told(scan: Scan) -> None:
    low, high = (segmenter(threshold=value)(Inputs(scan)) for value in (0.02, 0.9))
    assert low.main.voxels.sum() > high.main.voxels.sum() > 0
    assert high.facts["Threshold"] == 0.9
    assert any("0.9" in sentence for sentence in high.method)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 2])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="expected a probability between 0 and 1"):
        segmenter(threshold=threshold)


def test_each_label_has_a_mask_and_a_map_and_the_first_is_the_main_product(scan: Scan) -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.cat([20 * (image - 0.6), 20 * (0.6 - image)], dim=1)

    result = segmenter(Two(), labels=("tumour", "oedema"))(Inputs(scan))
    assert [(p.name, p.kind) for p in result.products] == [
        ("tumour", "mask"),
        ("oedema", "mask"),
        ("tumourprobability", "map"),
        ("oedemaprobability", "map"),
    ]
    tumour, oedema = (product.voxels for product in result.products[:2])
    np.testing.assert_array_equal(tumour + oedema, result.region.astype(np.uint8))


def test_logits_of_another_number_of_labels_are_refused(scan: Scan) -> None:
    with pytest.raises(ScanError, match="gave 1 channels, expected one for each of tumour, oedema"):
        segmenter(labels=("tumour", "oedema"))(Inputs(scan))


class TestSeveralSequences:
    @pytest.fixture
    def other(self, scan: Scan) -> Scan:
        """A sequence in which the left half is bright."""
        stored = np.where(np.arange(scan.shape[0])[:, None, None] < scan.shape[0] // 2, scan.stored * 2, 0)
        return replace(scan, stored=stored.astype(np.int16))

    def test_the_network_sees_each_windowed_by_itself_in_the_config_s_order(self, scan: Scan, other: Scan) -> None:
        result = segmenter(Bright(channel=1), channels=("FLAIR", "T1w"))(Inputs(scan, channels={"T1w": other}))
        expected = (other.intensities() / HIGH >= 0.6) & result.region
        np.testing.assert_array_equal(result.main.voxels, expected)

    def test_one_that_is_missing_is_asked_for_by_name(self, scan: Scan) -> None:
        with pytest.raises(ScanError, match=r"found no other sequence beside it, expected T1w.*--channel T1w=FILE"):
            segmenter(channels=("FLAIR", "T1w"))(Inputs(scan))

    def test_one_on_another_grid_is_refused(
        self, scan: Scan, head: np.ndarray, write_scan: Callable[..., Path]
    ) -> None:
        elsewhere = read_nifti(write_scan(head, "t1.nii.gz", np.diag([2.0, 1.0, 1.0, 1.0])))
        with pytest.raises(ScanError, match="channel T1w"):
            segmenter(channels=("FLAIR", "T1w"))(Inputs(scan, channels={"T1w": elsewhere}))


def test_with_neighbours_a_network_that_looks_one_slice_up_finds_the_lesion_one_slice_down(scan: Scan) -> None:
    plain = scan.axial(segmenter()(Inputs(scan)).main.voxels)
    above = scan.axial(segmenter(Bright(channel=2), neighbours=1)(Inputs(scan)).main.voxels)
    region = scan.axial(segmenter()(Inputs(scan)).region)
    np.testing.assert_array_equal(above[:-1], plain[1:] & region[:-1])


def test_a_network_of_volumes_gives_the_same_mask_whole_or_in_windows(scan: Scan) -> None:
    slices = segmenter()(Inputs(scan)).main.voxels
    windows = Bright()
    inferer = SlidingWindowInferer(roi_size=(4, 16, 16), overlap=0.25)
    for network, options in ((Bright(), {}), (windows, {"inferer": inferer})):
        made = segmenter(network, grid=VolumeGrid(), **options)(Inputs(scan)).main.voxels
        np.testing.assert_array_equal(made, slices)
    assert {size[2:] for size in windows.seen} == {(4, 16, 16)}


@pytest.mark.parametrize("labels", [(), ("",), ("../lesion",), ("a/b",), ("lesion", "lesion"), ("a\nb",), ("x" * 101,)])
def test_labels_become_names_of_files_and_lead_nowhere_else(labels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"labels: found .*, expected different names of letters"):
        segmenter(labels=labels)


class TestFlips:
    """Logits 20 (x − 0.6), on the right side of the image less by 1."""

    class OneSided(Bright):
        def forward(self, image: Tensor) -> Tensor:
            sided: Tensor = super().forward(image)
            sided[:, :, 16:] -= 1
            return sided

    @pytest.fixture
    def windowed(self) -> np.ndarray:
        """Air, tissue in which nothing may be found, and tissue with something bright, each twice."""
        slices = np.zeros((6, 1, 32, 32), dtype=np.float32)
        slices[2:, :, 4:28, 4:28] = 0.3
        slices[4:, :, 6:9, 6:9] = 0.8
        return slices

    def test_both_sides_are_looked_at_alike_where_something_may_be(self, windowed: np.ndarray) -> None:
        found = segmenter(self.OneSided(), flip_average=True).probabilities(windowed, (1.0, 1.0, 1.0))
        mirrored = segmenter(self.OneSided(), flip_average=True).probabilities(windowed[:, :, ::-1], (1.0, 1.0, 1.0))
        np.testing.assert_allclose(found[4:], mirrored[4:, :, ::-1], atol=1e-6)
        np.testing.assert_allclose(found[4:, 0, 7, 7], 1 / (1 + np.exp(-(20 * 0.2 - 0.5))), atol=1e-5)

    def test_air_is_not_looked_at_and_what_is_surely_healthy_once(self, windowed: np.ndarray) -> None:
        network = self.OneSided()
        found = segmenter(network, flip_average=True, batch_size=1).probabilities(windowed, (1.0, 1.0, 1.0))
        assert len(network.seen) == 2 + 2 * 2
        assert found[:2].max() < 1e-8
        assert found[2:4].max() < 0.02
