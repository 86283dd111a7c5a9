"""The files of a scan: what they are called, and when they are taken for finished."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import Result, Translator
from pipeline.inference.enhance import enhance
from pipeline.inference.outputs import Form, Outputs, output_names
from pipeline.reports import ScanPage
from pipeline.scans import Scan
from pipeline.scans.sources import Source, open_sources

SOURCE = Source(Path("scan.nii.gz"), "scan", "nifti")
ABOUT = {"Bundle": "gvs", "BundleVersion": "0.0.1", "WeightsSha256": "0" * 64}
REQUEST = {"Source": {"Name": "scan.nii.gz"}, "Slab": {"slices": None}, "Window": (0.0, 1.0)}


TWIN, ENHANCED = ("pseudohealthy", "image"), ("enhanced", "image")


@pytest.fixture
def twin(scan: Scan, make_synthesizer: Callable[..., Translator], darken: nn.Module) -> Result:
    return make_synthesizer(darken)(scan).result


def made(twin: Result, alpha: float | None) -> tuple[Result, tuple[str, Any]]:
    """The twin, or enhanced by alpha, and name and kind of its main product."""
    result = twin if alpha is None else enhance(twin, alpha)
    return result, (result.main.name, result.main.kind)


def nifti(path: str, dataset: Path | None = None) -> Source:
    return Source(Path(path), Path(path).name.split(".")[0], "nifti", dataset)


class TestNames:
    def test_scans_are_named_as_they_are_and_with_their_folder_where_two_share_a_name(self) -> None:
        names = output_names([nifti("a/flair.nii.gz"), nifti("b/flair.nii.gz"), nifti("c/t2.nii")])
        assert list(names) == ["a_flair", "b_flair", "t2"]

    def test_a_scan_that_is_named_twice_is_one_scan(self) -> None:
        scans = [nifti("a/flair.nii.gz"), nifti("a/t2.nii"), nifti("a/flair.nii.gz")]
        assert output_names(scans) == {"flair": scans[0], "t2": scans[1]}

    def test_more_of_the_path_tells_scans_whose_folders_share_a_name(self) -> None:
        scans = [nifti("P01/anat/FLAIR.nii.gz"), nifti("P02/anat/FLAIR.nii.gz"), nifti("other/T1w.nii.gz")]
        assert list(output_names(scans)) == ["P01_anat_FLAIR", "P02_anat_FLAIR", "T1w"]
        assert list(output_names(scans, part=(1, 2))) == ["P02_anat_FLAIR"]

    def test_what_a_file_is_called_in_full_tells_scans_of_one_folder(self) -> None:
        scans = [nifti("a/x.nii"), nifti("a/x.nii.gz"), nifti("a/y.nii.gz")]
        assert list(output_names(scans)) == ["x-nii", "x-nii-gz", "y"]

    def test_runs_that_share_the_scans_name_them_as_one_run_would(self) -> None:
        scans = [nifti(f"{folder}/flair.nii.gz") for folder in "abcde"]
        whole = output_names(scans)
        parts = [output_names(scans, part=(k, 3)) for k in range(3)]
        assert {name: source for part in parts for name, source in part.items()} == whole
        assert sum(len(part) for part in parts) == len(whole)

    def test_dicom_is_named_by_its_hash_unless_names_may_be_kept(
        self, dicom_series: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        dicom_series(tmp_path / "DOE_JOHN", np.arange(960, dtype=np.int16).reshape(8, 12, 10))
        with open_sources([tmp_path / "DOE_JOHN"]) as sources:
            (name,) = output_names(sources)
            assert re.fullmatch("dicom-[0-9a-f]{8}", name)
            assert list(output_names(sources, keep_names=True)) == ["DOE_JOHN"]

    def test_a_dicom_series_that_lies_in_two_places_is_refused_in_each_share(
        self, dicom_series: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        dicom_series(tmp_path / "a", np.arange(960, dtype=np.int16).reshape(8, 12, 10))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        with open_sources([tmp_path / "a", tmp_path / "b"]) as sources:
            for part in ((0, 1), (0, 2), (1, 2)):
                with pytest.raises(UsageError, match="would have one name"):
                    output_names(sources, part=part)

    def test_parts_of_a_series_in_two_places_are_two_scans_with_the_same_names_in_each_share(
        self, dicom_series: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        for folder in ("a", "b"):
            voxels = np.arange(960, dtype=np.int16).reshape(8, 12, 10) + ord(folder)
            dicom_series(tmp_path / folder, voxels, SeriesInstanceUID="2.25.7")
        with open_sources([tmp_path / "a", tmp_path / "b"]) as sources:
            whole = output_names(sources)
            assert len(whole) == 2
            assert output_names(sources, part=(0, 2)) | output_names(sources, part=(1, 2)) == whole


def test_the_page_tells_all_settings_and_nothing_without_a_name(twin: Result, tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, "scan", SOURCE, TWIN, Form(page=ScanPage()))
    outputs.write(twin, {**REQUEST, "Slab": {"thickness_mm": 47.5}}, ABOUT)
    page = outputs.path(*TWIN, ".html").read_text(encoding="utf-8")
    rows = dict(re.findall(r"<th[^>]*>([^<]*)</th>\s*<td[^>]*>([^<]*)</td>", page))
    assert rows["Slab: thickness_mm"] == "47.5"
    assert rows["Orientation"] == "RAS"
    assert "" not in rows


class TestDone:
    def test_what_the_same_request_wrote_is_done(self, twin: Result, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan", SOURCE, TWIN)
        assert not outputs.done(REQUEST)
        outputs.write(twin, REQUEST, ABOUT)
        assert outputs.done(REQUEST)

    @pytest.mark.parametrize("lost", ["pseudohealthy", "anomaly"])
    def test_with_a_volume_missing_it_is_not_done(self, lost: str, twin: Result, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan", SOURCE, TWIN)
        outputs.write(twin, REQUEST, ABOUT)
        outputs.path(lost, "image", ".nii.gz").unlink()
        assert not outputs.done(REQUEST)

    def test_what_another_request_wrote_is_refused(self, twin: Result, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan", SOURCE, TWIN)
        outputs.write(twin, REQUEST, ABOUT)
        with pytest.raises(UsageError, match=r"desc-pseudohealthy\.json: holds a result made from another scan"):
            outputs.done({**REQUEST, "Slab": {"slices": 60}})

    @pytest.mark.parametrize(
        "sidecar",
        [
            "",
            "{",
            "[]",
            "null",
            "7",
            "{}",
            json.dumps({"Request": REQUEST}),
            json.dumps({"Request": REQUEST, "Outputs": 7}),
        ],
    )
    def test_sidecar_that_does_not_say_so_is_refused(self, sidecar: str, twin: Result, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan", SOURCE, TWIN)
        outputs.write(twin, REQUEST, ABOUT)
        outputs.sidecar.write_text(sidecar)
        with pytest.raises(
            UsageError, match=r"desc-pseudohealthy\.json: holds a result made from another .* --overwrite"
        ):
            outputs.done(REQUEST)


def test_an_enhanced_scan_leaves_the_twin_beside_it_alone(twin: Result, tmp_path: Path) -> None:
    Outputs(tmp_path, "scan", SOURCE, TWIN).write(twin, REQUEST, ABOUT)
    before = sorted(path.name for path in tmp_path.iterdir())
    Outputs(tmp_path, "scan", SOURCE, ENHANCED).write(enhance(twin, 0.7), REQUEST, ABOUT)
    assert set(before) < {path.name for path in tmp_path.iterdir()}


def test_what_cannot_be_written_whole_is_not_written_at_all(
    twin: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ScanError("cannot be drawn")

    monkeypatch.setattr(Outputs, "_draw", refuse)
    with pytest.raises(ScanError, match="cannot be drawn"):
        Outputs(tmp_path / "out", "scan", SOURCE, TWIN).write(twin, REQUEST, ABOUT)
    assert list((tmp_path / "out").iterdir()) == []


class TestSidecar:
    @pytest.mark.parametrize(("alpha", "kind"), [(None, "pseudohealthy"), (0.7, "enhanced"), (0.0, "enhanced")])
    def test_counts_the_voxels_in_which_the_volume_beside_it_differs_from_the_scan(
        self, alpha: float | None, kind: str, twin: Result, tmp_path: Path
    ) -> None:
        result, main = made(twin, alpha)
        outputs = Outputs(tmp_path, "scan", SOURCE, main)
        outputs.write(result, REQUEST, ABOUT)
        volume = nib.load(tmp_path / f"scan_desc-{kind}.nii.gz").dataobj.get_unscaled()
        assert sidecar(outputs)["ChangedVoxels"] == np.count_nonzero(volume != twin.scan.stored)

    def test_enhancement_that_the_data_type_swallows_changes_fewer_voxels_than_the_twin(
        self, twin: Result, tmp_path: Path
    ) -> None:
        result, main = made(twin, 0.001)
        outputs = Outputs(tmp_path, "scan", SOURCE, main)
        outputs.write(result, REQUEST, ABOUT)
        changed = np.count_nonzero(result.main.voxels != twin.scan.stored)
        assert sidecar(outputs)["ChangedVoxels"] == changed == 0
        assert (twin.main.voxels != twin.scan.stored).any()

    def test_warning_names_what_the_volume_is(self, twin: Result, tmp_path: Path) -> None:
        for alpha, warning in (
            (None, "SYNTHETIC pseudo-healthy image for research - NOT FOR DIAGNOSIS"),
            (0.7, "SYNTHETIC lesion-enhanced image for research - NOT FOR DIAGNOSIS"),
        ):
            result, main = made(twin, alpha)
            outputs = Outputs(tmp_path, "scan", SOURCE, main)
            outputs.write(result, REQUEST, ABOUT)
            assert sidecar(outputs)["Warning"] == warning


def sidecar(outputs: Outputs) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(outputs.sidecar.read_text())
    return content
