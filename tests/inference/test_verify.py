"""What can be said of a file: is it ours, is it unchanged, and from what; whatever lies beside it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.files import SMALL_FILE, sha256
from pipeline.identity import read_sidecar
from pipeline.inference import verify as module
from pipeline.inference.verify import Register, Standing, says_ours, sidecars_below, source_hashes
from pipeline.scans import Scan, read_nifti, write_nifti
from pipeline.scans.dicom import find_series
from pipeline.scans.dicom_out import write_dicom

REQUEST = {
    "Source": {"Name": "flair.nii.gz", "Sha256": "5" * 64},
    "Alpha": None,
    "Slab": {"thickness_mm": 60.0},
    "Bundle": "gvs",
    "BundleVersion": "1.2.0",
    "WeightsSha256": "a" * 64,
    "ConfigSha256": "b" * 64,
}


def sidecar(folder: Path, outputs: list[Path], name: str = "twin.json", **entries: Any) -> Path:
    """The record of some files in a folder or below it, as `synthesize` writes it."""
    content = {
        "GeneratedBy": [{"Name": "phs-pipeline", "Version": "0.4"}],
        "Outputs": {path.relative_to(folder).as_posix(): sha256(path) for path in outputs},
        "Request": REQUEST,
        **entries,
    }
    (folder / name).write_text(json.dumps(content))
    return folder / name


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    path = tmp_path / "twin.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)), path)
    return path


@pytest.fixture
def series(dicom_series: Callable[..., list[Path]], tmp_path: Path) -> Path:
    """The folder of a DICOM series of ours, with its sidecar beside it."""
    stored = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    files = dicom_series(tmp_path / "source", stored)
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_sform(np.eye(4), 1)
    scan = Scan(stored, 1.0, 0.0, header, tmp_path / "source", find_series(files)[0])
    written = write_dicom(tmp_path / "out" / "twin", stored, scan, "SYNTHETIC", REQUEST)
    sidecar(tmp_path / "out", written)
    return tmp_path / "out" / "twin"


def standing(path: Path) -> Standing:
    return Register().verify(path).standing


class TestFile:
    @pytest.mark.parametrize("name", ["twin.nii.gz", "twin.png", "twin.html"])
    def test_as_its_sidecar_says_it_is_unchanged(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b"content")
        sidecar(tmp_path, [tmp_path / name])
        assert standing(tmp_path / name) is Standing.UNCHANGED

    def test_one_bit_makes_it_changed(self, twin: Path) -> None:
        sidecar(twin.parent, [twin])
        content = bytearray(twin.read_bytes())
        content[-1] ^= 1
        twin.write_bytes(content)
        assert standing(twin) is Standing.CHANGED

    def test_without_a_sidecar_a_nifti_file_is_not_ours(self, twin: Path) -> None:
        (twin.parent / "other.json").write_text(
            '{"GeneratedBy": [{"Name": "dcm2niix"}], "Outputs": {"twin.nii.gz": ""}}'
        )
        assert standing(twin) is Standing.FOREIGN

    def test_moved_to_another_name_it_is_not_ours(self, twin: Path) -> None:
        sidecar(twin.parent, [twin])
        moved = twin.rename(twin.with_name("patient.nii.gz"))
        assert standing(moved) is Standing.FOREIGN

    def test_of_several_sidecars_the_one_that_fits_counts(self, twin: Path) -> None:
        sidecar(twin.parent, [twin], "b.json")
        stale = json.loads((twin.parent / "b.json").read_text())
        stale["Outputs"]["twin.nii.gz"] = "0" * 64
        (twin.parent / "a.json").write_text(json.dumps(stale))
        assert standing(twin) is Standing.UNCHANGED

    def test_a_sidecar_itself_is_named_as_such_and_stands_for_the_files_that_it_names(self, twin: Path) -> None:
        path = sidecar(twin.parent, [twin])
        verdict = Register().verify(path)
        assert verdict.standing is Standing.SIDECAR
        assert verdict.is_sound
        twin.write_bytes(b"something else")
        verdict = Register().verify(path)
        assert verdict.standing is Standing.STALE
        assert not verdict.is_sound

    @pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b/c", "..", "link/secret", ""])
    def test_a_sidecar_does_not_lead_out_of_its_folder(self, name: str, twin: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "secret").write_text("secret")
        (twin.parent / "link").symlink_to(elsewhere)
        path = sidecar(twin.parent, [twin])
        content = json.loads(path.read_text())
        content["Outputs"][name] = sha256(elsewhere / "secret")
        path.write_text(json.dumps(content))
        assert Register().verify(path).standing is Standing.STALE

    def test_a_marked_file_without_a_sidecar_is_ours_though_it_is_not_known_what_it_was(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
        nib.save(image, tmp_path / "scan.nii")
        scan = read_nifti(tmp_path / "scan.nii")
        write_nifti(tmp_path / "renamed.nii.gz", scan.stored, scan)
        assert standing(tmp_path / "scan.nii") is Standing.FOREIGN
        assert standing(tmp_path / "renamed.nii.gz") is Standing.UNRECORDED

    def test_is_found_by_a_relative_path(self, twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sidecar(twin.parent, [twin])
        monkeypatch.chdir(twin.parent)
        assert standing(Path("twin.nii.gz")) is Standing.UNCHANGED

    def test_a_pipe_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.nii.gz")
        os.mkfifo(tmp_path / "pipe.json")
        assert standing(tmp_path / "pipe.nii.gz") is Standing.FOREIGN


class TestMany:
    def test_a_folder_is_read_through_once_for_all_its_files_and_what_is_said_is_not_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count, read = 100, []
        files = [tmp_path / f"twin{number}.nii.gz" for number in range(count)]
        for number, file in enumerate(files):
            file.write_bytes(bytes([number]))
            sidecar(tmp_path, [file], f"twin{number}.json")
        parse = module.read_sidecar
        monkeypatch.setattr(module, "read_sidecar", lambda path: read.append(path) or parse(path))
        register = Register()
        assert {register.verify(file).standing for file in files} == {Standing.UNCHANGED}
        assert len(read) == 2 * count
        read.clear()
        assert [register.verify(path).standing for path in sidecars_below(tmp_path)] == [Standing.SIDECAR] * count
        assert len(read) == 2 * count


class TestSeries:
    def test_its_folder_and_each_file_are_unchanged(self, series: Path) -> None:
        verdict = Register().verify(series)
        assert (verdict.standing, verdict.detail) == (Standing.UNCHANGED, "3 files")
        assert all(standing(file) is Standing.UNCHANGED for file in series.iterdir())

    def test_tells_how_many_files_are_changed_missing_or_not_ours(self, series: Path) -> None:
        (series / "IM_0001.dcm").unlink()
        with (series / "IM_0002.dcm").open("ab") as file:
            file.write(b"\0")
        (series / "IM_0009.dcm").write_bytes(b"")
        verdict = Register().verify(series)
        assert (verdict.standing, verdict.detail) == (
            Standing.CHANGED,
            "of 3 files, 1 changed, 1 missing, 1 not ours",
        )

    def test_without_its_sidecar_it_still_says_that_it_is_ours(self, series: Path) -> None:
        (series.parent / "twin.json").unlink()
        assert standing(series) is Standing.UNRECORDED
        assert standing(series / "IM_0002.dcm") is Standing.UNRECORDED

    def test_its_source_is_not_ours(self, series: Path) -> None:
        source = series.parent.parent / "source"
        assert standing(source) is Standing.FOREIGN
        assert not any(says_ours(file) for file in source.iterdir())


class TestAccount:
    def test_tells_source_model_hashes_and_settings(self, twin: Path) -> None:
        sidecar(twin.parent, [twin])
        assert Register().verify(twin).lines() == [
            "ours and unchanged",
            f"source: flair.nii.gz, SHA-256 {'5' * 64}",
            "model: gvs 1.2.0, by phs-pipeline 0.4",
            f"weights: SHA-256 {'a' * 64}; config: SHA-256 {'b' * 64}",
            'settings: Alpha null, Slab {"thickness_mm": 60.0}',
        ]

    def test_source_beside_the_file_is_compared(self, twin: Path) -> None:
        source = twin.with_name("flair.nii.gz")
        source.write_bytes(b"scan")
        sidecar(twin.parent, [twin], Request=REQUEST | {"Source": {"Name": "flair.nii.gz", "Sha256": sha256(source)}})
        same = Register().verify(twin)
        source.write_bytes(b"another scan")
        other = Register().verify(twin)
        assert (same.is_sound, other.is_sound) == (True, False)
        assert other.standing is Standing.UNCHANGED
        assert "it is ANOTHER scan" in other.lines()[1]

    def test_a_given_source_is_compared(self, twin: Path, tmp_path: Path) -> None:
        scan = tmp_path / "elsewhere" / "scan.nii.gz"
        scan.parent.mkdir()
        scan.write_bytes(twin.read_bytes())
        request = REQUEST | {"Source": {"Name": "scan.nii.gz", "Sha256": sha256(scan)}}
        sidecar(tmp_path, [twin], Request=request)
        assert Register(source_hashes(scan)).verify(twin).same_source is True
        assert Register({"0" * 64}).verify(twin).same_source is False

    def test_a_dicom_source_has_one_hash_wherever_it_lies(self, series: Path) -> None:
        source = series.parent.parent / "source"
        hashes = source_hashes(source)
        moved = source.rename(source.with_name("moved"))
        assert source_hashes(moved) == hashes


class TestStrangers:
    """Sidecars may come from anywhere."""

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"phs-pipeline"',
            b"\xff\xfe phs-pipeline",
            b'{"GeneratedBy": "phs-pipeline", "Outputs": {}}',
            b'{"GeneratedBy": {"Name": "phs-pipeline"}, "Outputs": {}}',
            b'{"GeneratedBy": [{"Name": "phs-pipeline"}], "Outputs": ["twin.nii.gz"]}',
            b'{"GeneratedBy": [7, null, {"Name": ["phs-pipeline"]}], "Outputs": {}}',
            b'{"GeneratedBy": [{"Name": "phs-pipeline"}], "Outputs": ' + b"[" * 100_000,
            b'{"GeneratedBy": [{"Name": "phs-pipeline"}], "Outputs": {}, "x": ' + b"9" * 5000 + b".}",
        ],
    )
    def test_what_is_no_sidecar_is_none(self, text: bytes, twin: Path) -> None:
        (twin.parent / "twin.json").write_bytes(text)
        assert standing(twin) is Standing.FOREIGN

    def test_a_huge_one_is_not_read(self, twin: Path) -> None:
        path = sidecar(twin.parent, [twin])
        assert read_sidecar(path) is not None
        with path.open("ab") as file:
            file.truncate(SMALL_FILE + 1)
        assert read_sidecar(path) is None

    @pytest.mark.parametrize("digest", [None, 7, [], {}, "", "x" * 100_000])
    def test_a_hash_of_another_kind_is_another_hash(self, digest: Any, twin: Path) -> None:
        sidecar(twin.parent, [], Outputs={"twin.nii.gz": digest})
        assert standing(twin) is Standing.CHANGED

    @pytest.mark.parametrize(
        "entries",
        [
            {"Request": None},
            {"Request": [1]},
            {"Request": {"Source": "flair.nii.gz"}},
            {"Request": {"Source": {"Name": 7, "Sha256": ["x"]}, "Slab": float("nan"), "": {}}},
            {"Request": {"Source": {"Name": None}}, "Bundle": [[[]]], "GeneratedBy": [{"Name": "phs-pipeline"}]},
        ],
    )
    def test_entries_of_other_kinds_are_shown_as_they_are(self, entries: dict[str, Any], twin: Path) -> None:
        sidecar(twin.parent, [twin], **entries)
        verdict = Register().verify(twin)
        assert verdict.is_sound
        assert len(verdict.lines()) == 5

    def test_an_account_is_short_lines_without_control_characters(self, twin: Path) -> None:
        name = "\x1b[2J\n\ud800\u202e" + 10_000 * "x"
        sidecar(twin.parent, [twin], Request={"Source": {"Name": name, "Sha256": "\x07"}, "\x1b[31mred": "\r"})
        lines = Register().verify(twin).lines()
        assert all(len(line) < 1000 and line.isprintable() for line in lines)

    @pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "..", ".", "a/../../secret", "x" * 280, "link"])
    def test_a_name_that_leads_elsewhere_is_not_opened(self, name: str, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (tmp_path / "secret").write_text("secret")
        (folder / "link").symlink_to(tmp_path / "secret")
        (folder / "twin.png").write_bytes(b"")
        digest = sha256(tmp_path / "secret")
        sidecar(folder, [folder / "twin.png"], Request={"Source": {"Name": name, "Sha256": digest}})
        stranger = json.loads((folder / "twin.json").read_text())
        stranger["Outputs"][name] = digest
        (folder / "twin.json").write_text(json.dumps(stranger))
        assert Register().verify(folder / "twin.png").same_source is None

    def test_a_sidecar_that_is_a_link_is_not_followed(self, twin: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        real = sidecar(tmp_path, [twin])
        (tmp_path / "link.json").symlink_to(real.rename(elsewhere / "twin.json"))
        assert standing(twin) is Standing.FOREIGN
