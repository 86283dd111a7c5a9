"""What the commands' pages and the bundles' cards show, and the lines that make it: `make pictures` writes it anew.

All of it is synthetic: brains of `phs-pipeline phantom`, and networks that were trained on them for a minute. The site
is built from the files in `docs/images/commands/` and in the bundles, which are kept since networks do not train
within a build.

    python docs/pictures.py [FOLDER [NAME …]]        a folder to work in, kept: what is done there is not done again

A NAME is a command, or `cards/BUNDLE`.
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
BUNDLES = ROOT / "bundles"
CARDS = "cards/"  # before the names of bundles
WIDEST = 900  # pixels of a picture on a page
WINDOW = (1300, 1000)  # pixels of the browser
TALLEST = 900
COLOURS = 192  # of a palette, so that a picture has a few dozen kilobytes


@dataclass(frozen=True)
class Shown:
    """What the page of a command shows, or the card of a bundle.

    Attributes:
        lines: commands that make it, run in one folder after those of the commands before.
        picture: file that they make, PNG, or HTML that a browser shows; None for what the last of them prints.
        caption: what is seen; that of a card stands in the card.
    """

    lines: tuple[str, ...]
    picture: str | None
    caption: str


def read_shown(name: str) -> dict[str, Shown]:
    """What `pictures.yml` says of each command, or `cards.yml` of each bundle."""
    told = yaml.safe_load((ROOT / "docs" / name).read_text(encoding="utf-8"))
    return {
        name: Shown(tuple(each.get("lines", ())), each.get("picture"), each.get("caption", ""))
        for name, each in told.items()
    }


SHOWN = read_shown("pictures.yml")
SHOWN_IN_CARDS = read_shown("cards.yml")
ALL = SHOWN | {f"{CARDS}{bundle}": shown for bundle, shown in SHOWN_IN_CARDS.items()}


def made(name: str) -> Path:
    """The file of the repository that a command's page or a card (`cards/BUNDLE`) shows: a picture, or text."""
    if name.startswith(CARDS):
        return BUNDLES / name.removeprefix(CARDS) / "docs" / f"{name.removeprefix(CARDS)}.png"
    return IMAGES / f"{name}{'.png' if ALL[name].picture else '.txt'}"


def make(name: str, folder: Path) -> None:
    """Run the lines of a command's page or of a card in a folder, and keep what is shown.

    Raises:
        RuntimeError: if a line fails.
    """
    shown = ALL[name]
    printed = ""
    for line in shown.lines:
        code, printed = run(line, folder)
        print(f"$ {line}\n{printed}", flush=True)
        if code and name != "card":  # whose refusal is what is shown
            raise RuntimeError(f"{line}: ended with exit code {code}")
    if shown.picture is None:
        made(name).write_text(plain(printed, folder), encoding="utf-8")
        return
    picture = folder / shown.picture
    if picture.suffix == ".html":
        picture = photographed(picture, folder / f"{name}.png")
    kept(picture, made(name))


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
    parser.add_argument("names", nargs="*", metavar="NAME", help="make these alone")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in given.names or ALL:
        stamp = folder / f".{name.replace('/', '-')}"
        if not stamp.exists():
            make(name, folder)
            stamp.touch()
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
