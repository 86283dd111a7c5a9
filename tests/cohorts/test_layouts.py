"""Layouts that people have, and what a datalist's columns say."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.cohorts import Case, find_cases
from pipeline.errors import UsageError


def lay(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def by_subject(root: Path, **more: object) -> dict[str, Case]:
    return {case.subject: case for case in find_cases(root, **more).cases}  # type: ignore[arg-type]


def test_nnunet_raw_with_its_channels_and_labels(tmp_path: Path) -> None:
    lay(
        tmp_path,
        *(f"imagesTr/A_00{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)),
        "labelsTr/A_001.nii.gz",
        "labelsTr/A_002.nii.gz",
    )
    content = {
        "channel_names": {"0": "FLAIR", "1": "T1w"},
        "labels": {"background": 0, "brain": 1, "tumour": 2, "edema": [3]},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = find_cases(tmp_path, channels=("FLAIR", "T1w"))
    assert found.layout == "nnunet"
    (first, _) = found.cases
    assert (first.subject, first.image.name, first.lesion_labels) == ("A_001", "A_001_0000.nii.gz", (2, 3))
    assert {name: path.name for name, path in first.channels.items()} == {"T1w": "A_001_0001.nii.gz"}
    assert "'tumour' (2), 'edema' (3) was taken as lesion" in found.notes[0]
    with pytest.raises(UsageError, match="no channel 'T2w', found FLAIR, T1w"):
        find_cases(tmp_path, modality="T2w")


def test_a_decathlon_task_holds_its_channels_in_one_file(tmp_path: Path) -> None:
    lay(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    (tmp_path / "dataset.json").write_text(
        json.dumps({"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "labels": labels})
    )
    found = find_cases(tmp_path, modality="t1gd")
    assert (found.layout, found.cases[0].volumes, found.cases[0].lesion_labels) == ("msd", {"image": 2}, None)


def test_wmh_subjects_are_their_folders(tmp_path: Path) -> None:
    lay(
        tmp_path,
        *(
            f"{site}/{n}/{file}"
            for site, n in (("Utrecht", 0), ("Amsterdam/GE3T", 100))
            for file in ("pre/FLAIR.nii.gz", "pre/T1.nii.gz", "wmh.nii.gz")
        ),
    )
    cases = by_subject(tmp_path)
    assert set(cases) == {"Utrecht_0", "Amsterdam_GE3T_100"}
    assert {case.lesion_labels for case in cases.values()} == {(1,)}  # 2 is other pathology
    assert {case.image.name for case in cases.values()} == {"FLAIR.nii.gz"}


def test_msseg_2016_takes_consensus_and_preprocessed_images(tmp_path: Path) -> None:
    for patient in ("Center_01/Patient_01", "Center_03/Patient_01"):
        lay(tmp_path, f"{patient}/Preprocessed_Data/FLAIR_preprocessed.nii.gz", f"{patient}/Raw_Data/FLAIR.nii.gz",
            f"{patient}/Masks/Consensus.nii.gz", f"{patient}/Masks/ManualSegmentation_1.nii.gz")  # fmt: skip
    found = find_cases(tmp_path)
    assert found.layout == "msseg2016"
    assert [case.patient for case in found.cases] == ["Center_01_Patient_01", "Center_03_Patient_01"]


def test_isbi_2015_visits_are_of_one_patient(tmp_path: Path) -> None:
    for name in ("training01_01", "training01_02", "training02_01"):
        folder = f"training/{name[:10]}"
        lay(tmp_path, f"{folder}/preprocessed/{name}_flair_pp.nii", f"{folder}/orig/{name}_flair.nii.gz",
            f"{folder}/masks/{name}_mask1.nii", f"{folder}/masks/{name}_mask2.nii")  # fmt: skip
    found = find_cases(tmp_path)
    assert found.layout == "isbi2015"
    assert [(case.patient, case.session) for case in found.cases] == [
        ("training01", "01"), ("training01", "02"), ("training02", "01")
    ]  # fmt: skip
    assert found.notes == ["of the two raters' masks, the first was taken"]


def test_atlas_r2_has_its_masks_beside_the_images(tmp_path: Path) -> None:
    name, space = "sub-r001s001_ses-1", "space-MNI152NLin2009aSym"
    folder = "Training/R001/sub-r001s001/ses-1/anat"
    lay(tmp_path, f"{folder}/{name}_{space}_T1w.nii.gz", f"{folder}/{name}_{space}_label-L_desc-T1lesion_mask.nii.gz")
    found = find_cases(tmp_path)
    assert (found.layout, [case.patient for case in found.cases]) == ("atlas", ["sub-r001s001"])


@pytest.mark.parametrize(
    "mask",
    [
        "sub-1/anat/sub-1_desc-lesion_mask.nii.gz",
        "derivatives/sub-1/anat/sub-1_label-WMH_mask.nii.gz",
        "derivatives/x/sub-1/sub-1_space-orig_label-lesion_mask.nii.gz",
    ],
)
def test_bids_masks_lie_beside_the_image_or_in_any_derivative(mask: str, tmp_path: Path) -> None:
    lay(tmp_path, "sub-1/anat/sub-1_FLAIR.nii.gz", mask)
    found = find_cases(tmp_path)
    assert (found.layout, [case.mask for case in found.cases]) == ("bids", [tmp_path / mask])


def test_participants_tell_split_and_target(tmp_path: Path) -> None:
    for n in (1, 2):
        lay(tmp_path, f"sub-{n}/anat/sub-{n}_FLAIR.nii.gz", f"sub-{n}/anat/sub-{n}_label-lesion_mask.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsplit\nsub-1\t61.5\ttest\nsub-2\tn/a\ttrain\n")
    cases = by_subject(tmp_path, target="age")
    assert [(case.split, case.target) for case in cases.values()] == [("test", 61.5), ("training", None)]
    (tmp_path / "dataset.json").write_text('{"labels": {"²": "lesion"}}')
    assert by_subject(tmp_path).keys() == cases.keys()
    with pytest.raises(UsageError, match="no column 'sex' to take the target from, found age, participant_id, split"):
        find_cases(tmp_path, target="sex")


def test_a_damaged_list_of_participants_is_one_sentence(tmp_path: Path) -> None:
    lay(tmp_path, "sub-1/anat/sub-1_FLAIR.nii.gz", "sub-1/anat/sub-1_label-lesion_mask.nii.gz")
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsplit\n{'x' * 200_000}\ttest\n")
    with pytest.raises(UsageError, match=r"participants\.tsv: is malformed"):
        find_cases(tmp_path)


def test_scans_of_healthy_people_lie_in_a_plain_folder(tmp_path: Path) -> None:
    lay(tmp_path, "IXI002.nii.gz", "IXI012.nii.gz")
    found = find_cases(tmp_path, layout="healthy", masks_optional=True)
    assert [(case.subject, case.mask) for case in found.cases] == [("IXI002", None), ("IXI012", None)]


def test_brats_2015_is_no_isles_and_its_time_points_are_of_one_patient(tmp_path: Path) -> None:
    for day in ("0001", "0015"):
        case = f"HGG/brats_tcia_pat105_{day}"
        lay(tmp_path, f"{case}/VSD.Brain.XX.O.MR_Flair.1/a.nii", f"{case}/VSD.Brain_3more.XX.O.OT.2/a.nii")
    found = find_cases(tmp_path)
    assert found.layout == "brats"
    assert [case.patient for case in found.cases] == ["brats_tcia_pat105"] * 2


class TestDatalist:
    def rows(self, root: Path, text: str, name: str = "list.csv") -> Path:
        lay(root, *(f"{letter}.nii" for letter in "abc"), "m.nii", "1/FLAIR.nii", "2/FLAIR.nii")
        (root / name).write_text(text)
        return root / name

    @pytest.mark.parametrize("column", ["patient", "patient_id", "Patient ID", "participant_id"])
    def test_columns_name_the_person(self, column: str, tmp_path: Path) -> None:
        path = self.rows(tmp_path, f"image,mask,subject,{column}\na.nii,m.nii,x,P\nb.nii,m.nii,y,P\n")
        assert {name: case.patient for name, case in by_subject(path).items()} == {"x": "P", "y": "P"}

    def test_keys_of_json_name_the_person_who_must_not_be_in_two_splits(self, tmp_path: Path) -> None:
        content = {
            "training": [{"image": "a.nii", "label": "m.nii", "patient_id": 7}],
            "test": [{"image": "b.nii", "label": "m.nii", "patient_id": 7}],
        }
        path = self.rows(tmp_path, json.dumps(content), "list.json")
        with pytest.raises(UsageError, match=r"lists the patient '7' in several splits \(test, training\)"):
            find_cases(path)

    def test_a_repeated_subject_is_a_person_with_several_scans(self, tmp_path: Path) -> None:
        path = self.rows(tmp_path, "image,mask,subject\na.nii,m.nii,P\nb.nii,m.nii,P\n")
        assert {name: case.patient for name, case in by_subject(path).items()} == {"P_a": "P", "P_b": "P"}

    def test_images_of_one_name_have_their_folder_as_subject(self, tmp_path: Path) -> None:
        found = find_cases(self.rows(tmp_path, "image,mask\n1/FLAIR.nii,m.nii\n2/FLAIR.nii,m.nii\n"))
        assert [case.subject for case in found.cases] == ["1", "2"]
        assert "several images are called FLAIR" in found.notes[0]

    def test_blank_rows_are_no_scans(self, tmp_path: Path) -> None:
        found = find_cases(self.rows(tmp_path, "image,mask\na.nii,m.nii\n,\n , \n"))
        assert (len(found.cases), found.problems) == (1, [])

    def test_a_table_in_another_encoding_is_told_where(self, tmp_path: Path) -> None:
        path = tmp_path / "list.csv"
        path.write_bytes("image,mask,subject\na.nii,m.nii,Müller\n".encode("cp1252"))
        with pytest.raises(UsageError, match=r"line 2 holds the byte 0xfc, which is no UTF-8.*save it as UTF-8"):
            find_cases(path)

    def test_folds_are_said_not_to_be_used(self, tmp_path: Path) -> None:
        rows = [{"image": f"{name}.nii", "label": "m.nii", "fold": fold} for fold, name in enumerate("ab")]
        found = find_cases(self.rows(tmp_path, json.dumps({"training": rows}), "list.json"))
        assert found.notes == [
            "list.json: its folds (0, 1) were not used; name validation scans in a list or column 'split'"
        ]

    def test_labels_of_the_decathlon_are_taken_by_name(self, tmp_path: Path) -> None:
        content = {
            "labels": {"0": "background", "1": "liver", "2": "cancer"},
            "training": [{"image": "a.nii", "label": "m.nii"}],
        }
        found = find_cases(self.rows(tmp_path, json.dumps(content), "dataset.json"))
        assert found.cases[0].lesion_labels == (2,)
        assert found.notes == ["dataset.json: of its labels, 'cancer' (2) was taken as lesion"]

    def test_channels_are_columns_and_targets_numbers_or_classes(self, tmp_path: Path) -> None:
        path = self.rows(tmp_path, "FLAIR,T1w,mask,target,grade\na.nii,b.nii,m.nii,3.5,high\n")
        (case,) = find_cases(path, channels=("FLAIR", "T1w")).cases
        assert (case.image.name, case.channels["T1w"].name, case.target) == ("a.nii", "b.nii", 3.5)
        assert find_cases(path, channels=("FLAIR",), target="grade").cases[0].target == "high"

    def test_one_file_as_image_and_mask_is_refused(self, tmp_path: Path) -> None:
        (problem,) = find_cases(self.rows(tmp_path, "image,mask\na.nii,a.nii\n")).problems
        assert "is named as image and as mask" in problem.reason


def test_ct_ich_has_the_ages_of_its_patients_in_a_table_with_broken_headers(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{folder}/{n}.nii" for folder in ("ct_scans", "masks") for n in ("049", "130")))
    (tmp_path / "Patient_demographics.csv").write_text(
        'Patient Number,"Age\n(years)",Gender,"Hemorrhage type, by whom "\n49,0.58,Male,x\n130,61,Female,\n,,,\n'
    )
    assert find_cases(tmp_path).layout == "ct-ich"
    cases = by_subject(tmp_path, target="age")
    assert {name: (case.image.parent.name, case.target) for name, case in cases.items()} == {
        "049": ("ct_scans", 0.58),
        "130": ("ct_scans", 61.0),
    }
    assert all(case.mask == tmp_path / f"masks/{name}.nii" for name, case in cases.items())
    with pytest.raises(UsageError, match="MR: no modality of CT-ICH"):
        find_cases(tmp_path, modality="MR", layout="ct-ich")


class TestHeadNeck:
    """TCIA's Head-Neck-PET-CT as its retriever lays it: a table of series beside their folders."""

    SERIES = (
        ("HN-CHUM-001", "PT", 91, "HN-CHUM-001/08-27-1885-PANC-74220/2-PET AC-00001"),
        ("HN-CHUM-001", "CT", 91, "HN-CHUM-001/08-27-1885-PANC-74220/3-StandardFull-07232"),
        ("HN-CHUM-001", "CT", 120, "HN-CHUM-001/08-27-1885-TomoTherapy-00441/112161818-kVCT-62659"),
        ("HN-CHUM-001", "RTSTRUCT", 1, "HN-CHUM-001/08-27-1885-PANC-74220/1-RTstruct-1"),
        ("HN-HGJ-002", "PT", 80, "HN-HGJ-002/08-29-1885-TEP-1/4-PET-2"),
    )

    @pytest.fixture
    def collection(self, tmp_path: Path) -> Path:
        header = (
            "Series UID,Collection,Subject ID,Series Description,Modality,Number of Images,File Size,File Location\n"
        )
        folder = tmp_path / "manifest-1"
        for _, _, _, place in self.SERIES:
            lay(folder, f"Head-Neck-PET-CT/{place}/000000.dcm")
        rows = [
            f'1.2,Head-Neck-PET-CT,{person},"a, b",{modality},{count},1 MB,./Head-Neck-PET-CT/{place}\n'
            for person, modality, count, place in self.SERIES
        ]
        (folder / "metadata.csv").write_text(header + "".join(rows))
        return tmp_path

    def find(self, collection: Path, **more: object) -> dict[str, Case]:
        return by_subject(collection, layout="head-neck-pet-ct", masks_optional=True, **more)

    def test_pet_series_are_folders_of_each_person(self, collection: Path) -> None:
        assert {name: case.image.name for name, case in self.find(collection).items()} == {
            "HN-CHUM-001": "2-PET AC-00001",
            "HN-HGJ-002": "4-PET-2",
        }

    def test_of_several_series_that_with_the_most_images_is_taken(self, collection: Path) -> None:
        found = find_cases(collection, "head-neck-pet-ct", "CT", masks_optional=True)
        assert [case.image.name for case in found.cases] == ["112161818-kVCT-62659"]
        assert found.notes == ["HN-CHUM-001: of its 2 CT series, that with the most images was taken"]
        (problem,) = found.problems
        assert problem.reason.endswith(
            "has no image, found PT (a, b) but expected a series of the modality CT; add it, choose another modality "
            "or leave the subject out"
        )

    @pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
    def test_ages_are_in_the_clinical_table_a_sheet_a_centre(self, suffix: str, collection: Path) -> None:
        sheets = {"CHUM": [("HN-CHUM-001", 57)], "HGJ": [("HN-HGJ-002", 63)], "Excluded": [("HN-HGJ-002", 99)]}
        frames = {name: pd.DataFrame(rows, columns=["Patient #", "Age"]) for name, rows in sheets.items()}
        path = collection / f"INFOclinical_HN_Version2_30may2018{suffix}"
        if suffix == ".csv":
            pd.concat([frames["CHUM"], frames["HGJ"]]).to_csv(path, index=False)
        else:
            with pd.ExcelWriter(path) as book:
                for name, frame in frames.items():
                    frame.to_excel(book, sheet_name=name, index=False)
        assert [case.target for case in self.find(collection, target="age").values()] == [57.0, 63.0]

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("File Location", "Place", "has no column File Location"),
            ("./Head-Neck-PET-CT/HN-CHUM-001", "../HN-CHUM-001", "has the file location '../HN-CHUM-001"),
        ],
    )
    def test_another_table_is_refused(self, old: str, new: str, said: str, collection: Path) -> None:
        table = collection / "manifest-1/metadata.csv"
        table.write_text(table.read_text().replace(old, new))
        with pytest.raises(UsageError, match=said):
            self.find(collection)
