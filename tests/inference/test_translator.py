"""Residual transfer: only what the method changed is carried back, and the rest of the scan stays as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import Inputs, Result, Translator
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan, read_nifti

Make = Callable[..., Translator]


def test_network_that_changes_nothing_gives_the_scan_back_bit_for_bit(
    scan: Scan, make_synthesizer: Make, identity: nn.Module
) -> None:
    for spacing_mm in (1.0, 2.0, 0.7):
        twin = make_synthesizer(identity, spacing_mm)(scan)
        assert twin.stored.tobytes() == scan.stored.tobytes()
        assert not twin.anomaly.any()


def test_on_the_networks_own_grid_the_residual_arrives_exactly(
    scan: Scan, make_synthesizer: Make, darken: nn.Module
) -> None:
    twin = make_synthesizer(darken)(scan)
    bright = scan.stored > 600
    assert bright.sum() > 20
    np.testing.assert_array_equal(twin.stored[bright], np.rint(scan.stored[bright] * 0.5))
    np.testing.assert_array_equal(twin.stored[~bright], scan.stored[~bright])
    np.testing.assert_array_equal(twin.anomaly[bright], scan.stored[bright] - twin.stored[bright])


def test_from_a_coarser_grid_the_scan_is_not_blurred(scan: Scan, make_synthesizer: Make, darken: nn.Module) -> None:
    twin = make_synthesizer(darken, spacing_mm=2.0)(scan)
    assert (twin.stored != scan.stored).any()
    # A round trip through 2 mm would smooth the noise of the tissue away from the lesion.
    far = np.abs(twin.anomaly) < 1
    assert far.mean() > 0.8
    np.testing.assert_array_equal(twin.stored[far], scan.stored[far])


def test_background_outside_the_edited_region_is_bit_identical(scan: Scan, make_synthesizer: Make) -> None:
    class Brighten(nn.Module):
        def forward(self, image):
            return image + 0.3

    twin = make_synthesizer(Brighten())(scan)
    np.testing.assert_array_equal(twin.stored[~twin.edited], scan.stored[~twin.edited])
    assert (twin.stored[twin.edited] > scan.stored[twin.edited]).all()
    head = foreground(twin.window.apply(scan.axial(scan.intensities())))
    np.testing.assert_array_equal(scan.axial(twin.edited), head)


def test_clipped_excess_of_a_lesion_goes_with_it(
    head: np.ndarray, write_scan: Callable[..., Path], make_synthesizer: Make, darken: nn.Module
) -> None:
    head[10, 12, 5] = 3000
    twin = make_synthesizer(darken)(read_nifti(write_scan(head)))
    # The network halves 1.0 to 0.5; the 2000 above the window, which it was not shown, go with it.
    assert twin.stored[10, 12, 5] == 500


def test_clipped_excess_of_what_is_left_alone_stays(
    head: np.ndarray, write_scan: Callable[..., Path], make_synthesizer: Make, identity: nn.Module
) -> None:
    head[10, 12, 5] = 3000
    assert make_synthesizer(identity)(read_nifti(write_scan(head))).stored[10, 12, 5] == 3000


@pytest.mark.parametrize(
    ("dtype", "wider"),
    [
        (np.uint8, np.int16),
        (np.int8, np.int16),
        (np.uint16, np.int32),
        (np.int16, np.int32),
        (np.int32, np.float64),
        (np.uint32, np.float64),
    ],
)
def test_values_beyond_the_data_type_are_kept_in_a_wider_one_and_that_is_said(
    head: np.ndarray, dtype: type, wider: type, write_scan: Callable[..., Path], make_synthesizer: Make
) -> None:
    class Brighten(nn.Module):
        def forward(self, image):
            return image + 0.5

    largest = float(np.iinfo(dtype).max)
    slope = 800 / largest
    voxels = (head * (0.999 / slope)).astype(dtype)
    path = write_scan(voxels, scaling=(slope, 0.0))
    twin = make_synthesizer(Brighten())(read_nifti(path))
    assert twin.stored.dtype == wider
    bright = head > 600
    np.testing.assert_allclose(twin.stored[bright] - voxels[bright].astype(float), 500 / slope, rtol=0.01)
    np.testing.assert_array_equal(twin.stored[~twin.edited], voxels[~twin.edited])
    np.testing.assert_allclose(twin.scan.stored - twin.stored_anomaly.astype(float), twin.stored)
    assert twin.notes == [f"values beyond the limits of {np.dtype(dtype)} are kept in {np.dtype(wider)}"]


def test_scaled_integers_are_edited_in_their_own_units(
    head: np.ndarray, write_scan: Callable[..., Path], make_synthesizer: Make, darken: nn.Module
) -> None:
    scan = read_nifti(write_scan((head * 2).astype(np.int16), scaling=(0.5, 0.0)))
    twin = make_synthesizer(darken)(scan)
    bright = head > 600
    np.testing.assert_allclose(twin.anomaly[bright], head[bright] * 0.5, atol=0.25)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_data_type_is_kept(
    head: np.ndarray, dtype: type, write_scan: Callable[..., Path], make_synthesizer: Make, darken: nn.Module
) -> None:
    voxels = (head / 4 if dtype is np.uint8 else head).astype(dtype)
    scaling = (4.0, 0.0) if dtype is np.uint8 else (1.0, 0.0)
    twin = make_synthesizer(darken)(read_nifti(write_scan(voxels, scaling=scaling)))
    assert twin.stored.dtype == dtype
    assert (twin.stored != voxels).any()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    permutation=st.permutations(range(3)),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    tilt=st.floats(-0.3, 0.3),
)
def test_result_does_not_depend_on_how_the_file_is_oriented(
    permutation: list[int],
    flips: tuple[int, ...],
    tilt: float,
    head: np.ndarray,
    write_scan: Callable[..., Path],
    make_synthesizer: Make,
    darken: nn.Module,
) -> None:
    """The same head stored along other axes gives the same twin along those axes, oblique or not."""
    oblique = np.eye(4)
    oblique[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    straight = read_nifti(write_scan(head, affine=oblique))
    orientation = np.column_stack([permutation, flips])
    turned = nib.Nifti1Image(head, oblique).as_reoriented(orientation)
    other = read_nifti(write_scan(np.asarray(turned.dataobj), "turned.nii.gz", turned.affine))

    expected, found = make_synthesizer(darken, 2.0)(straight), make_synthesizer(darken, 2.0)(other)
    np.testing.assert_array_equal(found.stored, nib.apply_orientation(expected.stored, orientation))


class Brighten(nn.Module):
    """By a tenth of the window."""

    def forward(self, image: Tensor) -> Tensor:
        return image + 0.1


class TestSlab:
    def test_slices_that_the_network_has_not_seen_are_left_alone_and_that_is_said(
        self, scan: Scan, make_synthesizer: Make, darken: nn.Module
    ) -> None:
        synthesizer = make_synthesizer(darken)
        whole = synthesizer(scan)
        synthesizer.slab = Slab(slices=2, thickness_mm=None)
        twin = synthesizer(scan)
        np.testing.assert_array_equal(twin.stored[..., 4:6], whole.stored[..., 4:6])
        np.testing.assert_array_equal(np.delete(twin.stored, [4, 5], 2), np.delete(scan.stored, [4, 5], 2))
        assert any("slices outside the 2 middle slices" in note for note in twin.notes)
        assert not whole.notes

    def test_mask_is_edited_in_whatever_slice_it_lies(
        self, scan: Scan, write_scan: Callable[..., Path], make_synthesizer: Make, darken: nn.Module
    ) -> None:
        mask = read_nifti(write_scan((scan.stored > 600).astype(np.uint8), "mask.nii.gz"))
        synthesizer = make_synthesizer(darken)
        whole = synthesizer(scan, mask)
        synthesizer.slab = Slab(slices=1, thickness_mm=None)
        np.testing.assert_array_equal(synthesizer(scan, mask).stored, whole.stored)

    def test_edits_fade_out_towards_its_end_where_the_head_goes_on_and_nowhere_else(
        self, write_scan: Callable[..., Path], make_synthesizer: Make
    ) -> None:
        """Over 10 mm: a slice is changed as much as its middle lies inside the slab."""
        tall = np.zeros((8, 8, 60), np.int16)
        tall[1:7, 1:7, 5:] = 400  # the head starts inside the slab, and goes on above it
        path = write_scan(tall, affine=np.diag([1.0, 1.0, 2.0, 1.0]))
        synthesizer = make_synthesizer(Brighten(), 1.0, (16, 16))
        synthesizer.slab = Slab(slices=56, thickness_mm=None)  # 2 to 57
        change = synthesizer(read_nifti(path)).anomaly[4, 4]
        np.testing.assert_allclose(change[5:53], -100)
        np.testing.assert_allclose(change[53:58], [-90, -70, -50, -30, -10])
        assert not change[58:].any()
        assert not change[:5].any()

    def test_a_thin_one_fades_out_over_a_quarter_of_it(
        self, write_scan: Callable[..., Path], make_synthesizer: Make
    ) -> None:
        tall = np.zeros((8, 8, 20), np.int16)
        tall[1:7, 1:7] = 400
        synthesizer = make_synthesizer(Brighten(), 1.0, (16, 16))
        synthesizer.slab = Slab(slices=8, thickness_mm=None)  # a quarter are 2 mm
        change = synthesizer(read_nifti(write_scan(tall))).anomaly[4, 4, 6:14]
        np.testing.assert_allclose(change, [-25, -75, *[-100] * 4, -75, -25])


class Alternate(nn.Module):
    """Adds to what is bright: in every other slice of a batch more, so that neighbours disagree."""

    def forward(self, image: Tensor) -> Tensor:
        return image + 0.1 * (torch.arange(len(image)) % 2)[:, None, None, None]


class TestSmoothing:
    """The residual of slices that were seen one by one is smoothed across them."""

    WIDTH_MM = 2.0

    def translator(self, **settings: Any) -> Translator:
        return Translator(Alternate(), Grid(1.0, (16, 16)), WindowRule(fixed=(0, 1000)), batch_size=64, **settings)

    def changes(self, scan: Scan, mask: Scan | None = None, **settings: Any) -> tuple[np.ndarray, Result]:
        result = self.translator(**settings)(Inputs(scan, mask=mask))
        return -result.products[1].voxels[8, 8].astype(float), result

    @pytest.fixture
    def block(self) -> np.ndarray:
        block = np.zeros((16, 16, 30), np.int16)
        block[4:12, 4:12, 3:27] = 400
        return block

    def scan_of(self, block: np.ndarray, write_scan: Callable[..., Path], slice_mm: float = 1.0) -> Scan:
        return read_nifti(write_scan(block, affine=np.diag([1.0, 1.0, slice_mm, 1.0])))

    def test_neighbours_agree_and_the_mean_change_stays(
        self, block: np.ndarray, write_scan: Callable[..., Path]
    ) -> None:
        scan = self.scan_of(block, write_scan)
        rough, _ = self.changes(scan)
        smooth, result = self.changes(scan, smooth_mm=self.WIDTH_MM)
        assert np.abs(np.diff(rough[3:27])).min() == 100
        assert np.abs(np.diff(smooth[3:27])).max() < 12
        assert smooth[3:27].mean() == pytest.approx(50, abs=2)
        assert "smoothed across slices by a Gaussian of 2 mm" in " ".join(result.method)

    def test_a_change_that_is_the_same_in_all_slices_is_kept_to_the_ends_of_head_and_slab(
        self, block: np.ndarray, write_scan: Callable[..., Path], make_synthesizer: Make
    ) -> None:
        scan = self.scan_of(block, write_scan)
        synthesizer = make_synthesizer(Brighten(), 1.0, (16, 16))
        expected = synthesizer(scan).stored
        synthesizer.smooth_mm = self.WIDTH_MM
        np.testing.assert_array_equal(synthesizer(scan).stored, expected)

    @pytest.mark.parametrize("slab", [None, Slab(slices=8, thickness_mm=None)])
    def test_nothing_outside_the_edited_region_changes(
        self, slab: Slab | None, block: np.ndarray, write_scan: Callable[..., Path]
    ) -> None:
        scan = self.scan_of(block, write_scan)
        _, result = self.changes(scan, smooth_mm=self.WIDTH_MM, slab=slab)
        assert not result.products[1].voxels[~result.region].any()
        assert result.region.any(axis=(0, 1)).sum() == (24 if slab is None else 8)

    def test_what_the_network_would_change_outside_a_mask_does_not_come_into_it(
        self, block: np.ndarray, write_scan: Callable[..., Path]
    ) -> None:
        mask = np.zeros(block.shape, np.uint8)
        mask[8, 8, 10] = 1
        scan, mask = (
            self.scan_of(block, write_scan, 6.0),
            read_nifti(write_scan(mask, "mask.nii.gz", np.diag([1, 1, 6, 1]))),
        )
        rough, _ = self.changes(scan, mask)
        smooth, result = self.changes(scan, mask, smooth_mm=12.0)
        np.testing.assert_array_equal(smooth, rough)  # the slice above is more than 5 mm away, and is not edited
        assert not result.products[1].voxels[~result.region].any()

    @pytest.mark.parametrize(("slice_mm", "slices"), [(5.0, 30), (4.1, 30), (1.0, 1)])
    def test_thick_slices_and_a_single_one_stay_as_they_are(
        self, slice_mm: float, slices: int, block: np.ndarray, write_scan: Callable[..., Path]
    ) -> None:
        scan = self.scan_of(block[..., 4 : 4 + slices], write_scan, slice_mm)
        rough, _ = self.changes(scan)
        smooth, result = self.changes(scan, smooth_mm=self.WIDTH_MM)
        np.testing.assert_array_equal(smooth, rough)
        assert ("smoothed across" in " ".join(result.method)) == (slice_mm == 1)

    def test_volumes_are_not_smoothed(self, block: np.ndarray, write_scan: Callable[..., Path]) -> None:
        class InOneSlice(nn.Module):
            def forward(self, volume: Tensor) -> Tensor:
                return volume + 0.1 * (torch.arange(volume.shape[2]) % 2)[:, None, None]

        scan = self.scan_of(block, write_scan)
        grid = VolumeGrid(1.0)
        made = [
            Translator(InOneSlice(), grid, WindowRule(fixed=(0, 1000)), smooth_mm=mm)(Inputs(scan)) for mm in (0, 4)
        ]
        np.testing.assert_array_equal(made[0].products[0].voxels, made[1].products[0].voxels)
        assert "smoothed across" not in " ".join(made[1].method)

    def test_is_what_evaluation_measures_and_records_tell(
        self, block: np.ndarray, write_scan: Callable[..., Path]
    ) -> None:
        scan = self.scan_of(block, write_scan)
        translator = self.translator(smooth_mm=self.WIDTH_MM)
        windowed = np.ascontiguousarray(np.moveaxis(block, 2, 0)[3:27, None]) / np.float32(1000)
        residual = translator.residual(windowed, (1.0, 1.0, 1.0))
        made, _ = self.changes(scan, smooth_mm=self.WIDTH_MM)
        np.testing.assert_allclose(residual[:, 8, 8] * 1000, made[3:27], atol=0.51)
        assert (translator.settings["SmoothMm"], translator.joins_slices) == (2.0, True)
        assert not self.translator().joins_slices

    def test_uncertainty_is_that_of_the_smoothed_change(
        self, block: np.ndarray, write_scan: Callable[..., Path]
    ) -> None:
        class Mood(nn.Module):
            """Adds noise to each slice, another in each version of the slices."""

            def forward(self, image: Tensor) -> Tensor:
                seed = int(image.sum() * 100)
                return image + 0.1 * torch.randn(len(image), 1, 1, 1, generator=torch.Generator().manual_seed(seed))

        spread = []
        for width in (0.0, 4.0):
            grid = Grid(1.0, (16, 16))
            translator = Translator(Mood(), grid, WindowRule(fixed=(0, 1000)), batch_size=64, smooth_mm=width)
            translator.uncertainty = True
            result = translator(Inputs(self.scan_of(block, write_scan)))
            (map_,) = (each.voxels for each in result.products if each.name == "uncertainty")
            spread.append(map_[result.region].mean())
        assert 0 < spread[1] < 0.6 * spread[0]

    @pytest.mark.parametrize("width", [-1, 21, float("nan"), True, "2"])
    def test_width_out_of_range_is_refused(self, width: Any) -> None:
        with pytest.raises(UsageError, match=r"smooth_mm: found .*, expected a number from 0 to 20"):
            self.translator(smooth_mm=width)


class TestMask:
    def test_edits_are_confined_to_the_mask_and_fade_over_five_millimetres(
        self, scan: Scan, write_scan: Callable[..., Path], make_synthesizer: Make
    ) -> None:
        mask = np.zeros(scan.shape, np.uint8)
        mask[10, 12, 5] = 1
        twin = make_synthesizer(Brighten())(scan, read_nifti(write_scan(mask, "mask.nii.gz")))
        change = twin.stored.astype(int) - scan.stored
        assert change[10, 12, 5] == 100
        assert change[11, 12, 5] == 80
        assert change[14, 12, 5] == 20
        assert change[15, 12, 5] == 0
        assert not change[~twin.edited].any()

    def test_mask_on_another_grid_is_refused(
        self, scan: Scan, write_scan: Callable[..., Path], make_synthesizer: Make, identity: nn.Module
    ) -> None:
        mask = read_nifti(write_scan(np.eye(24, dtype=np.uint8)[None].repeat(20, 0), "mask.nii.gz"))
        with pytest.raises(
            ScanError, match=r"mask\.nii\.gz: the mask has shape \(20, 24, 24\), expected \(20, 24, 10\)"
        ):
            make_synthesizer(identity)(scan, mask)

    def test_empty_mask_is_refused(
        self, scan: Scan, write_scan: Callable[..., Path], make_synthesizer: Make, identity: nn.Module
    ) -> None:
        mask = read_nifti(write_scan(np.zeros(scan.shape, np.uint8), "mask.nii.gz"), constant_ok=True)
        with pytest.raises(ScanError, match="the mask is empty"):
            make_synthesizer(identity)(scan, mask)


def test_only_a_lesion_that_goes_on_in_slices_outside_the_slab_is_cut_off(scan: Scan, make_synthesizer: Make) -> None:
    class Halve(nn.Module):
        def forward(self, image):
            return image / 2

    synthesizer = make_synthesizer(Halve())
    assert synthesizer(scan).result.warnings == []
    synthesizer.slab = Slab(slices=1, thickness_mm=None)
    (warning,) = synthesizer(scan).result.warnings
    assert "--whole" in warning


def test_volume_smaller_than_the_networks_stride_is_refused(
    write_scan: Callable[..., Path], make_synthesizer: Make, identity: nn.Module
) -> None:
    scan = read_nifti(write_scan(np.arange(27, dtype=np.int16).reshape(3, 3, 3) * 40))
    with pytest.raises(ScanError, match=r"found slices of 3×3 pixels of 1 mm, expected at least 4×4"):
        make_synthesizer(identity)(scan)


def test_scan_darker_than_air_is_refused(
    head: np.ndarray, write_scan: Callable[..., Path], make_synthesizer: Make, identity: nn.Module
) -> None:
    scan = read_nifti(write_scan((head / 800 * 30).astype(np.int16)))
    with pytest.raises(ScanError, match="nothing brighter than air"):
        make_synthesizer(identity)(scan)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_network_that_gives_no_numbers_is_refused(value: float, scan: Scan, make_synthesizer: Make) -> None:
    class Overflow(nn.Module):
        def forward(self, image):
            return torch.where(image > 0.6, value, image)

    with pytest.raises(ScanError, match="the network gave NaN or infinite values, expected numbers"):
        make_synthesizer(Overflow())(scan)


class Sideways(nn.Module):
    """Darkens by what stands to one side: its output of a flipped image is not the flipped output."""

    def forward(self, image: Tensor) -> Tensor:
        return image - 0.3 * image.roll(2, dims=2)


class TestFlipAverage:
    """A scan flipped left to right gets the flipped result."""

    @pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR", "SLP"])
    @pytest.mark.parametrize(
        "grid", [(1.0, (32, 32)), (1.7, (16, 16)), (1.0, (16, 16))], ids=["own", "coarse", "small"]
    )
    def test_exactly(
        self, head: np.ndarray, write_scan: Callable[..., Path], make_synthesizer: Make, axes: str, grid: Any
    ) -> None:
        head = head[1:, :, :]  # an odd number of voxels is padded unevenly
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
        )
        voxels = nib.apply_orientation(head, turn)
        affine = nib.orientations.inv_ornt_aff(turn, head.shape)
        (sideways,) = (axis for axis, code in enumerate(nib.aff2axcodes(affine)) if code in "RL")
        scans = [
            read_nifti(write_scan(each, name, affine))
            for each, name in ((voxels, "scan.nii"), (np.flip(voxels, sideways), "flipped.nii"))
        ]
        synthesizer = make_synthesizer(Sideways(), *grid)
        twin, other = map(synthesizer, scans)
        assert (other.stored != np.flip(twin.stored, sideways)).any()
        synthesizer.flip_average = True
        twin, other = map(synthesizer, scans)
        np.testing.assert_array_equal(other.stored, np.flip(twin.stored, sideways))
        assert twin.anomaly.any()

    def test_says_how_much_the_two_agree(self, scan: Scan, make_synthesizer: Make, darken: nn.Module) -> None:
        agreements = []
        for network in (darken, Sideways()):
            synthesizer = make_synthesizer(network)
            assert not [each for each in synthesizer(scan).result.figures if each.name == "FlipCorrelation"]
            assert "was not measured" in " ".join(synthesizer(scan).result.method)
            synthesizer.flip_average = True
            result = synthesizer(scan).result
            (figure,) = (each for each in result.figures if each.name == "FlipCorrelation")
            assert "averaged with that of the slices flipped" in " ".join(result.method)
            agreements.append(figure)
        assert agreements[0].value == pytest.approx(1, abs=1e-6)
        assert agreements[1].value < 0.9
        changed_ml = (scan.stored > 600).sum() / 1000
        assert f"({changed_ml:.1f} and {changed_ml:.1f} ml" in agreements[0].detail

    def test_of_a_network_that_changes_nothing_has_no_agreement(
        self, scan: Scan, make_synthesizer: Make, identity: nn.Module
    ) -> None:
        synthesizer = make_synthesizer(identity)
        synthesizer.flip_average = True
        (figure,) = (each for each in synthesizer(scan).result.figures if each.name == "FlipCorrelation")
        assert figure.value is None

    def test_is_what_evaluation_measures_and_records_tell(self, make_synthesizer: Make) -> None:
        windowed = np.random.default_rng(0).random((2, 1, 17, 12), dtype=np.float32)
        synthesizer = make_synthesizer(Sideways())
        one_way = synthesizer.residual(windowed, (1.0, 1.0, 1.0))
        mirrored = synthesizer.residual(windowed[:, :, ::-1], (1.0, 1.0, 1.0))[:, ::-1]
        synthesizer.flip_average = True
        np.testing.assert_allclose(synthesizer.residual(windowed, (1.0, 1.0, 1.0)), (one_way + mirrored) / 2, atol=1e-6)
        assert synthesizer.settings["FlipAverage"] is True

    def test_is_on_or_off(self, identity: nn.Module) -> None:
        with pytest.raises(UsageError, match="flip_average: found 'no', expected true or false"):
            Translator(identity, Grid(1.0, (32, 32)), WindowRule(), flip_average="no")
