"""The lesion mask that belongs to a scan, by names alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cohorts.masks import find_masks
from pipeline.errors import UsageError
from pipeline.scans.sources import Source

Touch = Callable[..., Path]
MANUAL = "derivatives/manual"


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """Empty files in a dataset, which is returned."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def scan(dataset: Path, name: str) -> Source:
    """A raw scan of a dataset, by its name."""
    session = "/".join(part for part in name.split("_") if part.startswith(("sub-", "ses-")))
    return Source(dataset / session / "anat" / f"{name}.nii.gz", name, "nifti", dataset)


class TestInADataset:
    @pytest.mark.parametrize(
        "mask",
        [
            "sub-01/anat/sub-01_label-lesion_mask.nii.gz",
            "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz",
            "sub-01/anat/sub-01_label-lesion_roi.nii",
            "derivatives/manual/sub-01/anat/sub-01_run-2_desc-lesion_mask.nii.gz",
            "derivatives/lst/sub-01/sub-01_label-WMH_mask.nii.gz",
            "derivatives/sub-01/anat/sub-01_run-2_T1w_desc-T1lesion_mask.nii.gz",
        ],
    )
    def test_a_mask_lies_beside_the_scan_or_in_any_derivative(self, touch: Touch, mask: str) -> None:
        source = scan(touch(mask), "sub-01_run-2_T1w")
        found = find_masks([source])
        assert found.masks == {source: source.dataset / mask}  # type: ignore[operator]
        assert (found.sources, found.without) == ([source], [])

    @pytest.mark.parametrize(
        "mask",
        [
            "sub-01_run-1_label-lesion_mask",
            "sub-01_FLAIR_label-lesion_roi",
            "sub-01_space-MNI152NLin2009cAsym_label-lesion_mask",
            "sub-01_desc-brain_mask",
            "sub-01_label-lesion_dseg",
            "sub-010_label-lesion_mask",
        ],
    )
    def test_what_is_of_another_scan_or_no_lesion_mask_is_none(self, touch: Touch, mask: str) -> None:
        folder = touch(f"{MANUAL}/sub-01/anat/{mask}.nii.gz", f"{MANUAL}/sub-02/anat/sub-02_label-lesion_mask.nii.gz")
        sources = [scan(folder, "sub-01_run-2_T1w"), scan(folder, "sub-02_T1w")]
        found = find_masks(sources)
        assert (found.sources, found.without) == ([sources[1]], [sources[0]])

    def test_sessions_keep_their_masks(self, touch: Touch) -> None:
        names = ["sub-01_ses-1", "sub-01_ses-2"]
        folder = touch(*(f"{MANUAL}/{name.replace('_', '/')}/anat/{name}_label-lesion_mask.nii.gz" for name in names))
        found = find_masks([scan(folder, f"{name}_T1w") for name in names])
        assert [path.name.partition("_label")[0] for path in found.masks.values()] == names

    def test_the_mask_whose_name_says_most_is_taken(self, touch: Touch) -> None:
        place = f"{MANUAL}/sub-01/anat"
        folder = touch(f"{place}/sub-01_label-lesion_mask.nii.gz", f"{place}/sub-01_acq-b_label-lesion_mask.nii.gz")
        masks = find_masks([scan(folder, "sub-01_acq-b_T1w"), scan(folder, "sub-01_acq-a_T1w")]).masks
        assert [path.name.partition("_label")[0] for path in masks.values()] == ["sub-01_acq-b", "sub-01"]

    def test_two_masks_of_one_scan_are_its_fault_and_both_are_named(self, touch: Touch) -> None:
        two = [f"derivatives/{rater}/sub-01/anat/sub-01_label-lesion_mask.nii.gz" for rater in "ab"]
        found = find_masks([scan(touch(*two), "sub-01_T1w")])
        assert (found.masks, found.without) == ({}, [])
        (source,) = found.sources
        assert source.fault is not None
        assert all(name in source.fault for name in two)

    def test_what_a_network_of_ours_found_was_not_drawn(self, touch: Touch) -> None:
        drawn = "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
        ours = "derivatives/ours/sub-01/anat/sub-01_label-lesion_desc-T1w_mask"
        folder = touch(drawn, f"{ours}.nii.gz")
        (folder / f"{ours}.json").write_text(json.dumps({"SyntheticData": True}))
        (mask,) = find_masks([scan(folder, "sub-01_T1w")]).masks.values()
        assert mask == folder / drawn


class TestInAFolder:
    @pytest.mark.parametrize(
        ("name", "mask"),
        [
            ("patient07_t1", "patient07_lesion.nii.gz"),
            ("volume", "volume.nii.gz"),
            ("sub-01_ses-1_T1w", "sub-01_ses-1_T1w.nii.gz"),
            ("sub-01_ses-1_T1w", "sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz"),
        ],
    )
    def test_masks_are_named_after_the_scans(self, touch: Touch, name: str, mask: str) -> None:
        source = Source(Path(f"{name}.nii.gz"), name, "nifti")
        assert find_masks([source], touch(f"masks/{mask}") / "masks").masks[source].name == Path(mask).name

    def test_what_segment_found_is_taken_for_the_scan_that_it_is_of(self, touch: Touch) -> None:
        masks = [f"sub-01/anat/sub-01_label-lesion_desc-{suffix}_mask.nii.gz" for suffix in ("FLAIR", "T1w")]
        folder = touch(*(f"segmented/{mask}" for mask in masks))
        (found,) = find_masks([scan(folder, "sub-01_T1w")], folder / "segmented").masks.values()
        assert found.name == Path(masks[1]).name

    def test_the_folder_of_the_scans_holds_their_masks_too(self, touch: Touch) -> None:
        folder = touch("patient07_t1.nii.gz", "patient07_lesion.nii.gz")
        source = Source(folder / "patient07_t1.nii.gz", "patient07_t1", "nifti")
        assert find_masks([source], folder).masks == {source: folder / "patient07_lesion.nii.gz"}


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (None, "found no lesion mask of it in its dataset"),
        ("gone", "gone: found no folder"),
        (".", "nor one of any other scan"),
        ("derivatives", "holds no lesion mask"),
    ],
)
def test_where_no_scan_has_a_mask_nothing_is_started(touch: Touch, masks: str | None, said: str) -> None:
    folder = touch("sub-01/anat/sub-01_T1w.nii.gz", "derivatives/x/sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    with pytest.raises(UsageError, match=said):
        find_masks([scan(folder, "sub-01_T1w")], masks and folder / masks)  # type: ignore[arg-type]


def test_a_scan_outside_any_dataset_needs_a_mask_that_is_named() -> None:
    with pytest.raises(UsageError, match="expected --mask FILE or --masks DIR"):
        find_masks([Source(Path("volume.nii.gz"), "volume", "nifti")])
