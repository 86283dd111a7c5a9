"""Zips of DICOM: the files come out, and nothing in an archive can reach, fill or hang the machine."""

import io
import os
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ScanError
from pipeline.scans import archive
from pipeline.scans.archive import is_zip, unpack

DICOM = bytes(128) + b"DICM" + b"the rest"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    return folder


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Path]:
    """Write a zip with these members."""

    def pack(*members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
        path = tmp_path / "scans.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in members:
                opened.writestr(name, content)
        return path

    return pack


class TestUnpacks:
    def test_dicom_files_under_names_of_our_own(self, packed: Callable[..., Path], target: Path) -> None:
        path = packed(("a/con.dcm", DICOM), ("a/\x01\u202e name", DICOM + b"2"), ("a/" + 200 * "x", DICOM + b"3"))
        files = unpack(path, target)
        assert [file.read_bytes() for file in files] == [DICOM, DICOM + b"2", DICOM + b"3"]
        assert [file.parent for file in files] == [target] * 3
        assert all(file.name.removesuffix(".dcm").isdigit() for file in files)

    def test_members_with_one_name_are_all_kept(self, packed: Callable[..., Path], target: Path) -> None:
        with pytest.warns(UserWarning, match="Duplicate"):
            path = packed(("1.dcm", DICOM), ("1.dcm", DICOM + b"2"))
        assert len(unpack(path, target)) == 2

    def test_other_members_and_zips_inside_stay_packed(self, packed: Callable[..., Path], target: Path) -> None:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as opened:
            opened.writestr("1.dcm", DICOM)
        path = packed(
            ("folder/", b""), ("notes.txt", b"hello"), ("inner.zip", inner.getvalue()), ("__MACOSX/._1.dcm", b"mac")
        )
        assert unpack(path, target) == []
        assert list(target.iterdir()) == []

    def test_damaged_file_called_dicom_comes_out_to_be_reported(
        self, packed: Callable[..., Path], target: Path
    ) -> None:
        assert len(unpack(packed(("1.dcm", b"damaged")), target)) == 1

    def test_zip_is_known_by_name_or_content(self, packed: Callable[..., Path], tmp_path: Path) -> None:
        packed(("1.dcm", DICOM)).rename(tmp_path / "export")
        (tmp_path / "damaged.ZIP").write_bytes(b"")
        (tmp_path / "other").write_bytes(b"other")
        assert [is_zip(tmp_path / name) for name in ("export", "damaged.ZIP", "other")] == [True, True, False]


class TestRefuses:
    @pytest.mark.parametrize(
        "name", ["../out.dcm", "a/../../out.dcm", "/etc/out.dcm", "..\\out.dcm", "C:\\out.dcm", "a/b/../c.dcm"]
    )
    def test_paths_that_lead_out(self, name: str, packed: Callable[..., Path], target: Path) -> None:
        with pytest.raises(ScanError, match="leads out of the archive"):
            unpack(packed((name, DICOM)), target)
        assert list(target.parent.rglob("*.dcm")) == []

    def test_symbolic_links(self, packed: Callable[..., Path], target: Path) -> None:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with pytest.raises(ScanError, match="symbolic link"):
            unpack(packed((link, b"/etc/passwd")), target)

    def test_encrypted_members(self, packed: Callable[..., Path], target: Path) -> None:
        path = packed(("1.dcm", DICOM))
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(raw)
        with pytest.raises(ScanError, match="encrypted"):
            unpack(path, target)

    @pytest.mark.parametrize("lie", [False, True])
    def test_bombs_stop_at_the_limit_whatever_their_header_says(
        self, lie: bool, packed: Callable[..., Path], target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive, "RATIO_ALLOWANCE", 1 << 20)
        path = packed(*((f"{number}.dcm", DICOM + bytes(4 << 20)) for number in range(4)))
        if lie:
            raw = path.read_bytes()
            claimed = (len(DICOM) + (4 << 20)).to_bytes(4, "little")
            path.write_bytes(raw.replace(claimed, (100).to_bytes(4, "little")))
        with pytest.raises(ScanError, match=r"compress by less|damaged zip"):
            unpack(path, target)
        most = (1 << 20) + archive.MOST_RATIO * path.stat().st_size
        assert sum(file.stat().st_size for file in target.iterdir()) <= most + archive.BLOCK + archive.MAGIC_END

    def test_too_many_members(self, packed: Callable[..., Path], target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "MOST_MEMBERS", 3)
        with pytest.raises(ScanError, match="4 members"):
            unpack(packed(*((f"{number}.dcm", DICOM) for number in range(4))), target)

    def test_damage_of_any_kind_is_one_sentence(self, packed: Callable[..., Path], target: Path) -> None:
        whole = packed(*((f"{number}.dcm", DICOM + os.urandom(200)) for number in range(3))).read_bytes()
        path = target.parent / "damaged.zip"
        draw = random.Random(0)
        outcomes = []
        for number in range(400):
            damaged = bytearray(whole)
            if number % 2:
                del damaged[draw.randrange(len(whole)) :]
            else:
                damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            try:
                outcomes.append(str(unpack(path, target)))
            except ScanError as error:
                outcomes.append(f"refused {error}")
        refused = [outcome for outcome in outcomes if outcome.startswith("refused")]
        assert len(refused) > 200
        assert all(f"{path}: " in outcome for outcome in refused)

    @pytest.mark.parametrize(("method", "kind"), [(9, "Deflate64"), (98, "another method")])
    def test_other_compression_is_the_reason_given(
        self, method: int, kind: str, packed: Callable[..., Path], target: Path
    ) -> None:
        path = packed(("1.dcm", DICOM))
        raw = bytearray(path.read_bytes())
        raw[8:10] = method.to_bytes(2, "little")
        start = raw.index(b"PK\x01\x02") + 10
        raw[start : start + 2] = method.to_bytes(2, "little")
        path.write_bytes(raw)
        with pytest.raises(ScanError, match=rf"packed by method {method} \({kind}.*unpack it yourself"):
            unpack(path, target)
