"""What errors and commands print does nothing to a terminal, and no name of a file can forge a line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import printable


class TestPrintable:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("in/\x1b]0;title\x07x.nii", r"in/\x1b]0;title\x07x.nii"),
            ("a\nError: all lost", r"a\nError: all lost"),
            ("a\r\tb\x00\x7f\x9b31m", r"a\r\tb\x00\x7f\x9b31m"),
            ("right\u202eleft\u2028\u200b", r"right\u202eleft\u2028\u200b"),
            (os.fsdecode(b"m\xfcller"), r"m\xfcller"),
        ],
    )
    def test_escapes_what_is_not_for_reading(self, text: str, shown: str) -> None:
        assert printable(text) == shown

    @pytest.mark.parametrize("text", ["Müller 張 é — 26 × 22 mm", "choose one:\n  4  MR\n  5  CT"])
    def test_leaves_words_and_tables(self, text: str) -> None:
        assert printable(text) == text

    def test_gives_what_every_utf_8_stream_takes(self) -> None:
        every = "".join(map(chr, [*range(0x3000), *range(0xD800, 0xE000)]))
        assert printable(every).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", [b"\x1b]0;x\x07.nii.gz", b"a\nError: all lost.nii.gz", b"m\xfcller.nii.gz"])
def test_a_command_names_a_file_without_obeying_it(name: bytes, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "verify", "--source", path, path]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr
    assert not any(line.startswith(b"Error: all lost") for line in done.stderr.splitlines())
