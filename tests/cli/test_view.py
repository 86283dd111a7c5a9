"""`view`: pages for the browser, and masks with names and colours for other viewers."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

Call = Callable[..., Any]
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1.5, 0, -30], [0, 0, 2, 5], [0, 0, 0, 1]])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results of two scans: a mask of a lesion each, and of an edema of one."""
    folder = tmp_path / "out"
    folder.mkdir()
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1:3, 2:5, 3] = 1
    for name in ("a_label-lesion", "a_label-edema", "sub-1_label-lesion_desc-FLAIR"):
        nib.save(nib.Nifti1Image(mask, AFFINE), folder / f"{name}_mask.nii.gz")
    for name in ("a_desc-pseudohealthy", "sub-1_desc-pseudohealthy_FLAIR", "sub-1_desc-pseudohealthy_T1w"):
        nib.save(nib.Nifti1Image(mask.astype(np.int16), AFFINE), folder / f"{name}.nii.gz")
    (folder / "a_desc-pseudohealthy.html").write_text("page a")
    return folder


def test_slicer_gets_a_segmentation_with_names_and_colours_on_the_same_grid(call: Call, out: Path) -> None:
    code, said, _ = call("view", out, "--for", "slicer")
    assert code == 0
    path = out / "viewers" / "a_label-lesion_mask.seg.nrrd"
    assert f"Slicer {out / 'a_desc-pseudohealthy.nii.gz'} {path}" in said
    mine, source = (SimpleITK.ReadImage(str(each)) for each in (path, out / "a_label-lesion_mask.nii.gz"))
    np.testing.assert_array_equal(*map(SimpleITK.GetArrayFromImage, (mine, source)))
    for of in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(mine, of)(), getattr(source, of)(), atol=1e-6)
    head = path.read_bytes().partition(b"\n\n")[0].decode().splitlines()
    assert "space: left-posterior-superior" in head
    assert "Segment0_Name:=lesion" in head
    assert "Segment0_LabelValue:=1" in head
    assert "Segment0_Extent:=0 4 0 5 0 6" in head
    assert "Segmentation_SourceRepresentation:=Binary labelmap" in head
    (colour,) = (line.partition(":=")[2] for line in head if line.startswith("Segment0_Color:="))
    assert all(0 <= float(part) <= 1 for part in colour.split())
    other = (out / "viewers" / "a_label-edema_mask.seg.nrrd").read_bytes().partition(b"\n\n")[0].decode()
    assert f"Segment0_Color:={colour}" not in other


def test_label_tables_of_the_other_viewers_name_label_and_colour(call: Call, out: Path) -> None:
    code, said, _ = call("view", out, "--for", "itksnap", "--for", "freeview", "--for", "niivue")
    assert code == 0
    folder, name = out / "viewers", "sub-1_label-lesion_desc-FLAIR_mask"
    *comments, clear, lesion = (folder / f"{name}.label").read_text().splitlines()
    assert all(line.startswith("#") for line in comments)
    assert clear.split(maxsplit=7)[0] == "0"
    index, *colour = lesion.split()[:4]
    assert (index, lesion.split()[-1]) == ("1", '"lesion"')
    assert lesion.split()[5:7] == ["1", "1"]
    assert (folder / f"{name}.lut.txt").read_text().splitlines()[-1].split() == ["1", "lesion", *colour, "0"]
    table = json.loads((folder / f"{name}.niivue.json").read_text())
    assert [str(table[channel][1]) for channel in "RGB"] == colour
    assert (table["I"], table["labels"], table["A"][0]) == ([0, 1], ["", "lesion"], 0)
    # Over the image of the same contrast.
    assert f"itksnap -g {out / 'sub-1_desc-pseudohealthy_FLAIR.nii.gz'} " in said
    assert ":colormap=lut:lut=" in said


def test_masks_of_one_name_in_two_folders_are_two(call: Call, out: Path) -> None:
    later = out / "later"
    later.mkdir()
    (later / "a_label-lesion_mask.nii.gz").write_bytes((out / "a_label-lesion_mask.nii.gz").read_bytes())
    for _ in range(2):
        assert call("view", out, "--for", "niivue").code == 0
        made = {path.relative_to(out / "viewers").as_posix() for path in out.rglob("a_label-lesion*.niivue.json")}
        assert made == {"a_label-lesion_mask.niivue.json", "later/a_label-lesion_mask.niivue.json"}


@pytest.mark.parametrize("viewer", ["slicer", "itksnap", "freeview"])
def test_commands_to_copy_do_nothing_else_whatever_files_are_called(
    call: Call, out: Path, tmp_path: Path, viewer: str
) -> None:
    mark = tmp_path / "done"
    name = '$(touch done)`touch done`"; touch done; "'
    mask = (out / "a_label-lesion_mask.nii.gz").rename(out / f"{name}_label-lesion_mask.nii.gz")
    _, said, _ = call("view", out, "--for", viewer)
    line = next(line for line in said.splitlines() if mask.name in line and "viewers" in line)
    program = {"slicer": "Slicer", "itksnap": "itksnap", "freeview": "freeview"}[viewer]
    command = line[line.rindex(f": {program} ") + 2 :]
    words = subprocess.run(
        f"{program}() {{ printf '%s\\n' \"$@\"; }}; {command}", shell=True, cwd=tmp_path, capture_output=True, text=True
    ).stdout.splitlines()
    assert not mark.exists()
    assert any(str(mask) in word for word in words)


@pytest.mark.parametrize(
    ("options", "told"),
    [((), "holds no page"), (("--for", "slicer"), "holds no mask of ours"), (("--for", "paint"), "is not one of")],
)
def test_what_cannot_be_shown_is_refused(call: Call, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    code, _, said = call("view", tmp_path, *options)
    assert code == 2
    assert told in said
    assert call("view", tmp_path / "none", *options).code == 2


@pytest.mark.slow
def test_pages_are_served_until_it_is_stopped(out: Path) -> None:
    program = "from pipeline.cli.main import main; main()"
    command = [sys.executable, "-u", "-c", program, "--quiet", "view", str(out), "--no-browser"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as serving:
        assert serving.stdout is not None
        url = serving.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}a_desc-pseudohealthy.html", timeout=30) as answer:
            assert answer.read() == b"page a"
        serving.send_signal(signal.SIGINT)
        assert serving.wait(30) == 0
