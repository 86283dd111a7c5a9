"""A scan: validated once, placed in space, seen as axial slices whatever its orientation."""

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import ScanError
from pipeline.scans import Scan, check_same_grid, on_grid_of

ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*axes)
]  # fmt: skip


def a_scan(
    stored: NDArray[np.generic] | None = None,
    affine: NDArray[np.float64] | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> Scan:
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4) if stored is None else stored
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_sform(np.eye(4) if affine is None else affine, code=1)
    return Scan(stored, slope, intercept, header, Path("a.nii.gz"))


def oriented(letters: str, spacing_mm: tuple[float, float, float], degrees: float = 0.0) -> NDArray[np.float64]:
    """An affine whose file axes point to `letters`, tilted by `degrees` about two axes."""
    swaps = nib.orientations.axcodes2ornt(tuple(letters))
    affine = np.eye(4)
    for axis, (world, flip) in enumerate(swaps):
        affine[:3, axis] = 0
        affine[int(world), axis] = flip * spacing_mm[axis]
    affine[:3, :3] = Rotation.from_euler("xz", [degrees, degrees], degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = (-12.5, 7, 31)
    return affine


class TestAxialView:
    @pytest.mark.parametrize("degrees", [0, 17])
    @pytest.mark.parametrize("letters", ORIENTATIONS)
    def test_axes_run_inferior_to_superior_left_to_right_posterior_to_anterior(
        self, letters: str, degrees: float
    ) -> None:
        scan = a_scan(affine=oriented(letters, (0.7, 1.1, 5.0), degrees))
        places = np.stack(np.meshgrid(*map(np.arange, scan.shape), indexing="ij"), axis=-1)
        right, anterior, superior = (
            scan.axial(world) for world in np.moveaxis(apply_affine(scan.affine, places), 3, 0)
        )
        assert (np.diff(superior, axis=0) > 0).all()
        assert (np.diff(right, axis=1) > 0).all()
        assert (np.diff(anterior, axis=2) > 0).all()

    @pytest.mark.parametrize("letters", ORIENTATIONS)
    def test_what_is_written_into_the_view_lands_in_the_array(self, letters: str) -> None:
        scan = a_scan(affine=oriented(letters, (1, 2, 3)))
        voxels = np.zeros(scan.shape, np.float32)
        scan.axial(voxels)[:] = scan.axial(scan.stored)
        np.testing.assert_array_equal(voxels, scan.stored)

    @pytest.mark.parametrize("letters", ORIENTATIONS)
    def test_spacing_follows_the_axes_of_the_view(self, letters: str) -> None:
        by_world = {"L": 0.5, "R": 0.5, "P": 0.75, "A": 0.75, "I": 4.0, "S": 4.0}
        scan = a_scan(affine=oriented(letters, tuple(by_world[letter] for letter in letters), 10))  # type: ignore[arg-type]
        assert scan.axial_spacing_mm == pytest.approx((4.0, 0.5, 0.75), rel=1e-5)


class TestIntensities:
    def test_are_stored_values_by_slope_and_intercept(self) -> None:
        scan = a_scan(np.array([[[0, 100]]], np.int16), slope=0.5, intercept=-1024.0)
        assert scan.intensities().dtype == np.float32
        assert scan.intensities().tolist() == [[[-1024.0, -974.0]]]

    def test_are_a_copy(self) -> None:
        scan = a_scan(np.zeros((2, 2, 2), np.float32))
        scan.intensities()[:] = 7
        assert not scan.stored.any()


class TestRefused:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_voxels_that_are_not_finite_are_counted(self, value: float) -> None:
        stored = np.ones((2, 3, 4), np.float32)
        stored[0, 0, :2] = value
        with pytest.raises(ScanError, match=r"a\.nii\.gz: found 2 voxels that are NaN or infinite, expected finite"):
            a_scan(stored)

    def test_intensities_beyond_32_bit_floats(self) -> None:
        with pytest.raises(ScanError, match="1e\\+300, expected ones that a 32-bit float can hold"):
            a_scan(np.full((2, 2, 2), 1e300))
        with pytest.raises(ScanError, match="32-bit float"):
            a_scan(np.full((2, 2, 2), 30000, np.int16), slope=1e36)

    @pytest.mark.parametrize("shape", [(4, 4), (2, 2, 2, 2), (0, 3, 3)])
    def test_arrays_that_are_no_volume(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ScanError, match="expected a volume with three axes"):
            a_scan(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize(
        "diagonal",
        [(0, 0, 0, 1), (1, 1, 0, 1), (1e6, 1, 1, 1), (1, 1e-5, 1, 1), (np.nan, 1, 1, 1), (1, np.inf, 1, 1)],
    )
    def test_affines_that_place_voxels_nowhere(self, diagonal: tuple[float, ...]) -> None:
        with pytest.raises(ScanError, match=r"a\.nii\.gz: found an affine .*repair the header's qform or sform"):
            a_scan(affine=np.diag(diagonal))

    def test_axes_that_lie_in_one_plane(self) -> None:
        flat = np.eye(4)
        flat[:3, 2] = (1, 1, 0)
        with pytest.raises(ScanError, match="invertible"):
            a_scan(affine=flat)


class TestSameGrid:
    def test_rounding_of_the_header_is_no_difference(self) -> None:
        affine = oriented("LPS", (0.4883, 0.4883, 5), 12)
        check_same_grid(a_scan(affine=affine), a_scan(affine=affine + 1e-4), "mask")

    def test_other_shape_is_named(self) -> None:
        expected = r"the mask has shape \(2, 3, 5\), expected \(2, 3, 4\); resample it onto the grid of a\.nii\.gz"
        with pytest.raises(ScanError, match=expected):
            check_same_grid(a_scan(), a_scan(np.zeros((2, 3, 5), np.uint8)), "mask")

    def test_distance_is_named(self) -> None:
        moved = np.eye(4)
        moved[0, 3] = 1.5
        with pytest.raises(ScanError, match=r"the healthy truth lies up to 1\.5 mm away from the scan"):
            check_same_grid(a_scan(), a_scan(affine=moved), "healthy truth")

    def test_same_box_flipped_is_another_grid(self) -> None:
        flipped = np.diag([-1.0, 1, 1, 1])
        flipped[0, 3] = 1  # the same two voxels along x, in the other order
        with pytest.raises(ScanError, match="lies up to 1 mm away"):
            check_same_grid(a_scan(), a_scan(affine=flipped), "mask")


class TestOnGridOf:
    """A mask whose voxels are the scan's, counted from other ends: dcm2niix turns the rows of a DICOM series over."""

    @pytest.fixture
    def oblique(self) -> NDArray[Any]:
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", [12, -7, 5], degrees=True).as_matrix() * [0.9, 1.1, 3.0]
        affine[:3, 3] = -40, 20, 7
        return affine

    def scan(self, voxels: NDArray[Any], affine: NDArray[Any]) -> Scan:
        header = nib.Nifti1Header()
        header.set_data_shape(voxels.shape)
        header.set_sform(affine, 1)
        return Scan(voxels, 1.0, 0.0, header, Path("mask.nii"))

    @pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
    @pytest.mark.parametrize("flips", list(itertools.product([1, -1], repeat=3)))
    def test_every_turn_and_swap_of_axes_is_undone(
        self, axes: tuple[int, ...], flips: tuple[int, ...], oblique: NDArray[Any]
    ) -> None:
        voxels = np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(np.uint8)
        scan = self.scan(voxels, oblique)
        turn = np.array([axes, flips], dtype=float).T
        affine = oblique @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
        other = self.scan(nib.apply_orientation(voxels, turn), affine)
        found = on_grid_of(scan, other)
        np.testing.assert_array_equal(found.stored, voxels)
        check_same_grid(scan, found, "mask")

    def test_another_grid_is_left_as_it_is(self, oblique: NDArray[Any]) -> None:
        scan = self.scan(np.arange(120).reshape(4, 5, 6), oblique)
        shifted = oblique.copy()
        shifted[0, 3] += 0.5
        for other in (self.scan(scan.stored, shifted), self.scan(scan.stored[1:], oblique)):
            assert on_grid_of(scan, other) is other
            with pytest.raises(ScanError, match="the mask"):
                check_same_grid(scan, on_grid_of(scan, other), "mask")
