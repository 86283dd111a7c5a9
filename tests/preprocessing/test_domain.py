"""Scans of the training's kind pass; others are told apart by what a user can check."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.bundles import list_bundles
from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.domain import Findings, compare, describe
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import DicomSeries, DicomSlice, Scan, read_nifti

SPACING_MM = (3.0, 3.0, 6.0)
MR = {"network_data_format": {"inputs": {"image": {"modality": "MR"}}}}


def head(seed: int, stripped: bool = False) -> np.ndarray:
    """Intensities (60, 72, 16): scalp, dark skull, brain that tapers to the front and the top, ventricles in front."""
    rng = np.random.default_rng(seed)
    right, anterior, superior = np.meshgrid(*(np.linspace(-1, 1, size) for size in (60, 72, 16)), indexing="ij")
    scale = rng.uniform(0.95, 1.05)
    taper = (1 - 0.2 * anterior) * (1 + 0.15 * superior)
    radius = np.hypot(right * 1.15 * taper, anterior * 1.05) * scale
    grey = rng.uniform(380, 420)
    voxels = np.where(radius < 0.92, rng.uniform(700, 900), 0.0)
    voxels[radius < 0.84] = 60
    voxels[radius < 0.76] = grey
    voxels[radius < 0.6] = grey * 0.9
    voxels[np.hypot(right * 2, anterior - 0.2) < 0.2] = 60
    if stripped:
        voxels[radius >= 0.76] = 0
    noise = 0 if stripped else np.abs(rng.normal(0, 10, voxels.shape))
    return np.where(voxels > 0, voxels + rng.normal(0, rng.uniform(5, 20), voxels.shape), noise).clip(0)


def written(path: Path, voxels: np.ndarray, spacing_mm: tuple[float, float, float] = SPACING_MM) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.diag([*spacing_mm, 1])), path)
    return path


def trained_on(folder: Path, *volumes: np.ndarray) -> dict[str, Any]:
    """Metadata of a bundle trained on these volumes."""
    lesion = np.zeros(volumes[0].shape)
    lesion[25:30, 25:30, 7:9] = 1
    for number, voxels in enumerate(volumes):
        label = f"sub-{number}"
        written(folder / "raw" / label / "anat" / f"{label}_FLAIR.nii.gz", voxels)
        mask = f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz"
        written(folder / "raw" / mask, lesion)
    preprocess(folder / "raw", folder / "cohort", Settings(split=(1, 0, 0)), workers=1)
    return {**MR, "training_domain": describe(folder / "cohort")}


def found(scan: Scan, metadata: dict[str, Any]) -> Findings:
    intensities = scan.intensities()
    window = WindowRule().window(intensities, scan.origin)
    return compare(scan, window.apply(scan.axial(intensities)), metadata)


def passes(findings: Findings) -> bool:
    return not (findings.refusals or findings.warnings or findings.notes)


@pytest.fixture(scope="module")
def whole_heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained_on(tmp_path_factory.mktemp("whole"), *(head(seed) for seed in range(8)))


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained_on(tmp_path_factory.mktemp("stripped"), *(head(seed, stripped=True) for seed in range(8)))


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., Scan]:
    """A scan of the given voxels, or the head of someone who was not in the training."""

    def make(voxels: np.ndarray | None = None, spacing_mm: tuple[float, float, float] = SPACING_MM) -> Scan:
        return read_nifti(written(tmp_path / "scan.nii.gz", head(100) if voxels is None else voxels, spacing_mm))

    return make


@pytest.mark.parametrize("seed", range(100, 106))
def test_another_patient_of_the_same_cohort_passes(whole_heads, brains, scan, seed):
    assert passes(found(scan(head(seed)), whole_heads))
    assert passes(found(scan(head(seed, stripped=True)), brains))


def test_the_kind_of_head_is_told_whatever_the_bundle_was_trained_on(whole_heads, brains, scan):
    for metadata in (whole_heads, brains):
        assert found(scan(), metadata).kind == "whole"
        assert found(scan(head(100, stripped=True)), metadata).kind == "stripped"


@pytest.mark.parametrize("factor", [0.01, 40.0])
def test_the_scanner_s_units_do_not_matter(whole_heads, scan, factor):
    assert passes(found(scan(head(100) * factor), whole_heads))


def test_noise_around_the_head_does_not_matter(whole_heads, scan):
    noise = np.abs(np.random.default_rng(0).normal(0, 25, head(100).shape))
    assert passes(found(scan(head(100) + noise), whole_heads))


def test_finer_pixels_do_not_matter(whole_heads, scan):
    fine = np.kron(head(100), np.ones((2, 2, 1)))
    assert passes(found(scan(fine, (1.5, 1.5, 6.0)), whole_heads))


def test_only_the_slab_of_the_training_is_looked_at(whole_heads, scan):
    voxels = head(100)
    voxels[..., :2] = voxels[..., -2:] = 500.0
    assert passes(found(scan(voxels), whole_heads))


def test_a_skull_stripped_brain_is_refused_by_a_bundle_for_whole_heads_and_the_other_way_round(
    whole_heads, brains, scan
):
    (refusal,) = found(scan(head(100, stripped=True)), whole_heads).refusals
    assert "skull-stripped brains, the bundle was trained on whole heads only; give the scan before" in refusal
    (refusal,) = found(scan(), brains).refusals
    assert "whole heads, the bundle was trained on skull-stripped brains only; strip the skull first" in refusal


def test_a_bundle_that_was_trained_on_both_takes_both(scan, tmp_path):
    both = trained_on(tmp_path, *(head(seed, stripped) for seed in range(4) for stripped in (False, True)))
    assert {kind: members["scans"] for kind, members in both["training_domain"]["kinds"].items()} == {
        "whole": 4,
        "stripped": 4,
    }
    assert passes(found(scan(), both))
    assert passes(found(scan(head(100, stripped=True)), both))


@pytest.mark.parametrize(("left", "refused"), [(0.6, False), (0.4, True)])
def test_another_contrast_is_warned_of_and_refused_where_nothing_is_like_it(whole_heads, scan, left, refused):
    voxels = head(100)
    voxels[voxels > 600] *= left  # fat is suppressed
    findings = found(scan(voxels), whole_heads)
    (sentence,) = findings.refusals if refused else findings.warnings
    assert "times as far from the mean of the 8 whole heads of the training" in sentence
    assert "check that it is the contrast that the bundle was trained on" in sentence


def test_z_scores_are_told_from_intensities(whole_heads, scan):
    voxels = head(100)
    inside = voxels > 100
    scores = np.where(inside, (voxels - voxels[inside].mean()) / voxels[inside].std(), 0)
    findings = found(scan(scores), whole_heads)
    assert findings.refusals
    assert "neither inverted nor z-scored" in " ".join(findings.refusals + findings.warnings)


@pytest.mark.parametrize(
    ("turned", "how"),
    [
        (lambda voxels: voxels[:, ::-1], "back to front"),
        (lambda voxels: voxels[:, :, ::-1], "upside down"),
        (lambda voxels: voxels[:, ::-1, ::-1], "upside down"),
        (lambda voxels: np.swapaxes(voxels, 0, 1), "turned by 90° in the axial plane"),
    ],
    ids=["back to front", "upside down", "both", "turned"],
)
def test_a_head_that_lies_otherwise_than_its_header_says_is_warned_of(whole_heads, scan, turned, how):
    warnings = found(scan(turned(head(100))), whole_heads).warnings
    assert any(f"when it is {how}" in warning and "check the header's orientation" in warning for warning in warnings)


def test_a_few_slices_are_warned_of_but_do_not_show_which_way_is_up(whole_heads, scan):
    for voxels in (head(100)[..., 10:13], head(100)[..., 12:9:-1]):
        findings = found(scan(voxels), whole_heads)
        assert not findings.refusals
        assert any("found slices over 18 mm, the bundle was trained on 60 mm of" in text for text in findings.warnings)
        assert not any("orientation" in text for text in findings.warnings)


def test_a_mirrored_head_looks_like_any_other(whole_heads, scan):
    assert passes(found(scan(head(100)[::-1]), whole_heads))


@pytest.mark.parametrize(("scale", "refused"), [(1.5, False), (0.6, False), (3.0, True), (0.3, True)])
def test_a_head_of_another_size_is_warned_of_and_refused_where_no_head_is_like_it(whole_heads, scan, scale, refused):
    findings = found(scan(spacing_mm=(3.0 * scale, 3.0 * scale, 6.0)), whole_heads)
    sentences = findings.refusals if refused else findings.warnings
    assert any("found a head or body of" in sentence for sentence in sentences)
    assert any("check the header's voxel size" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("spacing_mm", "sentence"),
    [
        ((3.0, 3.0, 10.0), "found slices at a distance of 10 mm, the bundle was trained on 6 mm"),
        ((3.0, 3.0, 1.5), "found slices at a distance of 1.5 mm, the bundle was trained on 6 mm"),
        ((3.0, 7.0, 6.0), "found pixels of 3 × 7 mm, the bundle was trained on 3 mm"),
    ],
)
def test_slices_and_pixels_far_from_the_training_s_are_warned_of(whole_heads, scan, spacing_mm, sentence):
    assert any(warning.startswith(sentence) for warning in found(scan(spacing_mm=spacing_mm), whole_heads).warnings)


@pytest.mark.parametrize("degrees", [0, 5, 17, 29, 41])
def test_a_turned_header_gives_no_other_findings(whole_heads, scan, degrees):
    spacing_mm = (6.0, 6.0, 9.0)  # just what is taken without a warning
    made = scan(spacing_mm=spacing_mm)
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(x=np.radians(degrees)), (0, 0, 0))
    header = made.header.copy()
    header.set_sform(turn @ made.affine, 1)
    header.set_qform(turn @ made.affine, 1)
    findings = found(Scan(made.stored, made.slope, made.intercept, header, made.origin), whole_heads)
    assert not any("found pixels of" in text or "slices at a distance" in text for text in findings.warnings)


def test_noise_is_not_taken_for_a_head(whole_heads, scan):
    findings = found(scan(np.random.default_rng(0).random((60, 72, 16))), whole_heads)
    assert findings.refusals


def test_air_alone_is_left_to_those_who_look_for_a_head(whole_heads, scan):
    assert compare(scan(), np.zeros((16, 60, 72), np.float32), whole_heads) == Findings()


@pytest.mark.parametrize(("modality", "refused"), [("CT", True), ("MR", False), ("", False)])
def test_a_dicom_series_of_another_modality_is_refused(whole_heads, scan, modality, refused):
    made = scan()
    series = DicomSeries((DicomSlice(Path("1.dcm")),), "1.2.3", modality, 4)
    of_series = Scan(made.stored, made.slope, made.intercept, made.header, made.origin, series)
    for metadata in (whole_heads, MR):
        refusals = found(of_series, metadata).refusals
        assert bool(refused) == bool(refusals)
        assert all("found a CT series, the bundle was trained on MR; give such a scan" in text for text in refusals)


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("sub-01_T1w.nii.gz", "T1w"),
        ("BraTS-GLI-00001-000-t1c.nii.gz", "contrast-enhanced T1w"),
        ("sub-01_ce-gadolinium_T1w.nii", "contrast-enhanced T1w"),
        ("head_T2.nrrd", "T2w"),
        ("sub-01_FLAIR.nii.gz", None),
        ("Brats18_2013_1_1_flair.nii.gz", None),
        ("VSD.Brain.XX.O.MR_Flair.70613.nii", None),
        ("scan.nii", None),
        ("PATIENT1_SPLIT2.nii", None),
    ],
)
@pytest.mark.parametrize("door", ["file", "dicom"])
def test_a_scan_that_is_named_after_another_contrast_is_warned_of(whole_heads, scan, name, warned, door):
    made = scan()
    origin = Path(name) if door == "file" else made.origin
    described = DicomSeries((DicomSlice(Path("1.dcm")),), "1.2.3", "MR", 4, name) if door == "dicom" else None
    warnings = found(
        Scan(made.stored, made.slope, made.intercept, made.header, origin, described), whole_heads
    ).warnings
    expected = f"found a scan that is named {warned}, the bundle was trained on FLAIR; give such a scan"
    assert bool(warned) == any(expected in warning for warning in warnings)
    assert bool(warned) == bool(warnings)


@pytest.mark.parametrize("name", ["t1_mprage_sag", "t2_tse_tra"])
def test_a_scan_that_is_named_otherwise_and_unlike_in_another_way_is_refused(whole_heads, scan, name):
    made = scan(head(100)[..., 10:13])
    named = Scan(made.stored, made.slope, made.intercept, made.header, Path(f"{name}.nii"))
    findings = found(named, whole_heads)
    assert not findings.warnings
    assert any("found a scan that is named" in text for text in findings.refusals)
    assert any("found slices over 18 mm" in text for text in findings.refusals)
    for likely in ("t2_spc_da-fl_sag_p2_iso", "Sag T2 dark fluid", "t2_irflair_cor"):
        assert not found(replace(named, origin=Path(f"{likely}.nii")), whole_heads).refusals


@pytest.mark.parametrize("any_contrast", [True, False])
def test_a_bundle_that_takes_any_contrast_is_not_told_of_one_and_of_what_is_no_head_all_the_same(
    whole_heads, scan, any_contrast
):
    voxels = head(100)
    voxels[voxels > 600] *= 0.6  # fat is suppressed
    named = replace(scan(voxels), origin=Path("sub-01_T2w.nii.gz"))
    metadata = {**whole_heads, "any_contrast": any_contrast}
    told = [*found(named, metadata).warnings, *found(named, metadata).refusals]
    assert any("T2w" in text for text in told) != any_contrast
    assert any("times as far from the mean" in text for text in told) != any_contrast
    upside_down = scan()
    upside_down = replace(upside_down, stored=np.ascontiguousarray(upside_down.stored[:, :, ::-1]))
    assert any("upside down" in text for text in found(upside_down, metadata).warnings)


def test_any_name_will_do_where_the_training_s_names_tell_nothing(whole_heads, scan):
    made = scan()
    metadata = copy.deepcopy(whole_heads)
    metadata["training_domain"]["contrasts"] = ["unnamed"]
    named = Scan(made.stored, made.slope, made.intercept, made.header, Path("sub-01_T1w.nii.gz"))
    assert passes(found(named, metadata))


@pytest.mark.parametrize("domain", [None, {"format": 0}])
def test_a_bundle_that_does_not_say_what_it_was_trained_on_gives_one_note(scan, domain):
    findings = found(scan(), {**MR, "training_domain": domain})
    assert not findings.refusals
    assert not findings.warnings
    (note,) = findings.notes
    assert note.startswith("the bundle does not say what it was trained on")
    assert found(scan(), {}).notes == [note]


@pytest.mark.parametrize(
    "damage",
    [
        {"contrasts": 1},
        {"thickness_mm": 60},
        {"kinds": {}},
        {"kinds": {"whole": {}}},
        {"kinds": None},
        {"slab": {"mm": 3}},
        {"layout": [1.0]},
        {"layout": [float("nan")] * 864},
        {"thickness_mm": []},
        {"thickness_mm": [60.0, 50.0]},
        {"pixel_spacing_mm": [-1.0, 1.0]},
        {"scans": True},
        {"contrasts": []},
        {"format": "1"},
        {"slab": {"slices": None, "thickness_mm": float("inf")}},
    ],
    ids=str,
)
def test_damaged_metadata_are_one_sentence(whole_heads, scan, damage):
    metadata = {**whole_heads, "training_domain": {**whole_heads["training_domain"], **damage}}
    with pytest.raises(UsageError, match=r"configs/metadata\.json of the bundle: .*; restore the file") as caught:
        found(scan(), metadata)
    assert "\n" not in str(caught.value)


def test_the_description_is_plain_json_of_the_training_patients(whole_heads):
    domain = whole_heads["training_domain"]
    assert json.loads(json.dumps(domain, allow_nan=False)) == domain
    assert domain["scans"] == domain["kinds"]["whole"]["scans"] == 8
    assert domain["thickness_mm"] == [60.0, 60.0]
    assert domain["slice_spacing_mm"] == [6.0, 6.0]
    assert domain["pixel_spacing_mm"] == [3.0, 3.0]
    assert Slab(**domain["slab"]) == Slab()
    (right_low, right_high), (anterior_low, anterior_high) = domain["kinds"]["whole"]["extent_mm"]
    assert 120 < right_low <= right_high < 180
    assert 150 < anterior_low <= anterior_high < 216


def test_two_volumes_are_too_few_to_say_which_intensities_are_unusual(scan, tmp_path):
    few = trained_on(tmp_path, head(0), head(1))
    assert few["training_domain"]["kinds"]["whole"]["limit"] is None
    assert passes(found(scan(), few))


@pytest.mark.data
@pytest.mark.parametrize("name", ["gvs", "phs_gan_paired"])
def test_held_out_patients_pass_the_shipped_bundles_and_a_scan_that_lies_wrong_does_not(shared_data, name):
    (bundle,) = (bundle for bundle in list_bundles() if bundle.name == name)
    for path in (
        shared_data / "brats2013" / "Brats13_0006" / "Brats13_0006_flair.nii.gz",
        shared_data / "open_ms" / "patient26" / "patient26_flair.nii.gz",
        shared_data / "lgg" / "sub-HT7884" / "anat" / "sub-HT7884_FLAIR.nii.gz",
    ):
        scan = read_nifti(path)
        windowed = WindowRule().window(scan.intensities(), path).apply(scan.axial(scan.intensities()))
        assert passes(compare(scan, windowed, bundle.metadata)), path.name
        assert compare(scan, windowed[::-1, :, ::-1], bundle.metadata).warnings, path.name
