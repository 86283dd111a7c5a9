"""What the commands' pages show, and the lines that make it: `make pictures` writes it anew, in ten minutes of a core.

All of it is synthetic: brains of `phs-pipeline phantom`, and networks that were trained on them for a minute. The site
is built from the files in `docs/images/commands/`, which are kept since networks do not train within a build.

    python docs/pictures.py [FOLDER [COMMAND …]]        a folder to work in, kept: what is done there is not done again
"""

import argparse
import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image

from pipeline.cli.main import main as cli_main

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images/commands"
WIDEST = 900  # pixels of a picture on a page
WINDOW = (1300, 1000)  # pixels of the browser
TALLEST = 900
COLOURS = 192  # of a palette, so that a picture has a few dozen kilobytes


@dataclass(frozen=True)
class Shown:
    """What the page of a command shows.

    Attributes:
        lines: commands that make it, run in one folder after those of the commands before.
        picture: file that they make, PNG, or HTML that a browser shows; None for what the last of them prints.
        caption: what is seen.
    """

    lines: tuple[str, ...]
    picture: str | None
    caption: str


def read_shown() -> dict[str, Shown]:
    """What `pictures.yml` says of each command."""
    told = yaml.safe_load((ROOT / "docs/pictures.yml").read_text(encoding="utf-8"))
    return {
        name: Shown(tuple(each.get("lines", ())), each.get("picture"), each["caption"]) for name, each in told.items()
    }


SHOWN = read_shown()


def made(command: str) -> Path:
    """The file of the repository that a command's page shows: a picture, or text."""
    return IMAGES / f"{command}{'.png' if SHOWN[command].picture else '.txt'}"


def make(command: str, folder: Path) -> None:
    """Run the lines of a command in a folder, and keep what its page shows.

    Raises:
        RuntimeError: if a line fails.
    """
    shown = SHOWN[command]
    printed = ""
    for line in shown.lines:
        code, printed = run(line, folder)
        print(f"$ {line}\n{printed}", flush=True)
        if code and command != "card":  # whose refusal is what is shown
            raise RuntimeError(f"{line}: ended with exit code {code}")
    if shown.picture is None:
        made(command).write_text(plain(printed, folder), encoding="utf-8")
        return
    picture = folder / shown.picture
    if picture.suffix == ".html":
        picture = photographed(picture, folder / f"{command}.png")
    kept(picture, made(command))


def run(line: str, folder: Path) -> tuple[int, str]:
    """A command of ours in this process, which loads torch once, any other in a shell: exit code, and what it says."""
    if not line.startswith("phs-pipeline "):
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    printed = io.StringIO()
    with working_in(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli_main(shlex.split(line)[1:])
        except SystemExit as stop:
            return int(stop.code or 0), printed.getvalue()
    return 0, printed.getvalue()


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The working folder, for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def plain(printed: str, folder: Path) -> str:
    """What a command printed, without where this machine keeps it."""
    places = {f"{folder}/": "", str(folder): ".", sys.prefix: ".venv", str(ROOT): ".", str(Path.home()): "~"}
    for path, name in places.items():
        printed = printed.replace(path, name)
    return printed.rstrip() + "\n"


def photographed(page: Path, picture: Path) -> Path:
    """The top of a page as Chromium shows it."""
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={picture}", page.resolve().as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip
    return picture


def kept(picture: Path, path: Path) -> None:
    """A picture, not larger than a page shows it, with few colours."""
    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((WIDEST, TALLEST), Image.Resampling.LANCZOS)
        small.quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    """Make what is not made yet in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="a new one if not given, deleted at the end")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="make these alone")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    IMAGES.mkdir(parents=True, exist_ok=True)
    for command in given.commands or SHOWN:
        stamp = folder / f".{command}"
        if not stamp.exists():
            make(command, folder)
            stamp.touch()
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
