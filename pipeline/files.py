"""Files appear whole or not at all: they are written aside and renamed."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
import unicodedata
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pandas import DataFrame

PARTIAL = ".partial-"
SCRATCH = "phs-pipeline-"
LONGEST_WRITE_S = 24 * 3600
# Configs, sidecars and records; the sidecar of a series of ten thousand slices is 2 MB.
SMALL_FILE = 1 << 25
# Tables of a cohort, a row for each scan or slice: 10,000 scans with 155 slices have some 80 MB.
TABLE_FILE = 1 << 29
# What spreadsheets take for the start of a formula, and Unicode's categories of what controls or hides text.
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _machine() -> str:
    """Digits of those who share process numbers: since one start of one machine, in one container."""
    told = [platform.node()]
    with contextlib.suppress(OSError):  # of Linux
        told += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:8]


# Who writes it: the machine, and the process.
MACHINE = _machine()
WRITER = re.compile(r"(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-z_]{8}(-(?P<name>.*))?", re.DOTALL)
# Folders in which this process has looked for what killed ones have left.
_swept: set[Path] = set()
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY,
    errno.ENAMETOOLONG, errno.EFBIG, errno.EIO)  # fmt: skip


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`, renamed to `path` when the block ends without error.

    The temporary name keeps the suffixes of `path` (writers choose the format by them). Whatever ends the block
    early, the temporary file is removed; a killed process leaves only files named `.partial-*`, which are never read,
    and go when the next process writes into their folder.

    Raises:
        OutputError: if `path` cannot be written, or the disk is full.
    """
    path = Path(path)
    aside = path.with_name(f"{PARTIAL}{MACHINE}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        yield aside
        aside.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path}: no space is left on the device; free some and start again") from error
        if error.errno in UNWRITABLE:
            reason = os.strerror(error.errno).lower()
            raise OutputError(f"{path}: cannot be written ({reason}); choose a writable output folder") from error
        raise
    finally:
        _remove(aside)


def is_partial(path: Path) -> bool:
    """Whether a process is writing it aside, or was killed when it did."""
    return path.name.startswith(PARTIAL)


def remove_left(folder: Path) -> None:
    """Remove what killed processes have left anywhere below a folder."""
    _remove_dead(folder.rglob(f"{PARTIAL}*"))


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder, the first time that this one writes there."""
    if folder.absolute() not in _swept:
        _swept.add(folder.absolute())
        with contextlib.suppress(OSError):
            _remove_dead(folder.glob(f"{PARTIAL}*"))


def _remove_dead(partials: Iterable[Path]) -> None:
    for left in partials:
        writer = WRITER.fullmatch(left.name.removeprefix(PARTIAL))
        if writer and _is_left(left, writer):
            _remove(left)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for as long as the block lasts; those of killed processes, which may hold scans, go too.

    Each is locked by its process, whose lock ends with it: processes of other containers that share the folder for
    temporary files have other numbers.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        # An empty one may be new, and not locked yet.
        with contextlib.suppress(OSError), _locked(left) as nobodys:
            if nobodys and any(left.iterdir()):
                _remove(left)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder, _locked(Path(folder), wait=True):
        yield Path(folder)


@contextlib.contextmanager
def writing_temporary() -> Iterator[None]:
    """Blocks that write into the folder for temporary files, for as long as one lasts.

    Raises:
        OutputError: if the folder cannot be written or is full.
    """
    try:
        yield
    except OSError as error:
        try:
            folder = tempfile.gettempdir()
        except OSError:  # of those that are tried none can be written
            folder = "temporary files"
        raise OutputError(
            f"{folder}: cannot be written ({(error.strerror or str(error)).lower()}); name a folder with space left "
            "in the environment variable TMPDIR"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Lock a folder for as long as the block lasts, if no other process has.

    Gives whether no process has it; where there are no locks, whether it is older than the longest run.

    Raises:
        OSError: if it is no folder, or another user's.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield _is_old(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        free = True
    except BlockingIOError:
        free = False
    except OSError:  # a file system without locks
        free = _is_old(folder)
    try:
        yield free
    finally:
        os.close(descriptor)


def _is_old(path: Path) -> bool:
    """Whether nobody can be writing it any more."""
    return time.time() - path.lstat().st_mtime > LONGEST_WRITE_S


def _is_left(path: Path, writer: re.Match[str]) -> bool:
    """Whether its process is no more, or is one that cannot be asked and has not written for a day."""
    try:
        if writer["machine"] != MACHINE or os.name == "nt":  # where asking a process would end it
            return _is_old(path)
        os.kill(int(writer["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is another user's, or no process's number
        return False
    return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with written_aside(path) as aside:
        # A file name that is no valid UTF-8 comes as lone surrogates; JSON reads them back from `\udcff`.
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def table_cell(text: str) -> str:
    r"""A text for a cell of a table: one line that a spreadsheet takes for text and a terminal prints as it is.

    What is invisible, and lone surrogates, are escaped as in Python's strings.

    >>> table_cell("=cmd()\n")
    "'=cmd()\\n"
    """
    escaped = "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in INVISIBLE else letter
        for letter in text
    )
    return f"'{escaped}" if escaped.lstrip().startswith(FORMULA) else escaped


def table_csv(frame: "DataFrame", header: bool = True) -> str:
    """A table as CSV, each text and heading as `table_cell` makes it; with its headings, or to go on after others."""
    safe = frame.rename(columns=lambda name: table_cell(str(name)))
    for column in safe.select_dtypes(exclude="number"):
        # Names recur in each row.
        cells = {value: table_cell(value) for value in set(safe[column]) if isinstance(value, str)}
        safe[column] = [cells.get(value, value) for value in safe[column]]
    text: str = safe.to_csv(index=False, lineterminator="\n", header=header)
    return text


def write_table(path: Path, frames: Iterable["DataFrame"]) -> None:
    """Write one table that comes in parts, as `table_csv` has it, whole or not at all."""
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for place, frame in enumerate(frames):
            file.write(table_csv(frame, header=place == 0))


def small_text(path: Path, most: int = SMALL_FILE) -> str:
    """The text of a small file, UTF-8; see `small_bytes`.

    Args:
        path: of the file.
        most: bytes.

    Raises:
        OSError: as `small_bytes`.
        ValueError: if it is not UTF-8.
    """
    return small_bytes(path, most).decode("utf-8")


def small_bytes(path: Path, most: int = SMALL_FILE) -> bytes:
    """The content of a small file.

    Args:
        path: of the file.
        most: bytes.

    Raises:
        OSError: if it is no regular file (a pipe has no end, a device no size), too large, or unreadable.
    """
    # Opened without waiting for a writer, and asked before it is read: what is a file now may be a pipe then.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"is larger than {most >> 20} MiB", str(path))
        return file.read(min(most, max(status.st_size, SMALL_FILE)) + 1)


def require_regular(path: Path) -> None:
    """Refuse what readers of others would wait for or read without end.

    Raises:
        OSError: if it is no regular file, or none at all.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def require_small_archive(path: Path, most: int) -> None:
    """Refuse what readers of arrays would unpack into memory without end.

    Args:
        path: of a zip archive, such as an `.npz` file.
        most: bytes that all of it may unpack to.

    Raises:
        OSError: if it is no regular file.
        ValueError: if it holds more.
        zipfile.BadZipFile: if it is no archive.
    """
    require_regular(path)
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > most:
        raise ValueError(f"{size} bytes, expected at most {most}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file or none in it that can be read."""
    try:
        content = json.loads(small_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def require_empty(
    folder: Path, overwrite: bool = False, remedy: str = "choose another folder, or give --overwrite"
) -> None:
    """Refuse to mix results with what a folder holds.

    Args:
        folder: where results are to go; it need not exist.
        overwrite: the user wants them there all the same.
        remedy: what to do else.

    Raises:
        UsageError: if it holds something or is no folder.
    """
    _sweep(folder)
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not empty; {remedy}")


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
