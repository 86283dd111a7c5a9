"""A signed folder: what was forged, swapped, added or taken away is told apart, and by whom it was signed."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ScanError, UsageError
from pipeline.files import sha256
from pipeline.inference.signed import RECORD, SIGNATURE, Signed, check, sign

if shutil.which("ssh-keygen") is None:
    pytest.skip("needs OpenSSH", allow_module_level=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of keys, `ours` and `theirs`, and one of `rsa`."""
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("ours", "ed25519"), ("theirs", "ed25519"), ("rsa", "rsa")):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", folder / name], check=True)
    return folder


@pytest.fixture
def signed(keys: Path, tmp_path: Path) -> Path:
    """A folder with two scans' results in it, one in a subfolder, signed by `ours`."""
    folder = tmp_path / "out"
    for name, content in {"a.nii.gz": "voxels", "a.json": "{}", "sub-01/anat/b.nii.gz": "others"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    assert sign(folder, keys / "ours") == 3
    return folder


@pytest.mark.parametrize("kind", ["ours", "rsa"])
def test_a_folder_as_it_was_signed_is_right_by_the_public_key(kind: str, signed: Path, keys: Path) -> None:
    assert sign(signed, keys / kind) == 3
    assert check(signed, keys / f"{kind}.pub") == Signed(f"{kind}.pub", 3, ())


def test_a_list_of_allowed_signers_names_the_signer(signed: Path, keys: Path, tmp_path: Path) -> None:
    listed = [f"{name}@lab.example {(keys / name).with_suffix('.pub').read_text()}" for name in ("theirs", "ours")]
    (tmp_path / "signers").write_text("# of the lab\n" + "".join(listed))
    assert check(signed, tmp_path / "signers").signer == "ours@lab.example"


def test_openssh_alone_says_the_same(signed: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "signers").write_text(f"me {(keys / 'ours.pub').read_text()}")
    command = ["ssh-keygen", "-Y", "verify", "-f", tmp_path / "signers", "-I", "me", "-n", "phs-pipeline"]
    record = (signed / RECORD).read_bytes()
    assert subprocess.run([*command, "-s", signed / SIGNATURE], input=record).returncode == 0
    assert json.loads(record)["Files"]["a.nii.gz"] == sha256(signed / "a.nii.gz")


def swap(folder: Path) -> None:
    (folder / "a.nii.gz").rename(folder / "c")
    (folder / "sub-01/anat/b.nii.gz").rename(folder / "a.nii.gz")
    (folder / "c").rename(folder / "sub-01/anat/b.nii.gz")


def link(folder: Path) -> None:
    (folder / "a.nii.gz").rename(folder.parent / "a.nii.gz")
    (folder / "a.nii.gz").symlink_to(folder.parent / "a.nii.gz")


def link_folder(folder: Path) -> None:
    (folder / "sub-01").rename(folder.parent / "sub-01")
    (folder / "sub-01").symlink_to(folder.parent / "sub-01")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda out: (out / "a.json").write_text('{"Outputs": {}}'), ["a.json: changed"]),
        (swap, ["a.nii.gz: changed", "sub-01/anat/b.nii.gz: changed"]),
        (lambda out: (out / "a.json").unlink(), ["a.json: missing"]),
        (lambda out: (out / "sub-01" / "new.png").write_text(""), ["sub-01/new.png: added"]),
        (link, ["a.nii.gz: changed"]),
        (link_folder, ["sub-01: added", "sub-01/anat/b.nii.gz: missing"]),
    ],
    ids=["forged sidecar", "swapped", "removed", "added", "link", "linked folder"],
)
def test_what_is_different_is_named(
    change: Callable[[Path], object], said: list[str], signed: Path, keys: Path
) -> None:
    change(signed)
    found = check(signed, keys / "ours.pub").differences
    assert [sentence.partition(" ")[0] + " " + sentence.split()[1].rstrip(",") for sentence in found] == said


def forge(out: Path, keys: Path) -> None:
    """List the hash of a forged file, under the signature of the record before."""
    (out / "a.nii.gz").write_text("forged")
    content = json.loads((out / RECORD).read_text())
    content["Files"]["a.nii.gz"] = sha256(out / "a.nii.gz")
    (out / RECORD).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (forge, f"{SIGNATURE}: is no signature of {RECORD}"),
        (lambda out, keys: (out / SIGNATURE).write_text("junk"), f"{SIGNATURE}: is no signature"),
        (lambda out, keys: sign(out, keys / "theirs"), "signed with the key SHA256:.{43}, which is none of .*ours.pub"),
        (lambda out, keys: (out / SIGNATURE).unlink(), "was not signed"),
        (lambda out, keys: (out / RECORD).unlink(), "was not signed"),
    ],
    ids=["forged record", "no signature", "another key", "signature removed", "record removed"],
)
def test_a_signature_that_is_not_right_is_no_difference_of_files(
    change: Callable[[Path, Path], object], said: str, signed: Path, keys: Path
) -> None:
    change(signed, keys)
    with pytest.raises(ScanError, match=said):
        check(signed, keys / "ours.pub")


def test_a_signature_for_another_purpose_does_not_count(signed: Path, keys: Path) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-f", keys / "ours", "-n", "git"]
    answer = subprocess.run(command, input=(signed / RECORD).read_bytes(), capture_output=True, check=True)
    (signed / SIGNATURE).write_bytes(answer.stdout)
    with pytest.raises(ScanError, match="is no signature"):
        check(signed, keys / "ours.pub")


def test_what_cannot_sign_or_check_is_one_sentence(
    signed: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "junk").write_text("junk\n")
    with pytest.raises(UsageError, match="junk: cannot sign"):
        sign(signed, tmp_path / "junk")
    with pytest.raises(UsageError, match="junk: holds no public key"):
        check(signed, tmp_path / "junk")
    link(signed)
    with pytest.raises(UsageError, match=r"a\.nii\.gz: is a link or no file"):
        sign(signed, keys / "ours")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"ssh-keygen: not found.*install OpenSSH"):
        check(signed, keys / "ours.pub")
