"""`relabel` as a user meets it: a parcellation in, the same with the lesion, a table and a sidecar out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def parcellation(write: Callable[..., Path], voxels: np.ndarray) -> Path:
    return write("dseg.nii.gz", (voxels > 0).astype(np.int16) * (2 + (np.arange(48) > 24)[:, None]).astype(np.int16))


@pytest.fixture
def mask(write: Callable[..., Path], lesion: np.ndarray) -> Path:
    return write("mask.nii.gz", lesion)


def test_it_writes_the_parcellation_a_table_and_a_sidecar(
    call: Call, parcellation: Path, mask: Path, lesion: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "names.tsv").write_text("index\tname\n2\tposterior\n3\t=anterior\n")
    out = tmp_path / "out" / "with.nii.gz"
    code, said, _ = call("relabel", parcellation, "--mask", mask, "-o", out, "--names", tmp_path / "names.tsv")
    assert code == 0
    assert "the lesion has the label 4; 2 of 2 regions lost" in said
    made, before = nib.load(out), nib.load(parcellation)
    np.testing.assert_array_equal(made.affine, before.affine)
    np.testing.assert_array_equal(np.asarray(made.dataobj), np.where(lesion, 4, np.asarray(before.dataobj)))
    with (out.parent / "with_volumes.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["name"] for row in rows] == ["posterior", "'=anterior", "Lesion"]
    assert sum(float(row["lost_ml"]) for row in rows) == pytest.approx(int(lesion.sum()) * 0.003, rel=1e-4)
    described = json.loads((out.parent / "with_volumes.json").read_text())
    assert list(rows[0]) == list(described)
    sidecar = json.loads((out.parent / "with.json").read_text())
    assert sidecar["Request"]["Mask"]["Name"] == "mask.nii.gz"
    assert call("verify", out, "--source", parcellation).code == 0


@pytest.mark.parametrize("suffix", [".mgz", ".nii"])
def test_freesurfer_s_files_go_in_and_out(
    call: Call, parcellation: Path, mask: Path, tmp_path: Path, suffix: str
) -> None:
    image = nib.load(parcellation)
    nib.save(nib.MGHImage(np.asarray(image.dataobj).astype(np.int32), image.affine), tmp_path / "aseg.mgz")
    out = tmp_path / f"with{suffix}"
    assert call("relabel", tmp_path / "aseg.mgz", "--mask", mask, "-o", out, "--label", 77).code == 0
    labels = np.asarray(nib.load(out).dataobj)
    np.testing.assert_array_equal(labels == 77, np.asarray(nib.load(mask).dataobj) > 0)
    assert call("verify", out).code == 0


@pytest.mark.parametrize(
    ("output", "said"),
    [("mask.nii.gz", "is one of the files that are read"), ("with.nrrd", "expected a name"), ("there.nii", "exists")],
)
def test_no_file_is_replaced_unasked(
    call: Call, parcellation: Path, mask: Path, tmp_path: Path, output: str, said: str
) -> None:
    (tmp_path / "there.nii").touch()
    before = mask.read_bytes()
    code, _, told = call("relabel", parcellation, "--mask", mask, "-o", tmp_path / output)
    assert code == 2
    assert said in told
    assert mask.read_bytes() == before
    assert call("relabel", parcellation, "--mask", mask, "-o", tmp_path / "there.nii", "--overwrite").code == 0


@pytest.mark.parametrize("beside", ["with.json", "with_volumes.tsv", "with_volumes.json"])
def test_nor_is_one_that_is_written_beside_it(
    call: Call, parcellation: Path, mask: Path, tmp_path: Path, beside: str
) -> None:
    (tmp_path / beside).write_text("mine")
    code, _, told = call("relabel", parcellation, "--mask", mask, "-o", tmp_path / "with.nii")
    assert code == 2
    assert f"{beside} too, which exists" in told
    assert (tmp_path / beside).read_text() == "mine"
    assert not (tmp_path / "with.nii").exists()
    names = (tmp_path / "with_volumes.tsv").rename(tmp_path / "names") if beside.endswith("tsv") else None
    if names is not None:
        names.write_text("index\tname\n2\tposterior\n")
        names = names.rename(tmp_path / "with_volumes.tsv")
        given = ("--names", names, "-o", tmp_path / "with.nii", "--overwrite")
        assert "is one of the files that are read" in call("relabel", parcellation, "--mask", mask, *given)[2]
