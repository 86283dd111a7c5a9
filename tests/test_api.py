"""The five calls of `pipeline.api`, as a notebook makes them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import pipeline
from pipeline import evaluate, fill, load_predictor, read_cohort, synthesize
from pipeline.bundles import bundles_folder
from pipeline.errors import ScanError, UsageError
from pipeline.networks import JohnsonGenerator
from pipeline.scans.nifti import is_marked

AFFINE = np.diag([-2.0, 2.0, 4.0, 1.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translator that darkens everything by the same share of the window, and was trained on scans of any kind."""
    folder = tmp_path_factory.mktemp("runs") / "gvs"
    shutil.copytree(bundles_folder() / "gvs" / "configs", folder / "configs")
    settings = {"spacing_mm": 4.0, "size": [32, 32], "filters": 2, "residual_blocks": 1, "flip_average": False}
    for name, changes in (("inference", settings), ("metadata", {"training_domain": None})):
        path = folder / "configs" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    network = JohnsonGenerator(filters=2, residual_blocks=1, upsampling="bilinear", output="residual")
    torch.nn.init.constant_(network.last.bias, -0.1)
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    """A head of some 400, int16, shape (40, 40, 6)."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (40, 40, 6)), indexing="ij"))
    noise = np.random.default_rng(0).integers(0, 100, grid.shape[1:])
    return (((grid**2).sum(axis=0) < 0.8) * (350 + noise)).astype(np.int16)


@pytest.fixture(scope="module")
def lesion(voxels: np.ndarray) -> np.ndarray:
    mask = np.zeros(voxels.shape, bool)
    mask[18:23, 18:23, 2:4] = True
    return mask


def test_the_package_is_imported_without_what_the_calls_need() -> None:
    heavy = "print(sorted({'torch', 'monai', 'numpy', 'pipeline.api'} & set(sys.modules)), 'fill' in dir(pipeline))"
    done = subprocess.run([sys.executable, "-c", f"import sys, pipeline; {heavy}"], capture_output=True, text=True)
    assert done.stdout.strip() == "[] True"
    with pytest.raises(AttributeError, match="has no attribute 'synthesise'"):
        _ = pipeline.synthesise


def test_an_array_gives_arrays_on_its_grid_and_an_image_gives_images(run: Path, voxels: np.ndarray) -> None:
    loaded = load_predictor(run, device="cpu")
    made = synthesize(voxels, loaded, affine=AFFINE)
    assert (made.image.shape, made.image.dtype) == (voxels.shape, voxels.dtype)
    inside = voxels > 0
    assert made.image[inside].mean() < 0.97 * voxels[inside].mean()
    np.testing.assert_array_equal(made.products["anomaly"], voxels - made.image)
    assert made.provenance["Bundle"] == "gvs"
    assert made.provenance["SyntheticData"] is True
    assert made.figures["ChangedMl"] > 0

    source = nib.Nifti1Image(voxels, AFFINE)
    source.header.set_slope_inter(2.0, 10.0)
    image = synthesize(source, loaded).image
    assert is_marked(image.header)
    np.testing.assert_array_equal(image.affine, AFFINE)


def test_a_path_gives_what_its_image_gives(run: Path, voxels: np.ndarray, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "scan.nii.gz")
    loaded = load_predictor(run, device="cpu")
    of_path, of_image = (
        synthesize(each, loaded) for each in (tmp_path / "scan.nii.gz", nib.Nifti1Image(voxels, AFFINE))
    )
    np.testing.assert_array_equal(of_path.image.get_fdata(), of_image.image.get_fdata())


def test_several_scans_give_a_list_and_tell_how_far_they_are(voxels: np.ndarray, lesion: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    loaded = load_predictor("harmonic", device="cpu")
    made = fill([voxels, voxels], [lesion, lesion], loaded, affine=AFFINE, progress=lambda *count: told.append(count))
    assert told == [(1, 2), (2, 2)]
    for each in made:
        np.testing.assert_array_equal(each.image[~lesion], voxels[~lesion])
        assert (each.image[lesion] != voxels[lesion]).any()


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (synthesize, UsageError, "affine: found none"),
        (lambda scan, run: synthesize("no_such.nii.gz", run), UsageError, "no_such.nii.gz"),
        (lambda scan, run: synthesize(7, run), UsageError, "found a int, expected a path"),
        (lambda scan, run: synthesize(scan[..., 0], run, affine=AFFINE), ScanError, "scan in memory: found an array"),
        (lambda scan, run: synthesize(scan * 0, run, affine=AFFINE), ScanError, "found a constant volume"),
        (lambda scan, run: synthesize(scan * 1j, run, affine=AFFINE), ScanError, "expected one real number a voxel"),
        (lambda scan, run: synthesize(scan, "harmonic", affine=AFFINE), UsageError, "is a filler"),
        (lambda scan, run: fill(scan, scan > 0, load_predictor(run), affine=AFFINE), UsageError, "expected a filler"),
        (lambda scan, run: fill([scan, scan], [scan > 0], "harmonic", affine=AFFINE), UsageError, "found 1 for 2"),
        (lambda scan, run: read_cohort(run), UsageError, "cohort.json"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    call: Callable[..., Any], error: type, told: str, run: Path, voxels: np.ndarray
) -> None:
    with pytest.raises(error, match=told):
        call(voxels, run)


def test_a_result_of_ours_is_refused_as_a_scan(run: Path, voxels: np.ndarray) -> None:
    loaded = load_predictor(run, device="cpu")
    twin = synthesize(nib.Nifti1Image(voxels, AFFINE), loaded).image
    with pytest.raises(ScanError, match="is synthetic already"):
        synthesize(twin, loaded)


def test_a_scan_that_is_unlike_those_of_the_training_is_refused_unless_it_is_forced(
    voxels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([0.2, 0.2, 60.0, 1.0])), path)
    loaded = load_predictor("gvs", device="cpu")
    with pytest.raises(ScanError, match="force=True makes it all the same"):
        synthesize(path, loaded)
    assert synthesize(path, loaded, force=True).warnings


@pytest.mark.slow
def test_a_cohort_is_read_and_a_predictor_is_measured_on_it(run: Path, phantom_cohort: Path, tmp_path: Path) -> None:
    scans = read_cohort(phantom_cohort, "test")
    assert {scan.about.split for scan in scans} == {"test"}
    image, mask = scans[0].image, scans[0].mask
    assert (image.ndim, image.shape[1], image.dtype) == (4, 1, np.float32)
    assert 0 <= image.min() < image.max() <= 1
    assert mask is not None
    assert mask.shape == (len(image), *image.shape[2:])
    assert len(read_cohort(phantom_cohort)) > len(scans)

    told: list[tuple[int, int]] = []
    summary = evaluate(
        run, phantom_cohort, tmp_path / "report", judge=None, device="cpu", progress=lambda *count: told.append(count)
    )
    assert told[-1] == (len(scans), len(scans))
    assert {"gvs", "untouched input"} <= set(summary["methods"])
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["methods"] == summary["methods"]
