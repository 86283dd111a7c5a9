"""Whatever the grid, data type and kind of file: results lie on the scan, and what was not edited is the same."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import nn

from pipeline.inference import Request, Translator, predict_scans
from pipeline.inference.outputs import Form
from pipeline.scans.sources import open_sources

DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "float32", "float64")
SWAPS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product((-1, 1), repeat=3))
TRIES = itertools.count()


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Any rotation, swap and flip of axes, spacing and origin, with a field of view that a head fits into."""
    shape = tuple(draw(st.integers(12, 28)) for _ in range(3))
    angles = [draw(st.floats(-180, 180)) for _ in range(3)]
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes = axes @ (np.eye(3)[:, draw(st.sampled_from(SWAPS))] * draw(st.sampled_from(FLIPS)))
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag([draw(st.floats(1, 6)) for _ in range(3)])
    affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    return shape, affine


def head(shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """In [0, 1]: air 0, an ellipsoid of noisy tissue, a bright lesion in the middle."""
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    squares = (axes**2).sum(axis=0)
    tissue = np.random.default_rng(seed).uniform(0.35, 0.45, shape) * (squares < 0.8)
    return np.where(squares < 0.1, 0.95, tissue)


def stored_as(dtype: np.dtype, intensities: NDArray[np.float64]) -> NDArray[np.generic]:
    largest = min(float(np.iinfo(dtype).max), 30000) if dtype.kind in "iu" else 30000
    return (intensities * largest).astype(dtype)


def run(
    make: Callable[..., Translator], network: nn.Module, path: Path, out: Path, form: Form | None = None
) -> list[Path]:
    """The files written for one scan."""
    with open_sources([path]) as sources:
        synthesizer = make(network, 2.0)
        synthesizer.window = type(synthesizer.window)()  # V99.5, whatever the units
        request = Request(form or Form())
        outcome = predict_scans(sources, synthesizer, {}, out, lambda *_: None, request)
    (record,) = outcome.records.values()
    assert record.status == "written", record.error
    return record.files


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid=grids(),
    dtype=st.sampled_from(DTYPES).map(np.dtype),
    slope=st.sampled_from((0.0, 1.0, 0.5, 0.013)),
    codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_nifti_file(
    grid: tuple[tuple[int, ...], NDArray[np.float64]],
    dtype: np.dtype,
    slope: float,
    codes: tuple[int, int],
    seed: int,
    tmp_path: Path,
    make_synthesizer: Callable[..., Translator],
    darken: nn.Module,
) -> None:
    shape, affine = grid
    voxels = stored_as(dtype, head(shape, seed))
    image = nib.Nifti1Image(voxels, None, dtype=dtype)
    image.header.set_qform(affine, code=codes[0])
    image.header.set_sform(affine, code=codes[1])
    image.header.set_slope_inter(slope or None, 0.0 if slope else None)
    folder = tmp_path / str(next(TRIES))
    folder.mkdir()
    nib.save(image, folder / "scan.nii")
    source = nib.load(folder / "scan.nii")
    written = {path.name: path for path in run(make_synthesizer, darken, folder / "scan.nii", folder / "out")}

    twin = nib.load(written["scan_desc-pseudohealthy.nii.gz"])
    anomaly = nib.load(written["scan_desc-anomaly.nii.gz"])
    lesion = nib.load(written["scan_label-lesion_mask.nii.gz"])
    for result in (twin, anomaly, lesion):
        assert result.shape == source.shape
        assert result.affine.tobytes() == source.affine.tobytes()
        for field in ("pixdim", "qform_code", "sform_code", "xyzt_units"):
            assert result.header[field].tobytes() == source.header[field].tobytes(), field
    before, after = (np.asarray(each.dataobj.get_unscaled()) for each in (source, twin))
    assert after.dtype == before.dtype
    change = np.asarray(anomaly.dataobj.get_unscaled())
    assert change.any(), "the lesion is edited"
    untouched = change == 0
    assert after[untouched].tobytes() == before[untouched].tobytes()
    # Air is never edited, and scan = twin + anomaly to the last bit of an integer.
    assert untouched[head(shape, seed) == 0].all()
    if dtype.kind in "iu":
        np.testing.assert_array_equal(before.astype(np.int64) - after, change)
    shutil.rmtree(folder)


@pytest.mark.slow
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid=grids(),
    dtype=st.sampled_from(("uint8", "int16", "uint16")).map(np.dtype),
    modality=st.sampled_from(("MR", "CT")),
    multiframe=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_dicom_series(
    grid: tuple[tuple[int, ...], NDArray[np.float64]],
    dtype: np.dtype,
    modality: str,
    multiframe: bool,
    seed: int,
    tmp_path: Path,
    make_synthesizer: Callable[..., Translator],
    darken: nn.Module,
    dicom_series: Callable[..., list[Path]],
) -> None:
    shape, affine = grid
    folder = tmp_path / str(next(TRIES))
    dicom_series(
        folder / "series",
        stored_as(dtype, head(shape, seed)),
        affine=affine,
        modality=modality,
        multiframe=multiframe,
    )
    (first, *_) = run(make_synthesizer, darken, folder / "series", folder / "out")
    # A synthetic series is refused as a scan.
    for file in first.parent.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.SyntheticData
        dataset.save_as(file)
    with open_sources([folder / "series"]) as (source,), open_sources([first.parent]) as (made,):
        scan, twin = source.read(), made.read()
    assert twin.shape == scan.shape
    np.testing.assert_allclose(twin.affine, scan.affine, atol=1e-9)
    changed = twin.stored != scan.stored
    assert changed.any()
    assert not changed[scan.stored == 0].any()
    np.testing.assert_array_equal(twin.intensities()[~changed], scan.intensities()[~changed])
    shutil.rmtree(folder)
