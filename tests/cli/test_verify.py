"""`phs-pipeline verify` as a user sees it: what is said of each file, and the exit code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.files import sha256

Answer = tuple[int | str | None, str, str]


class Terminal:
    """Calls the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str | Path, options: tuple[str, ...] = ()) -> Answer:
        with pytest.raises(SystemExit) as ended:
            main([*options, "verify", *map(str, arguments)])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        return ended.value.code, out, err


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "raw" / "flair.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)), path)
    return path


@pytest.fixture
def twin(scan: Path, tmp_path: Path) -> Path:
    """A result with its sidecar."""
    path = tmp_path / "out" / "flair_desc-pseudohealthy.nii.gz"
    path.parent.mkdir()
    path.write_bytes(b"voxels")
    content = {
        "GeneratedBy": [{"Name": "phs-pipeline", "Version": "0.4"}],
        "Outputs": {path.name: sha256(path)},
        "Request": {"Source": {"Name": scan.name, "Sha256": sha256(scan)}, "Bundle": "gvs", "Alpha": None},
    }
    path.with_name("flair_desc-pseudohealthy.json").write_text(json.dumps(content))
    return path


def test_no_network_library_is_imported(twin: Path) -> None:
    program = (
        f"import sys\nfrom pipeline.cli.main import main\ntry: main(['verify', {str(twin)!r}])\n"
        "finally: print('heavy:', sorted({'torch', 'monai', 'SimpleITK', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0
    assert "ours and unchanged" in answer.stdout
    assert answer.stdout.endswith("heavy: []\n")


class TestOurs:
    def test_ends_with_0_and_says_from_what(self, verify: Terminal, scan: Path, twin: Path) -> None:
        code, out, err = verify(twin)
        assert (code, err) == (0, "")
        head, source, model, hashes, settings = out.splitlines()
        assert head == f"{twin}: ours and unchanged"
        assert source == f"  source: flair.nii.gz, SHA-256 {sha256(scan)}"
        assert model == "  model: gvs unknown, by phs-pipeline 0.4"
        assert "unknown" in hashes
        assert settings == "  settings: Alpha null"

    def test_with_its_source_given(self, verify: Terminal, scan: Path, twin: Path) -> None:
        code, out, _ = verify(twin, "--source", scan)
        assert code == 0
        assert "(compared, the same)" in out

    def test_quietly(self, verify: Terminal, twin: Path) -> None:
        assert verify(twin, options=("--quiet",)) == (0, "", "")


class TestForPrograms:
    def test_each_file_s_verdict_is_told_as_json(self, verify: Terminal, scan: Path, twin: Path) -> None:
        code, out, err = verify(twin, scan, "--source", scan, "--json", options=("--quiet",))
        assert code == 1
        assert err.startswith("Error: 1 of 2 are not")
        ours, not_ours = json.loads(out)["files"]
        assert (ours["file"], ours["sound"], ours["standing"], ours["same_source"]) == (
            str(twin),
            True,
            "unchanged",
            True,
        )
        assert ours["meaning"] == "ours and unchanged"
        assert any(line.startswith("model: gvs") for line in ours["account"])
        assert (not_ours["file"], not_ours["sound"]) == (str(scan), False)


class TestNotOurs:
    def test_ends_with_1_and_says_which(self, verify: Terminal, scan: Path, twin: Path) -> None:
        code, out, err = verify(twin, scan)
        assert code == 1
        assert f"{twin}: ours and unchanged\n" in out
        assert f"{scan}: not ours: no sidecar beside it names it" in out
        assert err == "Error: 1 of 2 are not as they were written, or not from that scan; see above\n"

    def test_changed(self, verify: Terminal, twin: Path) -> None:
        twin.write_bytes(b"other voxels")
        code, out, _ = verify(twin, options=("--quiet",))
        assert (code, out) == (1, f"{twin}: ours, but changed since it was written\n")

    def test_from_another_scan(self, verify: Terminal, scan: Path, twin: Path) -> None:
        nib.save(nib.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4)), scan)
        code, out, _ = verify(twin, "--source", scan)
        assert code == 1
        assert "it is ANOTHER scan" in out


class TestNothingStarted:
    @pytest.mark.parametrize("options", [(), ("--source", "gone.nii.gz")])
    def test_a_file_that_is_not_there_ends_with_2(
        self, options: tuple[str, ...], verify: Terminal, twin: Path, tmp_path: Path
    ) -> None:
        code, out, err = verify(*([twin] if options else [tmp_path / "gone.nii.gz"]), *options)
        assert (code, out) == (2, "")
        assert err.endswith("gone.nii.gz: no such file; check the path\n")


class TestSigned:
    """A forged sidecar goes with its file; only a signature tells."""

    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        if shutil.which("ssh-keygen") is None:
            pytest.skip("needs OpenSSH")
        path = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path

    def test_a_forged_sidecar_is_told_by_the_signature_alone(self, verify: Terminal, twin: Path, key: Path) -> None:
        public, sidecar = key.with_suffix(".pub"), twin.with_name("flair_desc-pseudohealthy.json")
        code, out, _ = verify(twin.parent, "--sign", key)
        assert (code, out.splitlines()[-1]) == (
            0, f"{twin.parent}: signed 2 files; give your public key to those who check"
        )  # fmt: skip
        assert verify(twin.parent, "--signed-by", public)[0] == 0
        twin.write_bytes(b"forged")
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "Outputs": {twin.name: sha256(twin)}}))
        assert verify(twin.parent)[0] == 0
        code, _, err = verify(twin.parent, "--signed-by", public)
        assert code == 1
        assert err.splitlines() == [
            f"{sidecar}: changed since the folder was signed",
            f"{twin}: changed since the folder was signed",
            "Error: 2 files are not as they were signed; see above",
        ]

    def test_what_is_not_as_it_was_written_is_not_signed(self, verify: Terminal, twin: Path, key: Path) -> None:
        twin.write_bytes(b"other voxels")
        assert verify(twin.parent, "--sign", key)[0] == 1
        assert not (twin.parent / "signed.json").exists()

    @pytest.mark.parametrize("option", ["--sign", "--signed-by"])
    def test_a_file_alone_is_not_signed(self, option: str, verify: Terminal, twin: Path, key: Path) -> None:
        code, _, err = verify(twin, option, key)
        assert (code, "is no folder, expected a folder of results" in err) == (2, True)

    def test_the_help_says_what_it_promises(self, verify: Terminal) -> None:
        assert "It tells no forgery" in " ".join(verify("--help")[1].split())


def test_nothing_in_a_name_is_obeyed_by_the_terminal(verify: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\nError: all lost"
    path.write_text("not ours")
    _, out, _ = verify(path)
    assert "\x1b" not in out
    assert out.count("\n") == 1
