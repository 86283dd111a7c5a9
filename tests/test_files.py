"""Files appear whole or not at all."""
# ruff: noqa: PT012 - the block that fails is what is tested

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.files import (
    MACHINE,
    PARTIAL,
    SCRATCH,
    read_json,
    require_empty,
    scratch_folder,
    sha256,
    table_cell,
    write_json,
    write_text,
    written_aside,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWrittenAside:
    def test_file_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        with written_aside(tmp_path / "new" / "a.nii.gz") as aside:
            aside.write_text("whole")
            assert aside.parent == tmp_path / "new"
            assert aside.name.startswith(PARTIAL)
            assert aside.name.endswith("a.nii.gz")
            assert not (tmp_path / "new" / "a.nii.gz").exists()
        assert names(tmp_path / "new") == ["a.nii.gz"]
        assert (tmp_path / "new" / "a.nii.gz").read_text() == "whole"

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_nothing_is_left_when_the_block_fails(self, error: type[BaseException], tmp_path: Path) -> None:
        with pytest.raises(error), written_aside(tmp_path / "a.txt") as aside:
            aside.write_text("half")
            raise error
        assert names(tmp_path) == []

    def test_what_was_there_stays_when_the_block_fails(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("before")
        with pytest.raises(ValueError, match="lost"), written_aside(tmp_path / "a.txt") as aside:
            aside.write_text("half")
            raise ValueError("lost")
        assert (tmp_path / "a.txt").read_text() == "before"
        assert names(tmp_path) == ["a.txt"]

    def test_a_folder_appears_whole_too(self, tmp_path: Path) -> None:
        with written_aside(tmp_path / "run") as aside:
            aside.mkdir()
            (aside / "a.txt").write_text("whole")
        assert names(tmp_path / "run") == ["a.txt"]
        with pytest.raises(ValueError, match="lost"), written_aside(tmp_path / "other") as aside:
            aside.mkdir()
            (aside / "a.txt").write_text("half")
            raise ValueError("lost")
        assert names(tmp_path) == ["run"]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_full_disk_is_told(self, code: int, tmp_path: Path) -> None:
        with (
            pytest.raises(OutputError, match=r"a\.txt: no space is left on the device"),
            written_aside(tmp_path / "a.txt") as aside,
        ):
            aside.write_text("half")
            raise OSError(code, "full")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO])
    def test_refused_writing_is_told(self, code: int, tmp_path: Path) -> None:
        with (
            pytest.raises(OutputError, match=r"a\.txt: cannot be written \(.*\); choose a writable output folder"),
            written_aside(tmp_path / "a.txt"),
        ):
            raise OSError(code, "refused")

    def test_errors_of_reading_are_not_blamed_on_the_output(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), written_aside(tmp_path / "a.txt"):
            (tmp_path / "absent").read_text()

    def test_path_below_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot be written"):
            write_text(tmp_path / "file" / "a.txt", "text")

    def test_folder_in_the_place_of_the_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt" / "b").mkdir(parents=True)
        with pytest.raises(OutputError, match=r"a\.txt: cannot be written"):
            write_text(tmp_path / "a.txt", "text")
        assert names(tmp_path) == ["a.txt"]

    def test_name_that_is_too_long_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot be written"):
            write_text(tmp_path / ("n" * 300), "text")


def test_json_is_read_back_as_it_was(tmp_path: Path) -> None:
    # A file name in Latin-1 on a UTF-8 system reaches Python with lone surrogates.
    content = {"name": "Müller – 脳", "path": b"M\xfcller.nii".decode("utf-8", "surrogateescape"), "n": [1, 2.5, None]}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "Müller – 脳" in text


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_read_as_an_empty_one(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) == {}
    write_json(path, {"a": [1]})
    assert read_json(path) == {"a": [1]}


class TestKilled:
    @pytest.fixture
    def dead(self) -> int:
        """The number of a process that is no more."""
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        return process.pid

    def test_what_a_killed_process_left_goes_when_another_writes_there_and_what_others_write_stays(
        self, dead: int, tmp_path: Path
    ) -> None:
        kept = [
            f"{PARTIAL}{MACHINE}-{os.getpid()}-0123abcd-a.txt",
            f"{PARTIAL}{'0' * 8}-{dead}-0123abcd-a.txt",
            f"{PARTIAL}a.txt",
        ]
        long_ago = tmp_path / f"{PARTIAL}{'0' * 8}-1-0123abcd-c.txt"
        for name in (*kept, f"{PARTIAL}{MACHINE}-{dead}-0123abcd-a.txt", long_ago.name):
            (tmp_path / name).write_text("half")
        half_folder = tmp_path / f"{PARTIAL}{MACHINE}-{dead}-0123abcd-run"
        half_folder.mkdir()
        (half_folder / "a.txt").write_text("half")
        os.utime(long_ago, (0, 0))
        write_text(tmp_path / "new.txt", "whole")
        assert names(tmp_path) == sorted([*kept, "new.txt"])

    def test_a_folder_that_holds_nothing_else_is_empty(self, dead: int, tmp_path: Path) -> None:
        (tmp_path / f"{PARTIAL}{MACHINE}-{dead}-0123abcd-table.csv").write_text("half")
        require_empty(tmp_path)
        assert names(tmp_path) == []

    def test_unpacked_scans_of_a_killed_process_go(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with scratch_folder() as others:
            (others / "1.dcm").write_text("a slice")
            left, another_file = tmp_path / f"{SCRATCH}0123abcd", tmp_path / f"{SCRATCH}notes"
            shutil.copytree(others, left)
            another_file.write_text("of another program")
            with scratch_folder() as folder:
                assert folder.parent == tmp_path
                assert not left.exists()
                assert (others / "1.dcm").is_file()
        assert names(tmp_path) == [another_file.name]


class TestContainers:
    """Processes of two containers with one host name and one folder: each has numbers of its own, from 1."""

    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
        unshare = ["unshare", "--pid", "--fork", "--kill-child"]
        if subprocess.run([*unshare, "true"], capture_output=True).returncode:
            pytest.skip("may not make a namespace of processes here")
        begun = []

        def start(work: str, before: int) -> "subprocess.Popen[str]":
            program = f"import sys; from pathlib import Path; from pipeline.files import *\n{work}"
            shell = ["sh", "-c", f'{"/bin/true; " * before}"$0" -c "$1"; exit $?', sys.executable, program]
            environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            begun.append(subprocess.Popen([*unshare, *shell], env=environment, cwd=tmp_path, **pipes))
            return begun[-1]

        yield start
        for process in begun:
            process.kill()
            process.communicate()

    def test_unpacked_scans_of_another_stay_while_it_works(
        self, start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
    ) -> None:
        work = "with scratch_folder() as folder: (folder / '1.dcm').write_text('a'); print(folder, flush=True); {}"
        first = start(work.format("sys.stdin.read()"), before=5)
        assert first.stdout is not None
        folder = Path(first.stdout.readline().strip())
        start(work.format("pass"), before=0).communicate()
        assert names(folder) == ["1.dcm"]
        first.kill()
        first.communicate()
        start(work.format("pass"), before=0).communicate()
        assert names(tmp_path) == []

    def test_what_another_writes_stays(self, start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path) -> None:
        work = (
            "with written_aside(Path('a.txt')) as aside: aside.write_text('half'); print(flush=True); sys.stdin.read()"
        )
        first = start(work, before=5)
        assert first.stdout is not None
        first.stdout.readline()
        start("write_text(Path('b.txt'), 'whole')", before=0).communicate()
        first.communicate("")
        assert (tmp_path / "a.txt").read_text() == "half"


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@SUM(A1)", " =cmd()", "＝cmd()"])
def test_a_spreadsheet_takes_a_cell_for_text(text: str) -> None:
    assert table_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["\n=cmd()", "\r=cmd()", "\t=cmd()", "a\r\n=cmd()", "\x1b[2J", "a\u2028b", "a\u202eb", "\udcff"]
)
def test_what_controls_or_hides_text_is_escaped(text: str) -> None:
    cell = table_cell(text)
    assert cell.isprintable()
    assert cell.encode().decode("unicode_escape") == text
    assert len(cell.splitlines()) == 1


def test_other_text_stays_as_it_is() -> None:
    assert table_cell("sub-01: 5 mm, 30 % – größer") == "sub-01: 5 mm, 30 % – größer"
