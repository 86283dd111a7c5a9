"""`fill` as a user meets it: the inside of a mask is new, and every other voxel is the scan's."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from pipeline.devices import has_bfloat16
from pipeline.scans import Scan
from pipeline.scans.dicom import find_series, read_series

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str, str]]


def read(series: Path) -> Scan:
    (found,) = find_series(sorted(series.iterdir()))
    return read_series(found, series)


def at(dataset: pydicom.Dataset) -> tuple[float, ...]:
    """Where a slice lies."""
    return tuple(np.round(np.asarray(dataset.ImagePositionPatient, dtype=float), 3))


@pytest.fixture
def series(dicom_series: Callable[..., list[Path]], voxels: np.ndarray, tmp_path: Path) -> Path:
    dicom_series(tmp_path / "dicom", voxels)
    return tmp_path / "dicom"


@pytest.fixture
def mask_of_series(series: Path, tmp_path: Path) -> Path:
    """A NIfTI mask on the series' grid, as another program would write it."""
    scan = read(series)
    nib.save(nib.Nifti1Image((scan.stored > 700).astype(np.uint8), scan.affine), tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


def test_a_harmonic_fill_changes_nothing_outside_the_mask(
    call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    scan, mask, out = write("sub-01_FLAIR.nii.gz", voxels), write("mask.nii.gz", lesion), tmp_path / "out"
    code, said, _ = call("fill", scan, "--mask", mask, "-o", out, "-b", "harmonic")
    assert code == 0
    assert "not for diagnosis" in said
    assert "trained" not in said, "nothing is said of a training where there is none"
    assert {path.name for path in out.iterdir()} == {
        *(f"sub-01_desc-filled_FLAIR{suffix}" for suffix in (".nii.gz", ".json", ".png", ".html")),
        *(f"sub-01_desc-fill_FLAIR{suffix}" for suffix in (".nii.gz", ".json")),
        *(f"sub-01_label-filled_desc-FLAIR_mask{suffix}" for suffix in (".nii.gz", ".json")),
    }
    filled = np.asarray(nib.load(out / "sub-01_desc-filled_FLAIR.nii.gz").dataobj)
    assert filled.dtype == voxels.dtype
    np.testing.assert_array_equal(filled[lesion == 0], voxels[lesion == 0])
    assert filled[lesion > 0].min() >= 350
    assert filled[lesion > 0].max() <= 450
    sidecar = json.loads((out / "sub-01_desc-filled_FLAIR.json").read_text())
    assert (sidecar["Request"]["Bundle"], sidecar["Request"]["WeightsSha256"]) == ("harmonic", None)
    assert sidecar["Request"]["Mask"]["Name"] == "mask.nii.gz"
    assert call("verify", out, "--source", scan).code == 0


def test_without_a_bundle_the_trained_filler_is_taken_and_says_where_it_fills_harmonically(
    call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    scan, mask, out = write("sub-01_FLAIR.nii.gz", voxels), write("mask.nii.gz", lesion), tmp_path / "out"
    assert call("fill", scan, "--mask", mask, "-o", out).code == 0
    filled = np.asarray(nib.load(out / "sub-01_desc-filled_FLAIR.nii.gz").dataobj)
    np.testing.assert_array_equal(filled[lesion == 0], voxels[lesion == 0])
    sidecar = json.loads((out / "sub-01_desc-filled_FLAIR.json").read_text())
    assert sidecar["Request"]["Bundle"] == "fill"
    assert len(sidecar["Request"]["WeightsSha256"]) == 64
    # A head of 40 by 48 pixels is none that it was trained on.
    assert any("filled harmonically alone" in note for note in sidecar["Notes"])


def test_a_grown_mask_is_filled_and_recorded(
    call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    scan, mask, out = write("sub-01_FLAIR.nii.gz", voxels), write("mask.nii.gz", lesion), tmp_path / "out"
    assert call("fill", scan, "--mask", mask, "-o", out, "-b", "harmonic", "--grow", "3").code == 0
    made = np.asarray(nib.load(out / "sub-01_label-filled_desc-FLAIR_mask.nii.gz").dataobj)
    assert (made[lesion > 0] == 1).all()
    assert made.sum() > (lesion > 0).sum()
    filled = np.asarray(nib.load(out / "sub-01_desc-filled_FLAIR.nii.gz").dataobj)
    np.testing.assert_array_equal(filled[made == 0], voxels[made == 0])
    sidecar = json.loads((out / "sub-01_desc-filled_FLAIR.json").read_text())
    assert sidecar["Request"]["GrowMm"] == 3
    assert "the mask was grown by 3 mm" in sidecar["Notes"]


def test_two_contrasts_are_filled_in_one_mask_and_plausible_fills_go_with_each(
    call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    scans = {"FLAIR": voxels, "T1w": (1200 - voxels.astype(int)).clip(0).astype(voxels.dtype)}
    files = [write(f"sub-01_{name}.nii.gz", each) for name, each in scans.items()]
    mask, out = write("mask.nii.gz", lesion), tmp_path / "out"
    assert call("fill", *files, "--mask", mask, "--samples", "2", "--force", "-o", out).code == 0
    for name, before in scans.items():
        for made in ("filled", "sample1", "sample2"):
            after = np.asarray(nib.load(out / f"sub-01_desc-{made}_{name}.nii.gz").dataobj)
            np.testing.assert_array_equal(after[lesion == 0], before[lesion == 0])
        spread = np.asarray(nib.load(out / f"sub-01_desc-uncertainty_{name}.nii.gz").dataobj)
        np.testing.assert_array_equal(spread > 0, lesion > 0)
        sidecar = json.loads((out / f"sub-01_desc-filled_{name}.json").read_text())
        assert sidecar["Request"]["SharedMask"]["Drawn"][0]["Name"] == "mask.nii.gz"
        assert (sidecar["Request"]["Samples"], sidecar["Request"]["Seed"]) == (2, 0)
        assert {"UncertaintyMean", "Pieces", "AroundPercent"} <= {figure["name"] for figure in sidecar["Figures"]}
    assert call("verify", out).code == 0


def test_a_dicom_series_gives_a_new_series_and_the_mask_as_segmentation(
    call: Call, series: Path, mask_of_series: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert call("fill", series, "--mask", mask_of_series, "-o", out).code == 0
    written: dict[str, list[pydicom.Dataset]] = {}
    for path in out.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        written.setdefault(f"{dataset.SOPClassUID.name}: {dataset.SeriesDescription}", []).append(dataset)
    assert all("SYNTHETIC" in name.upper() for name in written)
    inside = np.asarray(nib.load(mask_of_series).dataobj) > 0
    (segmentation,) = (path for path in out.rglob("*.dcm") if pydicom.dcmread(path).Modality == "SEG")
    assert hd.seg.segread(segmentation).get_volume(combine_segments=True).array.sum() == inside.sum()
    (name,) = (name for name in written if name.startswith("MR Image Storage") and "filled" in name)
    before = {at(each): each.pixel_array.astype(int) for each in map(pydicom.dcmread, series.iterdir())}
    assert {at(each) for each in written[name]} == set(before)
    changed = sum(int((each.pixel_array != before[at(each)]).sum()) for each in written[name])
    assert 0.9 * inside.sum() < changed <= inside.sum()
    assert call("verify", out).code == 0


class TestNames:
    """DICOM is named by its hash, and no file beside it, whose name may be the patient's, is named in what is kept."""

    @pytest.fixture
    def masks(self, series: Path, mask_of_series: Path, tmp_path: Path) -> dict[str, Path]:
        """Masks that are remarked on: soft, of two labels, empty, damaged; and another series of the same person."""
        scan = read(series)
        drawn = np.asarray(nib.load(mask_of_series).dataobj).astype(np.float32)
        found = {}
        for kind, voxels in {"soft": 0.75 * drawn, "empty": 0 * drawn, "elsewhere": drawn[1:]}.items():
            found[kind] = tmp_path / f"LEAKED_{kind}.nii.gz"
            nib.save(nib.Nifti1Image(voxels, scan.affine), found[kind])
        found["damaged"] = tmp_path / "LEAKED_damaged.nii.gz"
        found["damaged"].write_bytes(b"damaged")
        found["scan"] = tmp_path / "LEAKED_scan.nii.gz"
        nib.save(nib.Nifti1Image(scan.stored, scan.affine), found["scan"])
        return found

    @pytest.mark.parametrize("shared", [False, True], ids=["a mask each", "one for all"])
    @pytest.mark.parametrize(
        ("kind", "code", "said"),
        [
            ("soft", 0, "holds values between 0 and 1"),
            ("empty", 1, "the mask is empty"),
            ("damaged", 1, "no readable header"),
            ("elsewhere", 1, "the mask has shape"),
            ("scan", 1, "the mask has the intensities of the scan"),
        ],
    )
    def test_of_masks_are_in_no_sidecar_page_or_record(
        self,
        call: Call,
        series: Path,
        masks: dict[str, Path],
        dicom_series: Callable[..., list[Path]],
        voxels: np.ndarray,
        tmp_path: Path,
        kind: str,
        code: int,
        said: str,
        shared: bool,
    ) -> None:
        person = series.rename(tmp_path / "LEAKED_1")
        scans, drawn = [person], ["--mask", masks[kind]]
        if shared:
            dicom_series(tmp_path / "LEAKED_2", voxels, SeriesNumber=9)
            scans, drawn = [*scans, tmp_path / "LEAKED_2"], [*drawn, "--mask", masks["soft"]]
        out = tmp_path / "out"
        assert call("fill", *scans, *drawn, "-o", out, "-b", "harmonic", "--report", out / "run.json").code == code
        told = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in {".json", ".html", ".csv"}}
        assert any(said.encode() in content for content in told.values())
        assert [path for path, content in told.items() if b"LEAKED" in content] == []


@pytest.mark.parametrize("output_type", ["nifti", "both"])
def test_output_type_chooses_for_a_dicom_series(
    call: Call, series: Path, mask_of_series: Path, tmp_path: Path, output_type: str
) -> None:
    out = tmp_path / "out"
    given = ("--mask", mask_of_series, "-o", out, "--no-page", "--output-type", output_type)
    assert call("fill", series, *given).code == 0
    assert len(list(out.rglob("*.nii.gz"))) == 3
    assert bool(list(out.rglob("*.dcm"))) == (output_type == "both")


@pytest.fixture
def dataset(voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path) -> Path:
    """T1w scans of three persons in BIDS: one with a drawn mask, one without, one with those of two raters."""
    root = tmp_path / "raw"
    masks = {"01": ["manual"], "02": [], "03": ["rater1", "rater2"]}
    for subject, raters in masks.items():
        places = {f"sub-{subject}/anat/sub-{subject}_T1w": voxels}
        places |= {
            f"derivatives/{rater}/sub-{subject}/anat/sub-{subject}_label-lesion_mask": lesion for rater in raters
        }
        for name, stored in places.items():
            (root / name).parent.mkdir(parents=True)
            image = nib.Nifti1Image(stored, np.diag([-1.0, -1.0, 3.0, 1.0]))
            image.header.set_xyzt_units("mm")
            nib.save(image, root / f"{name}.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "three", "BIDSVersion": "1.10.0"}))
    return root


class TestBids:
    def test_each_scan_gets_its_mask_and_one_without_is_told(
        self, call: Call, dataset: Path, lesion: np.ndarray, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        code, said, wrong = call("fill", dataset, "-o", out, "-b", "harmonic")
        assert code == 1
        assert "sub-02_T1w.nii.gz: no lesion mask of it was found, left out" in said
        assert "1 written, 0 done before, 1 failed, 1 without a lesion mask left out" in said
        (refused,) = (line for line in wrong.splitlines() if line.startswith("sub-03_T1w"))
        assert all(f"{rater}/sub-03/anat/sub-03_label-lesion_mask.nii.gz" in refused for rater in ("rater1", "rater2"))
        filled = np.asarray(nib.load(out / "sub-01/anat/sub-01_desc-filled_T1w.nii.gz").dataobj)
        assert filled[lesion > 0].max() <= 450
        shutil.rmtree(dataset / "derivatives" / "rater2")
        assert call("fill", dataset, "-o", out, "-b", "harmonic").code == 0
        assert sorted(path.name for path in out.glob("sub-*")) == ["sub-01", "sub-03"]

    def test_masks_may_lie_in_a_folder_of_their_own(self, call: Call, dataset: Path, tmp_path: Path) -> None:
        masks, out = tmp_path / "masks", tmp_path / "out"
        shutil.copytree(dataset / "derivatives" / "rater1", masks)
        shutil.copyfile(
            dataset / "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz", masks / "sub-02_mask.nii.gz"
        )
        assert call("fill", dataset, "--masks", masks, "-o", out, "-b", "harmonic").code == 0
        assert sorted(path.name for path in out.glob("sub-*")) == ["sub-02", "sub-03"]

    @pytest.mark.skipif(not shutil.which("bash"), reason="the page's commands are bash's")
    def test_the_result_and_the_page_s_copy_for_fmriprep_are_valid(
        self,
        call: Call,
        dataset: Path,
        bids_findings: Callable[..., Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        call("fill", dataset, "-o", tmp_path / "filled", "-b", "harmonic")
        assert not bids_findings(tmp_path / "filled")[0]
        page = (Path(__file__).parents[2] / "docs" / "downstream.md").read_text()
        (commands,) = (block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "desc-preproc" in block)
        monkeypatch.chdir(tmp_path)
        subprocess.run(["bash", "-euc", commands.partition("fmriprep ")[0]], check=True)
        assert not bids_findings(tmp_path / "preproc")[0]
        copied = [path for path in (tmp_path / "preproc").rglob("*") if path.is_file() and "sub-" in path.name]
        assert {path.name for path in copied} == {f"sub-01_desc-preproc_T1w{end}" for end in (".nii.gz", ".json")}
        filled = (tmp_path / "filled/sub-01/anat/sub-01_desc-filled_T1w.nii.gz").read_bytes()
        assert (tmp_path / "preproc/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz").read_bytes() == filled


class TestWhatCannotStart:
    def test_a_mask_and_a_folder_of_masks(self, call: Call, write: Callable[..., Path], voxels: np.ndarray) -> None:
        code, _, said = call("fill", write("scan.nii.gz", voxels), "--mask", "mask.nii.gz", "--masks", ".")
        assert code == 2
        assert "one of --mask and --masks" in said

    def test_without_a_mask(self, call: Call, write: Callable[..., Path], voxels: np.ndarray) -> None:
        code, _, said = call("fill", write("scan.nii.gz", voxels))
        assert code == 2
        assert "--mask" in said

    def test_a_mask_that_is_not_there(self, call: Call, write: Callable[..., Path], voxels: np.ndarray) -> None:
        code, _, said = call("fill", write("scan.nii.gz", voxels), "--mask", "gone.nii.gz")
        assert code == 2
        assert "gone.nii.gz: found no file, expected a lesion mask" in said

    def test_a_folder_of_two_scans_and_one_mask(
        self, call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
    ) -> None:
        (tmp_path / "scans").mkdir()
        for name in "ab":
            write(f"{name}.nii.gz", voxels).rename(tmp_path / "scans" / f"{name}.nii.gz")
        mask = write("mask.nii.gz", lesion)
        code, _, said = call("fill", tmp_path / "scans", "--mask", mask, "-o", tmp_path / "out")
        assert code == 2
        assert "belongs to one scan, found 2" in said

    def test_fewer_masks_than_scans(
        self, call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
    ) -> None:
        scans, mask = [write(f"{name}.nii.gz", voxels) for name in "abc"], write("mask.nii.gz", lesion)
        code, _, said = call("fill", *scans, "--mask", mask, "--mask", mask, "-o", tmp_path / "out")
        assert code == 2
        assert "--mask: found 2 for 3 scans, expected one for all or one for each" in said

    def test_uncertainty_of_a_bundle_that_was_not_calibrated(
        self, call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
    ) -> None:
        given = ("--mask", write("mask.nii.gz", lesion), "-o", tmp_path / "out", "-b", "harmonic", "--uncertainty")
        code, _, said = call("fill", write("scan.nii.gz", voxels), *given)
        assert code == 2
        assert "found no calibrated error in the bundle" in said

    @pytest.mark.slow
    @pytest.mark.parametrize(("bundle", "command"), [("gvs", "synthesize"), (None, "segment")])
    def test_a_bundle_of_another_kind_says_which_command_it_is_for(
        self,
        call: Call,
        segmenter_run: Path,
        write: Callable[..., Path],
        voxels: np.ndarray,
        lesion: np.ndarray,
        tmp_path: Path,
        bundle: str | None,
        command: str,
    ) -> None:
        given = ("--mask", write("mask.nii.gz", lesion), "-o", tmp_path / "out", "-b", bundle or segmenter_run)
        code, _, said = call("fill", write("scan.nii.gz", voxels), *given)
        assert code == 2
        assert f"for `phs-pipeline {command}`, expected a filler" in said


def test_a_mask_on_another_grid_fails_this_scan_in_one_sentence(
    call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    mask = write("mask.nii.gz", lesion[:-1])
    code, _, said = call("fill", write("scan.nii.gz", voxels), "--mask", mask, "-o", tmp_path / "out")
    assert code == 1
    assert "the mask has shape" in said


class TestPrecision:
    """`--precision bfloat16`, where the processor has it: said in the sidecar, close to float32, never by itself."""

    pytestmark = pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="the processor has no bfloat16")

    def test_a_fill_in_bfloat16_says_so_and_is_close_to_that_in_float32(
        self, call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
    ) -> None:
        scan, mask = write("sub-01_FLAIR.nii.gz", voxels), write("mask.nii.gz", lesion)
        filled, sidecars = {}, {}
        for precision in ("float32", "bfloat16"):
            out = tmp_path / precision
            asked = ("fill", scan, "--mask", mask, "--force", "-o", out, "--device", "cpu", "--precision", precision)
            assert call(*asked).code == 0
            filled[precision] = np.asarray(nib.load(out / "sub-01_desc-filled_FLAIR.nii.gz").dataobj).astype(float)
            sidecars[precision] = json.loads((out / "sub-01_desc-filled_FLAIR.json").read_text())
        assert "Precision" not in sidecars["float32"]
        assert sidecars["bfloat16"]["Precision"] == sidecars["bfloat16"]["Request"]["Precision"] == "bfloat16"
        assert "Networks were computed in bfloat16 mixed precision." in sidecars["bfloat16"]["Methods"]
        np.testing.assert_array_equal(filled["bfloat16"][lesion == 0], voxels[lesion == 0])
        assert 0 < np.abs(filled["bfloat16"] - filled["float32"]).max() < 0.02 * voxels.max()
        code, _, complained = call("fill", scan, "--mask", mask, "--force", "-o", out, "--device", "cpu")
        assert code == 1, "a result of another precision is not taken for done"
        assert "other settings" in complained

    def test_a_fill_without_a_network_has_no_precision_to_choose(
        self, call: Call, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
    ) -> None:
        scan, mask = write("sub-01_FLAIR.nii.gz", voxels), write("mask.nii.gz", lesion)
        code, _, complained = call(
            *("fill", scan, "--mask", mask, "-b", "harmonic", "-o", tmp_path / "out", "--device", "cpu"),
            *("--precision", "bfloat16"),
        )
        assert code == 2
        assert "found no network of harmonic to compute in it" in complained


def test_a_processor_without_bfloat16_refuses_it(
    call: Call,
    write: Callable[..., Path],
    voxels: np.ndarray,
    lesion: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.devices.has_bfloat16", lambda device: False)
    scan, mask = write("sub-01_FLAIR.nii.gz", voxels), write("mask.nii.gz", lesion)
    code, _, complained = call(
        *("fill", scan, "--mask", mask, "-o", tmp_path / "out", "--device", "cpu", "--precision", "bfloat16"),
    )
    assert code == 2
    assert "leave the option out" in complained
    assert not (tmp_path / "out").exists()
