import math

import pytest
import torch

from pipeline.metrics.healthiness import healthiness, healthiness_per_volume


def slices_with(*counts):
    """One 4×4 mask for each count, with that many lesion pixels."""
    masks = torch.zeros(len(counts), 1, 16)
    for mask, count in zip(masks, counts, strict=True):
        mask[:, :count] = 1
    return masks.reshape(-1, 1, 4, 4)


@pytest.mark.parametrize(
    ("found", "annotated", "expected"),
    [
        ((0, 0), (4, 6), 1.0),
        ((4, 6), (4, 6), 0.0),
        ((1, 2), (4, 8), 0.75),
        ((9, 6), (4, 6), -0.5),
        ((16, 16), (1, 0), -31.0),
    ],
)
def test_is_one_minus_the_ratio_of_lesion_sizes_and_is_never_clipped(found, annotated, expected):
    assert healthiness(slices_with(*found), slices_with(*annotated)) == expected


def test_is_pooled_over_slices_and_not_a_mean_of_their_values():
    # slice by slice 1 − 1/1 = 0 and 1 − 0/9 = 1, whose mean would be 0.5
    assert healthiness(slices_with(1, 0), slices_with(1, 9)) == pytest.approx(0.9)


def test_where_the_lesion_is_found_does_not_matter():
    lesion = slices_with(4)
    assert healthiness(lesion.flip(-2), lesion) == healthiness(lesion, lesion) == 0


def test_bool_and_number_masks_count_alike():
    found, annotated = slices_with(2, 3), slices_with(5, 5)
    assert healthiness(found.bool(), annotated) == healthiness(found, annotated.int()) == 0.5


def test_is_undefined_without_any_annotated_lesion():
    assert math.isnan(healthiness(slices_with(3), slices_with(0)))
    assert math.isnan(healthiness(slices_with(0), slices_with(0)))


def test_counts_more_pixels_than_float32_can_add_one_by_one():
    lesion = torch.ones(1, 1, 4097, 4096)
    found = lesion.clone()
    found[0, 0, 0, 0] = 0
    assert healthiness(found, lesion) == 1 - (4097 * 4096 - 1) / (4097 * 4096)


def test_each_volume_has_its_own_value():
    found = slices_with(1, 3, 2, 9, 0)
    annotated = slices_with(4, 0, 4, 6, 0)
    values = healthiness_per_volume(found, annotated, ["b", "clean", "b", "a", "clean"])
    assert list(values) == ["b", "clean", "a"]
    assert values["b"] == 1 - 3 / 8
    assert values["a"] == -0.5
    assert math.isnan(values["clean"])


def test_pooled_healthiness_weighs_volumes_by_their_lesion():
    found, annotated = slices_with(1, 3), slices_with(2, 12)
    values = healthiness_per_volume(found, annotated, ["a", "b"])
    assert healthiness(found, annotated) == pytest.approx((2 * values["a"] + 12 * values["b"]) / 14)


def test_masks_of_different_slices_are_refused():
    with pytest.raises(ValueError, match=r"same shape, got \(1, 1, 4, 4\) and \(2, 1, 4, 4\)"):
        healthiness(slices_with(1), slices_with(1, 2))


def test_each_slice_needs_the_name_of_its_volume():
    with pytest.raises(ValueError, match="got 1 names for 2 slices"):
        healthiness_per_volume(slices_with(1, 2), slices_with(1, 2), ["a"])
