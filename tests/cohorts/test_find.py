"""Cohorts as researchers have them on disk, and what is said about each scan that cannot be used.

Images in the trees are empty files: finding cases must never open them.
"""

import json
from pathlib import Path

import pytest

from pipeline.cohorts import LAYOUTS, Case, FoundCases, find_cases
from pipeline.errors import UsageError


def lay(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def subjects(found: FoundCases) -> list[str]:
    return [case.subject for case in found.cases]


def mask_names(found: FoundCases) -> list[str]:
    return [case.mask.name for case in found.cases if case.mask]


def problems(found: FoundCases) -> dict[str, str]:
    return {problem.subject: problem.reason for problem in found.problems}


class TestBids:
    def test_image_is_joined_with_the_mask_of_its_subject(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "dataset_description.json",
            "sub-02/anat/sub-02_FLAIR.nii.gz",
            "sub-02/anat/sub-02_T1w.nii.gz",
            "derivatives/manual/sub-02/anat/sub-02_label-lesion_mask.nii.gz",
            "sub-01/anat/sub-01_FLAIR.nii",
            "derivatives/manual/sub-01/anat/sub-01_desc-lesion_mask.nii",
        )
        found = find_cases(tmp_path)
        assert (found.layout, found.problems) == ("bids", [])
        assert found.cases == [
            Case(
                subject="sub-01",
                image=tmp_path / "sub-01/anat/sub-01_FLAIR.nii",
                mask=tmp_path / "derivatives/manual/sub-01/anat/sub-01_desc-lesion_mask.nii",
                patient="sub-01",
            ),
            Case(
                subject="sub-02",
                image=tmp_path / "sub-02/anat/sub-02_FLAIR.nii.gz",
                mask=tmp_path / "derivatives/manual/sub-02/anat/sub-02_label-lesion_mask.nii.gz",
                patient="sub-02",
            ),
        ]

    def test_sessions_are_cases_of_one_patient(self, tmp_path: Path) -> None:
        for session in ("01", "02"):
            lay(
                tmp_path,
                f"sub-a/ses-{session}/anat/sub-a_ses-{session}_FLAIR.nii.gz",
                f"derivatives/manual/sub-a/ses-{session}/anat/sub-a_ses-{session}_label-lesion_mask.nii.gz",
            )
        found = find_cases(tmp_path)
        assert subjects(found) == ["sub-a_ses-01", "sub-a_ses-02"]
        assert [case.patient for case in found.cases] == ["sub-a", "sub-a"]
        assert mask_names(found) == [
            "sub-a_ses-01_label-lesion_mask.nii.gz",
            "sub-a_ses-02_label-lesion_mask.nii.gz",
        ]

    def test_modality_is_the_suffix_in_any_case(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        )
        (case,) = find_cases(tmp_path, modality="t1W").cases
        assert case.image.name == "sub-01_ce-gadolinium_T1w.nii.gz"

    def test_plain_image_is_taken_before_other_runs(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "sub-01/anat/sub-01_acq-fast_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        )
        (case,) = find_cases(tmp_path).cases
        assert case.image.name == "sub-01_FLAIR.nii.gz"

    def test_several_runs_without_a_plain_one_are_not_guessed(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_run-1_FLAIR.nii.gz",
            "sub-01/anat/sub-01_run-2_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        )
        found = find_cases(tmp_path)
        assert found.cases == []
        assert "sub-01_run-1_FLAIR.nii.gz" in problems(found)["sub-01"]
        assert "sub-01_run-2_FLAIR.nii.gz" in problems(found)["sub-01"]

    def test_mask_with_the_entities_of_the_image_is_taken(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_acq-b_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_acq-b_label-lesion_mask.nii.gz",
        )
        assert mask_names(find_cases(tmp_path)) == ["sub-01_acq-b_label-lesion_mask.nii.gz"]

    def test_masks_of_two_pipelines_are_not_guessed(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
            "derivatives/automatic/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        )
        found = find_cases(tmp_path)
        assert found.cases == []
        assert "manual" in problems(found)["sub-01"]
        assert "automatic" in problems(found)["sub-01"]

    def test_other_masks_are_no_lesion_masks(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "derivatives/bet/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        )
        assert mask_names(find_cases(tmp_path)) == ["sub-01_label-lesion_mask.nii.gz"]

    def test_truth_of_a_phantom_has_the_suffix_of_the_image(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
            "derivatives/truth/sub-01/anat/sub-01_desc-healthy_FLAIR.nii.gz",
            "derivatives/truth/sub-01/anat/sub-01_desc-healthy_T1w.nii.gz",
            "derivatives/truth/sub-01/anat/sub-01_desc-bias_FLAIR.nii.gz",
        )
        (case,) = find_cases(tmp_path).cases
        assert case.truth == tmp_path / "derivatives/truth/sub-01/anat/sub-01_desc-healthy_FLAIR.nii.gz"

    def test_what_to_ignore_is_found_and_is_no_lesion_mask(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
            "derivatives/ignore/sub-01/anat/sub-01_label-ignore_mask.nii.gz",
        )
        found = find_cases(tmp_path)
        assert mask_names(found) == ["sub-01_label-lesion_mask.nii.gz"]
        assert found.cases[0].ignore == tmp_path / "derivatives/ignore/sub-01/anat/sub-01_label-ignore_mask.nii.gz"

    def test_scan_without_mask_and_mask_without_scan_are_reported_and_the_rest_is_used(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "sub-02/anat/sub-02_T1w.nii.gz",
            "derivatives/manual/sub-02/anat/sub-02_label-lesion_mask.nii.gz",
            "derivatives/manual/sub-03/anat/sub-03_label-lesion_mask.nii.gz",
            "sub-04/anat/sub-04_FLAIR.nii.gz",
            "derivatives/manual/sub-04/anat/sub-04_label-lesion_mask.nii.gz",
        )
        found = find_cases(tmp_path)
        assert subjects(found) == ["sub-04"]
        assert "no lesion mask" in problems(found)["sub-01"]
        assert "derivatives/<pipeline>/sub-01/anat/sub-01_label-lesion_mask.nii.gz" in problems(found)["sub-01"]
        assert "found sub-02_T1w.nii.gz but expected anat/sub-02_FLAIR.nii.gz" in problems(found)["sub-02"]
        assert "mask has no image" in problems(found)["sub-03"]

    def test_cohort_without_any_mask_is_still_recognised(self, tmp_path: Path) -> None:
        lay(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz")
        found = find_cases(tmp_path)
        assert found.layout == "bids"
        assert "no lesion mask" in problems(found)["sub-01"]

    def test_link_to_content_that_was_never_fetched_is_reported(self, tmp_path: Path) -> None:
        lay(tmp_path, "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
        (tmp_path / "sub-01/anat").mkdir(parents=True)
        (tmp_path / "sub-01/anat/sub-01_FLAIR.nii.gz").symlink_to(".git/annex/objects/absent")
        assert "broken link" in problems(find_cases(tmp_path))["sub-01"]

    def test_hidden_and_unfinished_files_are_left_out(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "sub-01/anat/sub-01_acq-b_FLAIR.nii.gz",
            "sub-01/anat/._sub-01_acq-b_FLAIR.nii.gz",
            "sub-01/anat/.partial-0a1b2c3d-sub-01_acq-b_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_acq-b_label-lesion_mask.nii.gz",
            "derivatives/.trash/sub-01/anat/sub-01_acq-b_label-lesion_mask.nii.gz",
        )
        found = find_cases(tmp_path)
        assert (subjects(found), found.problems) == (["sub-01"], [])

    def test_order_is_that_of_the_subjects(self, tmp_path: Path) -> None:
        for number in (3, 1, 2):
            lay(
                tmp_path,
                f"sub-{number}/anat/sub-{number}_FLAIR.nii.gz",
                f"derivatives/manual/sub-{number}/anat/sub-{number}_label-lesion_mask.nii.gz",
            )
        assert subjects(find_cases(tmp_path)) == ["sub-1", "sub-2", "sub-3"]


class TestBrats:
    @pytest.mark.parametrize(
        ("asked", "until_2020", "from_2023"),
        [
            (None, "flair", "t2f"),
            ("FLAIR", "flair", "t2f"),
            ("t2f", "flair", "t2f"),
            ("t1", "t1", "t1n"),
            ("t1n", "t1", "t1n"),
            ("t1ce", "t1ce", "t1c"),
            ("T1c", "t1ce", "t1c"),
            ("t2", "t2", "t2w"),
        ],
    )
    def test_modality_of_either_convention_reads_both(
        self, tmp_path: Path, asked: str | None, until_2020: str, from_2023: str
    ) -> None:
        lay(tmp_path, *(f"A_1/A_1_{part}.nii.gz" for part in ("flair", "t1", "t1ce", "t2", "seg")))
        lay(tmp_path, *(f"B-1/B-1-{part}.nii.gz" for part in ("t2f", "t1n", "t1c", "t2w", "seg")))
        found = find_cases(tmp_path, modality=asked)
        assert (found.layout, found.problems) == ("brats", [])
        assert [case.image.name for case in found.cases] == [
            f"A_1_{until_2020}.nii.gz",
            f"B-1-{from_2023}.nii.gz",
        ]
        assert mask_names(found) == ["A_1_seg.nii.gz", "B-1-seg.nii.gz"]
        assert {case.lesion_labels for case in found.cases} == {None}  # whole tumour is any label

    def test_grades_of_2018_lie_one_folder_deeper(self, tmp_path: Path) -> None:
        lay(tmp_path, "HGG/Brats18_2/Brats18_2_flair.nii.gz", "HGG/Brats18_2/Brats18_2_seg.nii.gz")
        lay(tmp_path, "LGG/Brats18_1/Brats18_1_flair.nii.gz", "LGG/Brats18_1/Brats18_1_seg.nii.gz")
        found = find_cases(tmp_path)
        assert subjects(found) == ["Brats18_1", "Brats18_2"]
        assert [case.patient for case in found.cases] == ["Brats18_1", "Brats18_2"]

    def test_time_points_of_2023_are_one_patient(self, tmp_path: Path) -> None:
        for name in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"):
            lay(tmp_path, f"{name}/{name}-t2f.nii.gz", f"{name}/{name}-seg.nii.gz")
        found = find_cases(tmp_path)
        assert subjects(found) == ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"]
        assert [case.patient for case in found.cases] == [
            "BraTS-GLI-00005",
            "BraTS-GLI-00005",
            "BraTS-GLI-00006",
        ]

    def test_missing_mask_or_image_is_reported(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "A/A_flair.nii.gz",
            "A/A_seg.nii.gz",
            "B/B_flair.nii.gz",
            "C/C_t1.nii.gz",
            "C/C_seg.nii.gz",
        )
        found = find_cases(tmp_path)
        assert subjects(found) == ["A"]
        assert "B_seg.nii.gz" in problems(found)["B"]
        assert "found C_t1.nii.gz but expected C_flair.nii.gz" in problems(found)["C"]

    def test_same_id_in_two_groups_is_reported_and_used_once(self, tmp_path: Path) -> None:
        for group in ("HGG", "LGG"):
            lay(tmp_path, f"{group}/A/A_flair.nii.gz", f"{group}/A/A_seg.nii.gz")
        found = find_cases(tmp_path)
        assert [case.image for case in found.cases] == [tmp_path / "HGG/A/A_flair.nii.gz"]
        assert str(tmp_path / "LGG/A/A_flair.nii.gz") in problems(found)["A"]

    def test_unknown_modality_names_the_known_ones(self, tmp_path: Path) -> None:
        lay(tmp_path, "A/A_flair.nii.gz", "A/A_seg.nii.gz")
        with pytest.raises(UsageError, match=r"swi: no modality of BraTS, .* flair, t2f"):
            find_cases(tmp_path, modality="swi")

    def test_names_alike_without_seg_are_not_brats(self, tmp_path: Path) -> None:
        lay(tmp_path, "patient07/patient07_flair.nii.gz", "patient07/patient07_lesion.nii.gz")
        with pytest.raises(UsageError, match="no known layout"):
            find_cases(tmp_path)


class TestIsles:
    def test_siss_2015(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "1/VSD.Brain.XX.O.MR_Flair.70613/VSD.Brain.XX.O.MR_Flair.70613.nii",
            "1/VSD.Brain.XX.O.MR_DWI.70612/VSD.Brain.XX.O.MR_DWI.70612.nii",
            "1/VSD.Brain_3more.XX.XX.OT.70616/VSD.Brain_3more.XX.XX.OT.70616.nii",
            "1/VSD.Brain_3more.XX.XX.OT.70616/license.txt",
        )
        found = find_cases(tmp_path)
        assert (found.layout, found.problems) == ("isles", [])
        (case,) = found.cases
        assert (case.subject, case.patient) == ("1", "1")
        assert case.image.name == "VSD.Brain.XX.O.MR_Flair.70613.nii"
        assert mask_names(found) == ["VSD.Brain_3more.XX.XX.OT.70616.nii"]
        (case,) = find_cases(tmp_path, modality="dwi").cases
        assert case.image.name == "VSD.Brain.XX.O.MR_DWI.70612.nii"

    def test_siss_2015_testing_cases_without_mask_leave_training_cases_of_the_same_number(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "Testing/1/VSD.Brain.XX.O.MR_Flair.1/a.nii",
            "Training/1/VSD.Brain.XX.O.MR_Flair.2/a.nii",
            "Training/1/VSD.Brain.XX.O.OT.3/a.nii",
        )
        found = find_cases(tmp_path)
        assert [case.image for case in found.cases] == [tmp_path / "Training/1/VSD.Brain.XX.O.MR_Flair.2/a.nii"]
        assert "Testing/1" in problems(found)["1"]

    def test_siss_2015_missing_sequence_is_reported_with_those_present(self, tmp_path: Path) -> None:
        lay(tmp_path, "1/VSD.Brain.XX.O.MR_Flair.1/flair.nii", "1/VSD.Brain.XX.O.OT.2/expert.nii")
        found = find_cases(tmp_path, modality="T2")
        assert "found flair.nii but expected VSD.Brain.XX.O.MR_T2.<n>/*.nii" in problems(found)["1"]

    def test_siss_2015_masks_of_two_experts_are_not_guessed(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "1/VSD.Brain.XX.O.MR_Flair.1/a.nii",
            "1/VSD.Brain.XX.O.OT.2/a.nii",
            "1/VSD.Brain.XX.O.OT.3/a.nii",
        )
        found = find_cases(tmp_path)
        assert found.cases == []
        assert "one of 2 files that may be the mask" in problems(found)["1"]

    @pytest.mark.parametrize("raw", ["rawdata/", ""])
    @pytest.mark.parametrize("folders", [("", ""), ("dwi/", "anat/")])
    def test_2022_takes_dwi_unless_asked(self, tmp_path: Path, raw: str, folders: tuple[str, str]) -> None:
        session, name = "sub-strokecase0001/ses-0001", "sub-strokecase0001_ses-0001"
        dwi, anat = folders
        lay(
            tmp_path,
            f"{raw}{session}/{dwi}{name}_dwi.nii.gz",
            f"{raw}{session}/{dwi}{name}_adc.nii.gz",
            f"{raw}{session}/{anat}{name}_FLAIR.nii.gz",
            f"derivatives/{session}/{name}_msk.nii.gz",
        )
        for asked, taken in ((None, "dwi"), ("adc", "adc"), ("flair", "FLAIR")):
            found = find_cases(tmp_path, modality=asked)
            assert (found.layout, found.problems) == ("isles", [])
            (case,) = found.cases
            assert (case.subject, case.patient) == (name, "sub-strokecase0001")
            assert case.image.name == f"{name}_{taken}.nii.gz"
            assert case.mask == tmp_path / f"derivatives/{session}/{name}_msk.nii.gz"

    def test_2022_missing_parts_are_reported(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "rawdata/sub-1/ses-1/sub-1_ses-1_dwi.nii.gz",
            "rawdata/sub-2/ses-1/sub-2_ses-1_adc.nii.gz",
            "derivatives/sub-2/ses-1/sub-2_ses-1_msk.nii.gz",
        )
        found = find_cases(tmp_path)
        assert found.cases == []
        assert "derivatives/sub-1/ses-1/sub-1_ses-1_msk.nii.gz" in problems(found)["sub-1_ses-1"]
        assert "found sub-2_ses-1_adc.nii.gz" in problems(found)["sub-2_ses-1"]


class TestLits:
    def test_volumes_and_segmentations_may_lie_apart(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "volume-0.nii",
            "segmentation-0.nii",
            "volume_pt1/volume-1.nii",
            "segmentations/segmentation-1.nii.gz",
        )
        found = find_cases(tmp_path)
        assert (found.layout, found.problems) == ("lits", [])
        assert subjects(found) == ["volume-0", "volume-1"]
        assert mask_names(found) == ["segmentation-0.nii", "segmentation-1.nii.gz"]
        assert {case.lesion_labels for case in found.cases} == {(2,)}  # 1 is liver

    def test_msd_liver_without_the_shadow_files_of_macos(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "dataset.json",
            "imagesTr/liver_0.nii.gz",
            "imagesTr/._liver_0.nii.gz",
            "labelsTr/liver_0.nii.gz",
            "labelsTr/._liver_0.nii.gz",
            "imagesTs/liver_132.nii.gz",
        )
        found = find_cases(tmp_path, modality="ct")
        assert (found.layout, found.problems) == ("lits", [])
        (case,) = found.cases
        assert (case.subject, case.lesion_labels) == ("liver_0", (2,))
        assert case.image == tmp_path / "imagesTr/liver_0.nii.gz"
        assert case.mask == tmp_path / "labelsTr/liver_0.nii.gz"

    def test_missing_and_repeated_parts_are_reported(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "volume-0.nii",
            "segmentation-1.nii",
            "volume-2.nii",
            "again/volume-2.nii",
            "segmentation-2.nii",
        )
        found = find_cases(tmp_path)
        assert found.cases == []
        assert "segmentation-0.nii" in problems(found)["volume-0"]
        assert "mask has no image" in problems(found)["volume-1"]
        assert "one of 2 files that may be the image" in problems(found)["volume-2"]

    def test_ct_is_the_only_modality(self, tmp_path: Path) -> None:
        lay(tmp_path, "volume-0.nii", "segmentation-0.nii")
        with pytest.raises(UsageError, match="FLAIR: no modality of LiTS"):
            find_cases(tmp_path, modality="FLAIR")


class TestDatalist:
    def test_json_in_the_form_of_monai(self, tmp_path: Path) -> None:
        lay(tmp_path, *(f"scans/{name}.nii.gz" for name in ("a", "a_mask", "b", "b_mask", "c", "c_mask")))
        datalist = tmp_path / "datalist.json"
        datalist.write_text(
            json.dumps(
                {
                    "name": "example",
                    "training": [{"image": "scans/b.nii.gz", "label": "./scans/b_mask.nii.gz"}],
                    "validation": [{"image": "scans/a.nii.gz", "mask": "scans/a_mask.nii.gz", "subject": "z"}],
                    "testing": [{"image": str(tmp_path / "scans/c.nii.gz"), "mask": "scans/c_mask.nii.gz"}],
                }
            )
        )
        found = find_cases(datalist)
        assert (found.layout, found.problems) == ("datalist", [])
        assert [(case.subject, case.split) for case in found.cases] == [
            ("b", "training"),
            ("c", "test"),
            ("z", "validation"),
        ]
        assert found.cases[0].image == tmp_path / "scans/b.nii.gz"
        assert found.cases[0].mask == tmp_path / "scans/b_mask.nii.gz"

    def test_test_images_listed_bare_have_no_mask_and_are_reported(self, tmp_path: Path) -> None:
        lay(tmp_path, "a.nii.gz", "a_mask.nii.gz", "b.nii.gz")
        datalist = tmp_path / "datalist.json"
        datalist.write_text(
            json.dumps({"training": [{"image": "a.nii.gz", "mask": "a_mask.nii.gz"}], "test": ["b.nii.gz"]})
        )
        found = find_cases(datalist)
        assert subjects(found) == ["a"]
        assert "b.nii.gz: has no lesion mask" in problems(found)["b"]

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_csv_as_spreadsheets_write_it(self, tmp_path: Path, separator: str) -> None:
        lay(tmp_path, "a.nii", "a_mask.nii", "b.nii", "b_mask.nii", "c.nii", "c_mask.nii")
        rows = [
            ("Image", "Mask", "Subject", "Split"),
            ("a.nii", "a_mask.nii", "P2", "val"),
            ("b.nii", "b_mask.nii", "P1", "Training"),
            ("c.nii", "c_mask.nii", "", ""),
        ]
        datalist = tmp_path / "scans.csv"
        datalist.write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n", encoding="utf-8")
        found = find_cases(datalist)
        assert (found.layout, found.problems) == ("datalist", [])
        assert [(case.subject, case.split, case.image.name) for case in found.cases] == [
            ("P1", "training", "b.nii"),
            ("P2", "validation", "a.nii"),
            ("c", None, "c.nii"),
        ]

    def test_csv_needs_only_image_and_mask(self, tmp_path: Path) -> None:
        lay(tmp_path, "patient07/patient07_flair.nii.gz", "patient07/patient07_lesion.nii.gz")
        datalist = tmp_path / "scans.csv"
        datalist.write_text("image,mask\npatient07/patient07_flair.nii.gz,patient07/patient07_lesion.nii.gz\n")
        (case,) = find_cases(datalist).cases
        assert case == Case(
            subject="patient07_flair",
            image=tmp_path / "patient07/patient07_flair.nii.gz",
            mask=tmp_path / "patient07/patient07_lesion.nii.gz",
            patient="patient07_flair",
        )

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("P1", "P1"),
            ("sub-1_ses-1", "sub-1_ses-2"),
            ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001"),
        ],
    )
    def test_one_patient_in_two_splits_is_refused(self, tmp_path: Path, first: str, second: str) -> None:
        lay(tmp_path, "a.nii", "b.nii", "mask.nii")
        datalist = tmp_path / "scans.csv"
        datalist.write_text(
            f"image,mask,subject,split\na.nii,mask.nii,{first},training\nb.nii,mask.nii,{second},test\n"
        )
        with pytest.raises(UsageError, match=r"several splits \(test, training\)"):
            find_cases(datalist)

    def test_one_patient_with_and_without_split_is_refused(self, tmp_path: Path) -> None:
        lay(tmp_path, "a.nii", "b.nii", "mask.nii")
        datalist = tmp_path / "scans.csv"
        datalist.write_text("image,mask,subject,split\na.nii,mask.nii,sub-1_ses-1,test\nb.nii,mask.nii,sub-1_ses-2,\n")
        with pytest.raises(UsageError, match=r"several splits \(none, test\)"):
            find_cases(datalist)

    def test_subject_listed_twice_in_one_split_is_used_once(self, tmp_path: Path) -> None:
        lay(tmp_path, "1/flair.nii", "mask.nii")
        datalist = tmp_path / "scans.csv"
        datalist.write_text("image,mask\n1/flair.nii,mask.nii\n1/flair.nii,mask.nii\n")
        found = find_cases(datalist)
        assert [case.image for case in found.cases] == [tmp_path / "1/flair.nii"]
        assert "give each scan a subject of its own" in problems(found)["flair"]

    @pytest.mark.parametrize(
        ("entry", "reason"),
        [
            ({"image": "absent.nii", "mask": "mask.nii"}, "absent.nii: is missing"),
            ({"image": "folder", "mask": "mask.nii"}, "folder: is no file"),
            ({"image": "a.nii", "mask": "absent.nii"}, "absent.nii: is missing"),
            ({"image": "n" * 5000, "mask": "mask.nii"}, "out of reach"),
            ({"image": "a.nii"}, "no lesion mask"),
            ({"image": "", "mask": "mask.nii"}, r"training[0] has the image ''"),
            ({"image": ["a.nii", "b.nii"], "mask": "mask.nii"}, "expected the path of one file"),
            ({"image": "a.nii", "mask": ["mask.nii"]}, "expected the path of one file"),
            ({"mask": "mask.nii"}, "expected the path of one file"),
            (7, "expected the path of one file"),
        ],
    )
    def test_entry_that_names_no_files_is_reported(self, tmp_path: Path, entry: object, reason: str) -> None:
        lay(tmp_path, "a.nii", "b.nii", "mask.nii", "folder/a.nii")
        datalist = tmp_path / "datalist.json"
        datalist.write_text(json.dumps({"training": [entry, {"image": "b.nii", "mask": "mask.nii"}]}))
        found = find_cases(datalist)
        assert subjects(found) == ["b"]
        (problem,) = found.problems
        assert reason in problem.reason

    @pytest.mark.parametrize("above", ["", "\n\n", ",,,\n", "sep=,\n"])
    @pytest.mark.parametrize(
        ("mask", "patient", "split"),
        [
            ("seg", "patient_name", "set"),
            ("Lesion mask", "MRN", "data_split"),
            ("label_path", "PAT_ID", "train_test"),
            ("ground_truth", "individual", "subset"),
        ],
    )
    def test_columns_are_known_by_the_names_that_people_give_them(
        self, tmp_path: Path, above: str, mask: str, patient: str, split: str
    ) -> None:
        lay(tmp_path, "a.nii", "m.nii")
        datalist = tmp_path / "scans.csv"
        datalist.write_text(f"{above}image,{mask},{patient},{split}\na.nii,m.nii,P1,tr\n")
        found = find_cases(datalist)
        (case,) = found.cases
        assert (case.mask, case.patient, case.split) == (tmp_path / "m.nii", "P1", "training")
        assert found.notes == []

    def test_patients_that_are_not_known_are_no_person(self, tmp_path: Path) -> None:
        lay(tmp_path, "a.nii", "b.nii", "m.nii")
        (tmp_path / "scans.csv").write_text("image,mask,patient\na.nii,m.nii,n/a\nb.nii,m.nii,n/a\n")
        assert {case.patient for case in find_cases(tmp_path / "scans.csv").cases} == {"a", "b"}

    def test_a_class_beside_the_mask_is_no_mask(self, tmp_path: Path) -> None:
        lay(tmp_path, "a.nii", "m.nii")
        (tmp_path / "scans.csv").write_text("image,label,seg\na.nii,1,m.nii\n")
        (case,) = find_cases(tmp_path / "scans.csv").cases
        assert case.mask == tmp_path / "m.nii"

    def test_columns_that_are_not_read_are_named(self, tmp_path: Path) -> None:
        lay(tmp_path, "a.nii", "m.nii")
        (tmp_path / "scans.csv").write_text("image,mask,Proband-Nr,group\na.nii,m.nii,7,test\n")
        (note,) = find_cases(tmp_path / "scans.csv").notes
        assert "its columns Proband-Nr, group were taken for no patient" in note

    @pytest.mark.parametrize("second", ["training", "test", "fold1"])
    def test_two_columns_or_a_list_that_say_other_splits(self, tmp_path: Path, second: str) -> None:
        lay(tmp_path, "a.nii", "m.nii")
        row = {"image": "a.nii", "mask": "m.nii", "split": second}
        (tmp_path / "list.json").write_text(json.dumps({"train": [row]}))
        (tmp_path / "scans.csv").write_text(f"image,mask,split,subset\na.nii,m.nii,train,{second}\n")
        for name in ("list.json", "scans.csv"):
            told = problems(find_cases(tmp_path / name)).get("a", "")
            assert ("is in several splits" in told) == (second != "training")

    def test_two_columns_that_tell_other_people_apart_are_refused_and_two_names_of_one_are_not(
        self, tmp_path: Path
    ) -> None:
        lay(tmp_path, "a.nii", "b.nii", "m.nii")
        datalist = tmp_path / "scans.csv"
        datalist.write_text("image,mask,patient,MRN\na.nii,m.nii,P1,11\nb.nii,m.nii,P2,12\n")
        assert [case.patient for case in find_cases(datalist).cases] == ["P1", "P2"]
        datalist.write_text("image,mask,patient,MRN\na.nii,m.nii,P1,11\nb.nii,m.nii,P2,11\n")
        with pytest.raises(UsageError, match="patient and MRN, which tell different patients apart"):
            find_cases(datalist)

    def test_unknown_split_is_reported(self, tmp_path: Path) -> None:
        lay(tmp_path, "a.nii", "mask.nii")
        datalist = tmp_path / "scans.csv"
        datalist.write_text("image,mask,split\na.nii,mask.nii,fold1\n")
        assert "line 2 has the split 'fold1'" in problems(find_cases(datalist))["a"]

    def test_subjects_become_safe_and_stay_different(self, tmp_path: Path) -> None:
        names = ["a b", "a_b", "a/b", "../../etc", "Müller", "-rf", "…", "007"]
        datalist = tmp_path / "datalist.json"
        lay(tmp_path, "mask.nii", *(f"{number}.nii" for number in range(len(names))))
        entries = [{"image": f"{number}.nii", "mask": "mask.nii", "subject": name} for number, name in enumerate(names)]
        datalist.write_text(json.dumps({"training": entries}))
        found = find_cases(datalist)
        safe = {names[int(case.image.stem)]: case.subject for case in found.cases}
        assert safe == {
            "a b": "a_b-2",
            "a_b": "a_b",
            "a/b": "a_b-3",
            "../../etc": "etc",
            "Müller": "M_ller",
            "-rf": "rf",
            "…": "scan",
            "007": "007",
        }
        assert {case.patient for case in found.cases} == set(safe.values())

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("list.json", "{", "malformed"),
            ("list.json", "[]", "no datalist"),
            ("list.json", '{"name": "x"}', "no datalist"),
            ("list.json", '{"training": {"image": "a.nii"}}', "no datalist"),
            ("list.json", '{"training": []}', "holds no scan"),
            ("list.csv", "", r"columns \(none\)"),
            ("list.csv", "file,mask\na.nii,b.nii\n", "columns file, mask"),
            ("list.csv", "image,mask\n", "holds no scan"),
            ("list.csv", f"image,mask\n{'x' * 200_000},\n", "malformed"),
            ("list.csv", "image,mask,patient,patient\na.nii,b.nii,1,2\n", "several columns patient"),
            ("list.csv", 'image,mask,x\na.nii,b.nii,"1\nc.nii,d.nii,2\n', "malformed"),
            ("list.json", '{"training": [], "training": []}', "'training' stands there twice"),
            ("scan.nii.gz", "", "single file"),
        ],
    )
    def test_file_that_is_no_datalist_is_refused(self, tmp_path: Path, name: str, content: str, reason: str) -> None:
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match=reason):
            find_cases(tmp_path / name)

    def test_binary_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00image")
        with pytest.raises(UsageError, match="malformed"):
            find_cases(tmp_path / "list.csv")


class TestLayout:
    def test_missing_path_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="absent: does not exist"):
            find_cases(tmp_path / "absent")

    def test_unknown_cohort_is_told_every_layout(self, tmp_path: Path) -> None:
        lay(tmp_path, "scans/one.nii.gz")
        with pytest.raises(UsageError) as raised:
            find_cases(tmp_path)
        assert all(f"{layout} (" in str(raised.value) for layout in LAYOUTS)

    def test_unknown_layout_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            UsageError, match=f"kaggle: unknown layout, expected one of {', '.join(LAYOUTS)}; choose one of these"
        ):
            find_cases(tmp_path, layout="kaggle")

    def test_named_layout_is_used_where_two_would_fit(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            "A/A_flair.nii.gz",
            "A/A_seg.nii.gz",
            "sub-01/anat/sub-01_FLAIR.nii.gz",
            "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        )
        assert subjects(find_cases(tmp_path, layout="bids")) == ["sub-01"]
        assert subjects(find_cases(tmp_path, layout="brats")) == ["A"]

    def test_named_layout_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        lay(tmp_path, "A/A_flair.nii.gz", "A/A_seg.nii.gz")
        with pytest.raises(UsageError, match="no scan in the layout lits"):
            find_cases(tmp_path, layout="lits")

    def test_folder_is_no_datalist_and_file_is_no_folder(self, tmp_path: Path) -> None:
        lay(tmp_path, "list.csv")
        with pytest.raises(UsageError, match="is a folder, expected a JSON or CSV file"):
            find_cases(tmp_path, layout="datalist")
        with pytest.raises(UsageError, match="is a file, expected a folder in the layout bids"):
            find_cases(tmp_path / "list.csv", layout="bids")

    def test_folder_that_may_not_be_entered_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(folder: Path) -> None:
            raise PermissionError(13, "Permission denied", str(folder))

        monkeypatch.setattr(Path, "iterdir", refuse)
        with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\)"):
            find_cases(tmp_path)


@pytest.mark.data
class TestRealCohorts:
    def test_lgg_is_bids_with_88_patients(self, shared_data: Path) -> None:
        found = find_cases(shared_data / "lgg")
        assert (found.layout, len(found.cases), found.problems) == ("bids", 88, [])
        assert len({case.patient for case in found.cases}) == 88

    def test_lgg_patients_without_contrast_are_reported(self, shared_data: Path) -> None:
        found = find_cases(shared_data / "lgg", modality="T1w")
        assert all(case.image.name.endswith("_ce-gadolinium_T1w.nii.gz") for case in found.cases)
        assert len(found.cases) + len(found.problems) == 88
        assert found.problems

    @pytest.mark.parametrize("modality", ["flair", "t1c"])
    def test_brats2013_has_4_patients(self, shared_data: Path, modality: str) -> None:
        found = find_cases(shared_data / "brats2013", modality=modality)
        assert (found.layout, len(found.cases), found.problems) == ("brats", 4, [])

    def test_open_ms_needs_a_datalist(self, shared_data: Path, tmp_path: Path) -> None:
        folder = shared_data / "open_ms"
        with pytest.raises(UsageError, match="no known layout"):
            find_cases(folder)
        datalist = tmp_path / "scans.csv"
        rows = [
            f"{folder}/{name}/{name}_flair.nii.gz,{folder}/{name}/{name}_lesion.nii.gz,{name}\n"
            for name in ("patient07", "patient19", "patient26")
        ]
        datalist.write_text("image,mask,subject\n" + "".join(rows))
        found = find_cases(datalist)
        assert (subjects(found), found.problems) == (["patient07", "patient19", "patient26"], [])
