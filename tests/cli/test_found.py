"""`synthesize -b SEGMENTER+FILLER`: a twin without a mask, in which only what was found differs from the scan."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.networks import UNetSegmentor

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str, str]]


def stored(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_lesion_is_found_and_filled_and_all_else_is_bit_identical(
    call: Call, segmenter_run: Path, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    scan, out = write("sub-01_FLAIR.nii.gz", voxels), tmp_path / "out"
    code, said, _ = call("synthesize", scan, "-b", f"{segmenter_run}+harmonic", "-o", out, "--device", "cpu")
    assert code == 0
    assert "not for diagnosis" in said
    assert {path.name for path in out.iterdir()} == {
        *(f"sub-01_desc-pseudohealthy_FLAIR{suffix}" for suffix in (".nii.gz", ".json", ".png", ".html")),
        *(f"sub-01_desc-anomaly_FLAIR{suffix}" for suffix in (".nii.gz", ".json")),
        *(f"sub-01_label-lesion_desc-FLAIR_mask{suffix}" for suffix in (".nii.gz", ".json")),
        *(f"sub-01_desc-lesionprobability_FLAIR{suffix}" for suffix in (".nii.gz", ".json")),
    }
    twin = stored(out / "sub-01_desc-pseudohealthy_FLAIR.nii.gz")
    found = stored(out / "sub-01_label-lesion_desc-FLAIR_mask.nii.gz") > 0
    np.testing.assert_array_equal(twin[~found], voxels[~found])
    assert (found & (lesion > 0)).sum() > 0.7 * lesion.sum()
    assert twin[found].max() < voxels[lesion > 0].min()
    assert call("verify", out, "--source", scan).code == 0


def test_the_sidecar_names_both_bundles_and_their_papers(
    call: Call, segmenter_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    scan = write("sub-01_FLAIR.nii.gz", voxels)
    assert call("synthesize", scan, "-b", f"{segmenter_run}+harmonic", "-o", tmp_path / "out").code == 0
    sidecar = json.loads((tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.json").read_text())
    assert sidecar["Request"]["Bundle"] == "unet_segmentation+harmonic"
    first, _, second = sidecar["Request"]["WeightsSha256"].partition("+")
    assert (len(first), second) == (64, "None")
    cited = " ".join(sidecar["Citations"])
    assert "U-Net" in cited
    assert len(sidecar["Citations"]) == len(set(sidecar["Citations"]))


def test_how_far_the_fill_may_be_from_the_truth_is_mapped_where_the_lesion_was(
    call: Call, segmenter_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    scan, out = write("sub-01_FLAIR.nii.gz", voxels), tmp_path / "out"
    assert call("synthesize", scan, "-b", f"{segmenter_run}+fill", "-o", out, "--uncertainty").code == 0
    found = stored(out / "sub-01_label-lesion_desc-FLAIR_mask.nii.gz") > 0
    uncertainty = stored(out / "sub-01_desc-uncertainty_FLAIR.nii.gz")
    assert uncertainty[found].min() > 0
    assert not uncertainty[~found].any()
    sidecar = json.loads((out / "sub-01_desc-pseudohealthy_FLAIR.json").read_text())
    assert sidecar["Request"]["Uncertainty"] is True


def test_a_filler_whose_error_is_not_known_says_so_before_a_scan_is_read(
    call: Call, segmenter_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"no scan")
    given = ("-b", f"{segmenter_run}+harmonic", "-o", tmp_path / "out", "--uncertainty")
    code, _, complaint = call("synthesize", tmp_path / "scan.nii.gz", *given)
    assert code == 2
    assert complaint.splitlines()[-1].startswith("Error: --uncertainty, --samples: found no calibrated error")
    assert not (tmp_path / "out").exists()


def test_where_nothing_is_found_nothing_is_changed_and_that_is_said(
    call: Call, make_run: Callable[..., Path], write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    blind = UNetSegmentor(filters=4)
    torch.nn.init.zeros_(blind.unet.final_conv.weight)
    settings = {"filters": 4, "spacing_mm": 1.0, "size": [48, 48], "fixed_window": [0, 1000], "slab_mm": None}
    run = make_run("unet_segmentation", blind, **settings)
    scan = write("sub-01_FLAIR.nii.gz", voxels)
    _, said, _ = call("synthesize", scan, "-b", f"{run}+harmonic", "-o", tmp_path / "out")
    assert "no lesion was found, and the scan was left as it is" in said
    np.testing.assert_array_equal(stored(tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.nii.gz"), voxels)


def test_it_is_enhanced_as_any_translator_s_result(
    call: Call, segmenter_run: Path, write: Callable[..., Path], voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path
) -> None:
    scan = write("sub-01_FLAIR.nii.gz", voxels)
    given = ("enhance", scan, "-b", f"{segmenter_run}+harmonic", "-o", tmp_path / "out", "--alpha", "1")
    assert call(*given).code == 0
    enhanced = stored(tmp_path / "out" / "sub-01_desc-enhanced_FLAIR.nii.gz")
    assert enhanced[lesion > 0].mean() > voxels[lesion > 0].mean()


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (("harmonic", "harmonic"), "harmonic: is a filler, for `phs-pipeline fill`, expected a segmenter"),
        ((None, "gvs"), "gvs: is a translator, for `phs-pipeline synthesize`, expected a filler"),
        ((None, "nonsense"), "nonsense: no bundle of that name"),
    ],
)
def test_two_bundles_that_do_not_go_together_are_refused(
    call: Call,
    segmenter_run: Path,
    write: Callable[..., Path],
    voxels: np.ndarray,
    parts: tuple[str | None, str],
    sentence: str,
    tmp_path: Path,
) -> None:
    scan = write("sub-01_FLAIR.nii.gz", voxels)
    named = "+".join(str(part or segmenter_run) for part in parts)
    code, _, complaint = call("synthesize", scan, "-b", named, "-o", tmp_path / "out")
    assert (code, sentence in complaint) == (2, True), complaint


def test_it_is_no_filler_and_no_segmenter(
    call: Call, segmenter_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    scan = write("sub-01_FLAIR.nii.gz", voxels)
    code, _, complaint = call("segment", scan, "-b", f"{segmenter_run}+harmonic", "-o", tmp_path / "out")
    assert code == 2
    assert "is a translator, for `phs-pipeline synthesize`, expected a segmenter" in complaint


def test_a_folder_with_a_plus_in_its_name_is_a_run(
    call: Call, segmenter_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    run = tmp_path / "wide+deep"
    run.symlink_to(segmenter_run)
    scan = write("sub-01_FLAIR.nii.gz", voxels)
    assert call("segment", scan, "-b", run, "-o", tmp_path / "out").code == 0
    code, _, complaint = call("synthesize", scan, "-b", f"{run}+harmonic", "-o", tmp_path / "twin")
    assert code == 0, complaint
