"""Visits of one person are known by their names, and people of one site are not taken for one person."""

import pytest

from pipeline.cohorts.people import people


@pytest.mark.parametrize(
    ("names", "persons"),
    [
        (["sub-01_ses-1", "sub-01_ses-2"], {"sub-01"}),
        (["100001_time01", "100001_time02"], {"100001"}),
        (["Patient-001_week-000", "Patient-001_week-044-1"], {"Patient-001"}),
        (["P1_tp2", "P1-tp1", "P1_followup"], {"P1"}),
        (["P1_2019-03-12", "P1_20200101"], {"P1"}),
        (["OAS2_0001_MR1", "OAS2_0001_MR2"], {"OAS2_0001"}),
        (["002_S_0295_m06", "002_S_0295_bl"], {"002_S_0295"}),
        (["brats_tcia_pat105_0001", "brats_tcia_pat105_0015"], {"brats_tcia_pat105"}),
        (["P1_visitA", "P1_timepoint-two"], {"P1"}),
        (["P1_scan1", "P1_scan2", "P1_run-1"], {"P1"}),
        (["P01TP1", "P01visit2"], {"P01"}),
        (["P1_6m", "P1_12mo", "P1_M0", "P1_D90", "P1_Y2"], {"P1"}),
        (["P1_12-03-2019", "P1_2019-03-12T10-00"], {"P1"}),
        (["P1_day-3", "P1_day+3"], {"P1"}),
        (["P1_preop", "P1_nadir", "P1_recurrence"], {"P1"}),
        (["P1_test", "P1_retest", "P1_first", "P1_late"], {"P1"}),
        (["visit1-P1", "tp2_P1", "baseline_P1"], {"P1"}),
        (["P01.1", "P01.2", "P02.1", "P02.2"], {"P01", "P02"}),
        (["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"], {"BraTS-GLI-00005"}),
        (["UPENN-GBM-00001_11", "UPENN-GBM-00001_21", "UPENN-GBM-00002_11", "UPENN-GBM-00002_21"],
         {"UPENN-GBM-00001", "UPENN-GBM-00002"}),
        (["training01_01_flair", "training01_02_flair", "training02_01_flair", "training02_02_flair"],
         {"training01", "training02"}),
        (["P01a", "P01b", "P02a", "P02b"], {"P01", "P02"}),
    ],
)  # fmt: skip
def test_visits_are_of_one_person(names: list[str], persons: set[str]) -> None:
    assert set(people(names)[0].values()) == persons


@pytest.mark.parametrize(
    "names",
    [
        ["Brats13_0001", "Brats13_0003", "Brats18_1", "Brats18_2"],
        ["Brats18_TCIA01_131_1", "Brats18_TCIA01_132_1"],
        ["BraTS2021_00000", "BraTS2021_00002"],
        ["liver_0", "liver_1", "volume-0", "volume-1"],
        ["vol_t1", "vol_t2"],
        ["patient07_flair", "patient19_flair"],
        ["MS_visit_1", "MS_visit_2"],
        ["P_01_M", "P_02_F", "P_03_M"],
        ["study1_P01", "study2_P01"],
        ["1", "2"],
    ],
)
def test_others_are_people_of_their_own(names: list[str]) -> None:
    assert people(names)[0] == {name: name for name in names}


def test_what_was_taken_for_visits_is_said_with_the_names() -> None:
    (note,) = people(["training01_01", "training01_02", "training02_01", "training02_02"])[1]
    assert "training01: training01_01, training01_02" in note
    assert "stay together in one split" in note


@pytest.mark.parametrize(
    "names",
    [
        [f"site{s}_{n:03d}" for s in (1, 2) for n in range(20)],
        [f"site{s}_scan{n:03d}" for s in "AB" for n in range(20)],
        ["MS_visit1", "MS_visit2"],
        ["P01_s1", "P01_s2", "P02_s1", "P02_s2"],
        ["P01_190312", "P01_200413", "P02_190312", "P02_200413"],
    ],
)
def test_names_that_look_alike_for_another_reason_are_warned_of(names: list[str]) -> None:
    persons, (note,) = people(names)
    assert set(persons.values()) == set(names)
    assert "names look alike" in note
    assert "column 'patient'" in note
