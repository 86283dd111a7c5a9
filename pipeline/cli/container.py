"""What messages lack for who calls by `docker compose`: its form of our commands, and what is mounted where."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

# The caller's folders are mounted below the root; docker-compose.yml says in the environment which ones they are.
FOLDERS = ("data", "cohorts", "runs", "out")
ROOT = Path("/")
MOUNTED = "PHS_MOUNTED_"
RUN = "docker compose run --rm"
# What a hint leaves to choose has to lie in one of them.
CHOSEN = {"COHORT": "cohorts/COHORT", "RUN": "runs/RUN", "REPORT": "out/REPORT"}
# A message begins with the file that it is about, or with the option that named it.
ABOUT = re.compile(r"(?:--[\w-]+ )?([^\0\n]+?): ")


def in_compose() -> bool:
    """Whether this is a container of docker-compose.yml."""
    return any(f"{MOUNTED}{name.upper()}" in os.environ for name in FOLDERS)


def in_its_form(text: str) -> str:
    """A message with commands as the caller gives them: `docker compose run --rm train`."""
    if not in_compose():
        return text
    from pipeline.cli.main import COMMANDS

    told, hints = re.subn(rf"\bphs-pipeline (?=(?:{'|'.join(COMMANDS)})\b)", f"{RUN} ", text)
    return re.sub(rf"(?<= )(?:{'|'.join(CHOSEN)})\b", lambda word: CHOSEN[word[0]], told) if hints else told


def remark(error: BaseException) -> str:
    """What is to be said of a file beside what is wrong with it: what is mounted where, and who is who.

    Args:
        error: one that names a file, or whose message begins with it.

    Returns:
        What follows the message; empty outside of containers, and where it would explain nothing.
    """
    about = ABOUT.match(str(error))
    path = str(getattr(error, "filename", None) or (about[1] if about else ""))
    if not (path and in_compose()):
        return ""
    numbers = {each.errno for each in _causes(error) if isinstance(each, OSError)}
    missing = not os.path.lexists(path) and ("/" in path or "." in path)
    if not (missing or numbers & {errno.EACCES, errno.EPERM, errno.EROFS}):
        return ""
    mounted = {name: os.environ.get(f"{MOUNTED}{name.upper()}", name) for name in FOLDERS if (ROOT / name).is_dir()}
    seen = ", ".join(f"{name}/ (your {of})" for name, of in mounted.items())
    full = Path(os.path.normpath(Path.cwd() / path))
    name = next((name for name in mounted if full.is_relative_to(ROOT / name)), None)
    if name is None:
        settings = ", ".join(mounted).upper()
        return f"; the container sees {seen} alone: put it there, or name its folder in .env ({settings})"
    if errno.EROFS in numbers:
        return f"; {name}/ is mounted read-only for this command, of {seen}: take another"
    return _owner(Path(path)) if numbers else f"; {name}/ is your {mounted[name]}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # A sentence of ours that is raised again from what MONAI made of it lies below its own cause.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _owner(path: Path) -> str:
    """Whose the nearest folder is that can be asked, and who asks."""
    for folder in (path, *path.parents):
        try:
            status = folder.stat()
        except OSError:
            continue
        if status.st_uid == os.getuid():
            break
        return (
            f"; {folder} belongs to user {status.st_uid}, and the container runs as user {os.getuid()}: set UID and "
            "GID in .env to what `id -u` and `id -g` say, or take a folder of yours"
        )
    return ""
