"""`segment` as a user meets it: a mask and its probability on the scan's grid, from NIfTI and DICOM."""

import json
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def series(dicom_series: Callable[..., list[Path]], voxels: np.ndarray, tmp_path: Path) -> Path:
    dicom_series(tmp_path / "dicom", voxels, affine=np.diag([-1.0, -1.0, 3.0, 1.0]))
    return tmp_path / "dicom"


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_a_nifti_scan_gives_a_mask_a_map_a_sidecar_a_picture_and_a_page(
    call: Call, segmenter_run: Path, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    scan, out = write("sub-01_FLAIR.nii.gz", voxels), tmp_path / "out"
    code, said, _ = call("segment", scan, "-b", segmenter_run, "-o", out, "--device", "cpu")
    assert code == 0
    assert "not for diagnosis" in said
    assert {path.name for path in out.iterdir()} == {
        *(f"sub-01_label-lesion_desc-FLAIR_mask{suffix}" for suffix in (".nii.gz", ".json", ".png", ".html")),
        *(f"sub-01_desc-lesionprobability_FLAIR{suffix}" for suffix in (".nii.gz", ".json")),
    }
    mask, probability = (
        nib.load(out / f"{name}.nii.gz")
        for name in ("sub-01_label-lesion_desc-FLAIR_mask", "sub-01_desc-lesionprobability_FLAIR")
    )
    for image in (mask, probability):
        np.testing.assert_allclose(image.affine, nib.load(scan).affine)
        assert image.shape == voxels.shape
    assert dice(np.asarray(mask.dataobj) > 0, lesion > 0) > 0.7
    np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, np.asarray(probability.dataobj) >= 0.5)
    sidecar = json.loads((out / "sub-01_label-lesion_desc-FLAIR_mask.json").read_text())
    assert sidecar["Request"]["Bundle"] == "unet_segmentation"
    assert sidecar["SyntheticData"] is True
    assert call("verify", out, "--source", scan).code == 0


def test_a_dicom_series_gives_a_segmentation_and_a_parametric_map(
    call: Call, segmenter_run: Path, series: Path, lesion: np.ndarray, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "nifti"
    given = ("segment", series, "-b", segmenter_run, "--device", "cpu", "--force")
    assert call(*given, "-o", out).code == 0
    assert call(*given, "-o", other, "--output-type", "nifti").code == 0
    objects = {pydicom.dcmread(path).SOPClassUID.name for path in out.rglob("*.dcm")}
    assert objects == {"Segmentation Storage", "Parametric Map Storage"}
    assert not list(out.rglob("*.nii.gz"))
    (found,) = (hd.seg.segread(path) for path in out.rglob("*.dcm") if pydicom.dcmread(path).Modality == "SEG")
    source = pydicom.dcmread(next(series.iterdir()))
    assert (found.StudyInstanceUID, found.FrameOfReferenceUID) == (source.StudyInstanceUID, source.FrameOfReferenceUID)
    assert found.PatientID == source.PatientID
    # Frames in the order of the source's slices, (slices, rows, columns).
    volume = found.get_volume(combine_segments=True)
    (mask,) = other.glob("*_label-lesion_mask.nii.gz")
    expected = np.asarray(nib.load(mask).dataobj)
    assert volume.array.sum() == expected.sum() > 0
    assert dice(expected > 0, lesion > 0) > 0.7
    (the_map,) = (pydicom.dcmread(p) for p in out.rglob("*.dcm") if "Parametric" in pydicom.dcmread(p).SOPClassUID.name)
    assert the_map.NumberOfFrames == lesion.shape[2]
    assert call("verify", out).code == 0


@pytest.mark.parametrize(("output_type", "dicom", "nifti"), [("nifti", 0, 2), ("both", 2, 2), ("dicom", 2, 0)])
def test_output_type_chooses_for_a_dicom_series(
    call: Call, segmenter_run: Path, series: Path, tmp_path: Path, output_type: str, dicom: int, nifti: int
) -> None:
    out = tmp_path / "out"
    given = ("--device", "cpu", "--force", "--no-page", "--output-type", output_type)
    assert call("segment", series, "-b", segmenter_run, "-o", out, *given).code == 0
    assert len(list(out.rglob("*.dcm"))) == dicom
    assert len(list(out.rglob("*.nii.gz"))) == nifti


def test_a_bundle_must_be_named(call: Call, write: Callable[..., Path], voxels: np.ndarray) -> None:
    code, _, said = call("segment", write("scan.nii.gz", voxels))
    assert code == 2
    assert "--bundle" in said


@pytest.mark.parametrize(("bundle", "command"), [("gvs", "synthesize"), ("harmonic", "fill"), ("scorer", "predict")])
def test_a_bundle_of_another_kind_says_which_command_it_is_for(
    call: Call,
    scorer_run: Path,
    write: Callable[..., Path],
    voxels: np.ndarray,
    tmp_path: Path,
    bundle: str,
    command: str,
) -> None:
    given = scorer_run if bundle == "scorer" else bundle
    code, _, said = call("segment", write("scan.nii.gz", voxels), "-b", given, "-o", tmp_path / "out")
    assert code == 2
    assert f"for `phs-pipeline {command}`, expected a segmenter" in said
    assert not (tmp_path / "out").exists()


def test_a_second_sequence_is_given_by_name(
    call: Call, make_run: Callable[..., Path], write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    from pipeline.networks import UNetSegmentor

    settings = {"filters": 4, "in_channels": 2, "channels": ["FLAIR", "T1w"], "size": [48, 48]}
    run = make_run("unet_segmentation", UNetSegmentor(in_channels=2, filters=4), **settings)
    scan, other = write("flair.nii.gz", voxels), write("t1.nii.gz", (voxels // 2).astype(np.int16))
    given = ("-b", run, "-o", tmp_path / "out", "--device", "cpu")
    missing = call("segment", scan, *given)
    assert missing.code == 1
    assert "expected T1w, which the bundle takes with FLAIR; give --channel T1w=FILE" in missing.err
    assert call("segment", scan, "--channel", f"T1w={other}", *given).code == 0
    sidecar = json.loads((tmp_path / "out" / "flair_label-lesion_mask.json").read_text())
    assert sidecar["Request"]["Channels"]["T1w"]["Name"] == "t1.nii.gz"
    unknown = call("segment", scan, "--channel", f"T2w={other}", *given)
    assert "--channel T2w: the bundle takes T1w beside the scan" in unknown.err
