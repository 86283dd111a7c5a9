"""`translate` as a user meets it: a synthetic image on the scan's own grid, marked so."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.networks import SourceTranslators
from pipeline.scans.nifti import is_marked

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def translating_run(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """A run with small generators of these sources, of which the second's answer is bright everywhere."""

    def run(*sources: str) -> Path:
        torch.manual_seed(0)
        networks = SourceTranslators(sources, filters=2, residual_blocks=1)
        torch.nn.init.constant_(networks[sources[-1]].last.bias, 3.0)
        settings = {"translator_filters": 2, "residual_blocks": 1, "spacing_mm": 1.0, "size": [48, 48]}
        settings |= {"target_modality": "CT", "upsampling": "transposed"}
        window = {"fixed_window": [0, 1000], "slab_mm": None}
        folder = make_run("duiit", networks, sources=list(sources), **settings, **window)
        (folder / "models" / "model.pt").rename(folder / "models" / "translators.pt")
        return folder

    return run


def test_the_image_lies_on_the_scan_and_says_that_it_is_synthetic(
    call: Call, translating_run: Callable[..., Path], write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    scan, out = write("sub-01_T1w.nii.gz", voxels), tmp_path / "out"
    code, said, _ = call("translate", scan, "-b", translating_run("MR"), "-o", out, "--device", "cpu")
    assert code == 0
    assert "Results are synthetic" in said
    made, given = nib.load(out / "sub-01_desc-translated_T1w.nii.gz"), nib.load(scan)
    assert made.shape == given.shape
    np.testing.assert_array_equal(made.affine, given.affine)
    assert is_marked(made.header)
    sidecar = json.loads((out / "sub-01_desc-translated_T1w.json").read_text())
    assert sidecar["SyntheticData"] is True
    assert "SYNTHETIC translated CT image" in sidecar["Warning"]
    assert (sidecar["SourceModality"], sidecar["TargetModality"]) == ("MR", "CT")
    assert sidecar["Methods"].startswith("The scan was translated from MR into CT with phs-pipeline")
    assert "Translated CT images are synthetic" in sidecar["Methods"]
    assert "CT" in (out / "sub-01_desc-translated_T1w.html").read_text()
    assert call("verify", out).code == 0


def test_of_several_modalities_the_named_one_is_translated(
    call: Call, translating_run: Callable[..., Path], write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    scan, run = write("scan.nii.gz", voxels), translating_run("MR", "PET")
    code, _, said = call("translate", scan, "-b", run, "-o", tmp_path / "none", "--device", "cpu")
    assert code == 2
    assert "--source (not given): the bundle translates MR and PET into CT" in said
    made = {}
    for source in ("MR", "PET"):
        out = tmp_path / source
        assert call("translate", scan, "-b", run, "-o", out, "--source", source, "--device", "cpu").code == 0
        made[source] = np.asarray(nib.load(out / "scan_desc-translated.nii.gz").dataobj)
    assert made["PET"][voxels > 0].mean() > made["MR"][voxels > 0].mean() + 200


def test_dicom_comes_out_as_dicom(
    call: Call,
    translating_run: Callable[..., Path],
    dicom_series: Callable[..., list[Path]],
    voxels: np.ndarray,
    tmp_path: Path,
) -> None:
    dicom_series(tmp_path / "dicom", voxels)
    out = tmp_path / "out"
    given = (tmp_path / "dicom", "-b", translating_run("MR"), "-o", out, "--device", "cpu", "--force")
    assert call("translate", *given).code == 0
    assert len(list(out.rglob("*.dcm"))) == voxels.shape[2]
    assert call("verify", out).code == 0


def test_a_bundle_that_makes_twins_is_for_another_command(
    call: Call, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    code, _, said = call("translate", write("scan.nii.gz", voxels), "-b", "gvs", "-o", tmp_path / "out")
    assert code == 2
    assert "for `phs-pipeline synthesize`, expected a modality translator" in said
