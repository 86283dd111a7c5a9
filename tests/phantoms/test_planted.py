"""Lesions planted in a scan: where, how large, of which shape, and that the truth is the scan."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pipeline.errors import ScanError
from pipeline.phantoms import brain_phantom
from pipeline.phantoms.planted import BURDENS, Planted, Shape, plant, shapes_of
from pipeline.preprocessing.holes import MARGIN_MM
from pipeline.scans import Scan

pytestmark = pytest.mark.slow

VOXEL_ML = 2 * 2 * 5 / 1000


def ball(radius: int) -> Shape:
    axes = np.indices((2 * radius + 1,) * 3) - radius
    return Shape((axes**2).sum(axis=0) <= radius**2, (1.0, 1.0, 1.0), f"ball-{radius}")


SHAPES = [ball(radius) for radius in (2, 4, 9, 16, 24)]


@pytest.fixture(scope="module")
def host() -> Scan:
    phantom = brain_phantom(0)
    header = nib.Nifti1Image(phantom.healthy, phantom.affine).header
    return Scan(phantom.healthy, 1.0, 0.0, header, Path("host.nii.gz"))


@pytest.fixture(scope="module")
def own(host: Scan) -> np.ndarray:
    """The host's own disease: a block on its right."""
    disease = np.zeros(host.shape, bool)
    disease[50:62, 40:60, 8:14] = True
    return disease & (host.stored > 0)


@pytest.fixture(scope="module")
def planted(host: Scan, own: np.ndarray) -> list[Planted]:
    """One of each burden."""
    return [plant(host, own, SHAPES, turn, np.random.default_rng(turn)) for turn in range(len(BURDENS))]


def test_the_scan_changes_in_the_lesions_only_and_keeps_its_data_type(host: Scan, planted: list[Planted]) -> None:
    for each in planted:
        changed = each.image != host.stored
        assert not (changed & ~each.lesion).any()
        assert changed[each.lesion].mean() > 0.9
        assert each.image.dtype == host.stored.dtype


def test_lesions_lie_in_the_brain_away_from_its_own_disease(
    host: Scan, own: np.ndarray, planted: list[Planted]
) -> None:
    apart_mm = ndimage.distance_transform_edt(~own, sampling=host.spacing_mm)
    for each in planted:
        assert (host.stored[each.lesion] > 0).all()
        assert (apart_mm[each.lesion] > MARGIN_MM).all()


def test_sizes_reach_from_punctate_to_a_third_of_a_hemisphere(planted: list[Planted]) -> None:
    sizes = [[plant.ml for plant in each.plants] for each in planted]
    for (count, least, most), found in zip(BURDENS, sizes, strict=True):
        assert 1 <= len(found) <= count
        assert min(found) > 0.6 * least
        # Of few voxels, no size is exact.
        assert most is None or max(found) < 1.3 * most + 4 * VOXEL_ML
    assert max(sizes[4]) > 50


def test_no_crumbs_are_left_of_a_lesion_that_is_cut_at_the_brain_s_edge(planted: list[Planted]) -> None:
    for each in planted:
        labels, _ = ndimage.label(each.lesion, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel())[1:] * VOXEL_ML
        assert sizes.min() > 0.15 * min(plant.ml for plant in each.plants)


def test_the_record_tells_volume_shape_and_look_of_each_lesion(planted: list[Planted]) -> None:
    for each in planted:
        _, count = ndimage.label(each.lesion, structure=np.ones((3, 3, 3)))
        assert count >= len(each.plants)
        assert sum(plant.ml for plant in each.plants) == pytest.approx(each.lesion.sum() * VOXEL_ML)
        for plant_ in each.plants:
            record = plant_.record()
            assert record["shape"] in {shape.subject for shape in SHAPES}
            assert record["push_mm"] == record["reach_mm"] == 0


def test_the_same_seed_gives_the_same_lesions_and_another_gives_others(host: Scan, planted: list[Planted]) -> None:
    again = plant(host, None, SHAPES, 2, np.random.default_rng(5))
    same, other = (plant(host, None, SHAPES, 2, np.random.default_rng(seed)) for seed in (5, 6))
    np.testing.assert_array_equal(again.image, same.image)
    assert (again.lesion != other.lesion).any()


def test_with_mass_effect_a_margin_moves_too_and_nothing_beyond(host: Scan, own: np.ndarray) -> None:
    each = plant(host, own, SHAPES, 3, np.random.default_rng(3), mass_effect=True)
    (only,) = each.plants
    apart_mm = ndimage.distance_transform_edt(~each.lesion, sampling=host.spacing_mm)
    changed = each.image != host.stored
    assert only.push_mm > 1
    assert changed[(apart_mm > 0) & (apart_mm < only.reach_mm)].any()
    assert not changed[apart_mm > only.reach_mm].any()
    assert not changed[own].any()
    assert not changed[host.stored == 0].any()


def test_values_beyond_the_data_type_become_its_limit(host: Scan) -> None:
    brightest = 255 / float(host.stored.max())
    narrow = replace(host, stored=np.rint(host.stored * brightest).astype(np.uint8))
    images = [plant(narrow, None, SHAPES, 3, np.random.default_rng(seed)) for seed in range(6)]
    assert all(each.image.dtype == np.uint8 for each in images)
    # Wrapped around, the brightest would be dark as air amid bright ones.
    assert all((each.image[each.lesion] > 5).mean() > 0.98 for each in images)


def test_stored_units_are_kept(host: Scan) -> None:
    scaled = replace(host, stored=(host.stored * 2 + 100).astype(np.int16), slope=0.5, intercept=-50.0)
    plain, other = (plant(scan, None, SHAPES, 2, np.random.default_rng(1)) for scan in (host, scaled))
    np.testing.assert_array_equal(plain.lesion, other.lesion)
    np.testing.assert_allclose(other.image * 0.5 - 50, plain.image, atol=1)


def test_without_room_it_is_refused(host: Scan) -> None:
    everywhere = host.stored > 0
    with pytest.raises(ScanError, match=r"host\.nii\.gz: has no room for another lesion"):
        plant(host, everywhere, SHAPES, 3, np.random.default_rng(0))


def test_shapes_are_the_lesions_of_a_mask_with_their_voxels_in_mm(host: Scan) -> None:
    lesion = np.zeros(host.shape, bool)
    lesion[10:14, 20:22, 5:8] = True
    lesion[60, 60, 10] = True
    (shape,) = shapes_of(host, lesion, "sub-x")
    assert (shape.voxels.shape, shape.spacing_mm, shape.subject) == ((3, 4, 2), (5.0, 2.0, 2.0), "sub-x")
    assert shape.ml == pytest.approx(24 * VOXEL_ML)
