"""The files of a folder under a signature, which tells a forgery where a sidecar tells an accident.

The record, `signed.json`, lists every file with its SHA-256. OpenSSH (8.1 or later) signs it, with a key as people have
for logging in or for signing commits, and checks it, with this program or without:

    ssh-keygen -Y verify -f ALLOWED_SIGNERS -I NAME -n phs-pipeline -s signed.json.sig < signed.json
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import __version__
from pipeline.errors import ScanError, UsageError
from pipeline.files import PARTIAL, scratch_folder, sha256, small_bytes, small_text, write_text
from pipeline.identity import NAME

RECORD = "signed.json"
SIGNATURE = f"{RECORD}.sig"
# Of OpenSSH's public keys; a line of a list of allowed signers begins with their names.
PUBLIC_KEY = re.compile(r"(sk-)?(ssh|ecdsa)-\S+ ")


@dataclass(frozen=True)
class Signed:
    """What a signature that is right says of a folder.

    Args:
        signer: name of the key in the list of allowed signers, or the file of the key.
        files: how many were signed.
        differences: of the folder, a sentence on each file that was changed, is missing or came after the signature.
    """

    signer: str
    files: int
    differences: tuple[str, ...]


def sign(folder: Path, key: Path) -> int:
    """Write the record of a folder and its signature into it, over what is there.

    Args:
        folder: of results.
        key: file of a private key, or of a public one whose private one `ssh-agent` holds.

    Returns:
        The number of files that were signed.

    Raises:
        UsageError: if OpenSSH is not there or cannot use the key, or the folder holds what cannot be signed.
        OutputError: if they cannot be written.
    """
    files = dict(_files(folder))
    if None in files.values():
        odd = next(name for name, digest in files.items() if digest is None)
        raise UsageError(f"{folder / odd}: is a link or no file, expected files alone; put the file itself there")
    record = json.dumps({"GeneratedBy": [{"Name": NAME, "Version": __version__}], "Files": files}, indent=2)
    answer = _openssh("sign", "-f", str(key.absolute()), "-n", NAME, given=record.encode())
    if answer.returncode:
        raise UsageError(f"{key}: cannot sign ({_said(answer)}), expected a key of OpenSSH; make one with ssh-keygen")
    write_text(folder / RECORD, record)
    write_text(folder / SIGNATURE, answer.stdout.decode())
    return len(files)


def check(folder: Path, signers: Path) -> Signed:
    """Hold a folder against its record, and the record against its signature.

    Args:
        folder: that was signed.
        signers: file of a public key, or a list of allowed signers as `ssh-keygen` and git take it.

    Raises:
        UsageError: if OpenSSH is not there, or there is no key in `signers`.
        ScanError: if the folder was not signed, not by one of them, or what was signed is not the record.
    """
    record, signature = folder / RECORD, folder / SIGNATURE
    try:
        content, name = small_bytes(record), str(signature.absolute())
        small_bytes(signature)  # a pipe has no end
    except OSError as error:
        raise ScanError(
            f"{folder}: was not signed, expected {RECORD} and {SIGNATURE} in it; sign it with --sign KEY"
        ) from error
    allowed = _allowed(signers)
    # Of whomever: whether the two belong together, and by which key.
    found = _openssh("check-novalidate", "-n", NAME, "-s", name, given=content)
    if found.returncode:
        raise ScanError(
            f"{signature}: is no signature of {RECORD} ({_said(found)}), one of them was changed or forged since; get "
            "the folder again from who signed it"
        )
    with scratch_folder() as scratch:
        (scratch / "signers").write_text(allowed)
        known = ("-f", str(scratch / "signers"), "-s", name)
        signer = _openssh("find-principals", *known).stdout.decode(errors="replace").partition("\n")[0]
        proof = _openssh("verify", *known, "-I", signer, "-n", NAME, given=content)
    if not signer or proof.returncode:
        key = (re.findall(rb"SHA256:\S+", found.stdout) or [b"unknown"])[-1].decode()
        raise ScanError(
            f"{folder}: was signed with the key {key}, which is none of {signers}; ask the signer for the public key"
        )
    try:
        recorded = json.loads(content)["Files"]
        differences = tuple(_differences(recorded, dict(_files(folder))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ScanError(f"{record}: lists no files, expected what --sign writes; sign the folder again") from error
    return Signed(signer, len(recorded), differences)


def _files(folder: Path) -> Iterator[tuple[str, str | None]]:
    """All that lies in a folder but the record, with its SHA-256; None for a link, a pipe or a device."""
    for root, folders, names in os.walk(folder):
        for name in sorted([*names, *(each for each in folders if Path(root, each).is_symlink())]):
            path = Path(root, name)
            inner = path.relative_to(folder).as_posix()
            if inner not in (RECORD, SIGNATURE) and not name.startswith(PARTIAL):
                yield inner, sha256(path) if path.is_file() and not path.is_symlink() else None


def _differences(recorded: dict[str, str], found: dict[str, str | None]) -> Iterator[str]:
    for name in sorted({*recorded, *found}):
        if name not in found:
            yield f"{name}: missing, it was there when the folder was signed"
        elif name not in recorded:
            yield f"{name}: added since the folder was signed"
        elif found[name] != recorded[name]:
            yield f"{name}: changed since the folder was signed"


def _allowed(signers: Path) -> str:
    """A list of allowed signers; a public key stands for itself, by the name of its file."""
    try:
        lines = small_text(signers).splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{signers}: cannot be read ({error}), expected a public key of OpenSSH or a list of allowed signers; "
            "check the path"
        ) from error
    name = re.sub(r"[^\w.@-]", "_", signers.name)
    listed = [f"{name} {line}" if PUBLIC_KEY.match(line) else line for line in map(str.strip, lines)]
    if not any(PUBLIC_KEY.search(line) for line in listed):
        raise UsageError(
            f"{signers}: holds no public key, expected one of OpenSSH (KEY.pub) or a list of allowed signers; give that"
        )
    return "\n".join(listed) + "\n"


def _openssh(what: str, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError(
            "ssh-keygen: not found, expected the program of OpenSSH that signs and checks; install OpenSSH "
            "(apt install openssh-client)"
        )
    return subprocess.run([program, "-Y", what, *arguments], input=given, capture_output=True, check=False)  # noqa: S603


def _said(answer: "subprocess.CompletedProcess[bytes]") -> str:
    """The last line of what OpenSSH complained of."""
    lines = answer.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {answer.returncode}"
