"""The documentation is true: its commands exist, its messages are ours, and the site is built without a warning."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from shown_commands import block_lines, misspelt, spans, words_of

from pipeline.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from pictures import BUNDLES, CARDS, IMAGES, SHOWN, SHOWN_IN_CARDS, made  # noqa: E402

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("bundles/*/docs/README.md")), ROOT / "README.md"]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_are_shown_exist_with_these_options(page: Path) -> None:
    text = page.read_text()
    wrong = {line: misspelt(words_of(line), whole=True) for line in block_lines(text)}
    wrong |= {span: misspelt(words_of(span), whole=False) for span in spans(text)}
    assert {line: problem for line, problem in wrong.items() if problem} == {}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("phs-pipeline train gvs --data cohort -o run", None),
        ("phs-pipeline train gvs -o run", "Missing option '--data'"),
        ("phs-pipeline train gvs --data cohort -o run --fast", "No such option"),
        ("phs-pipeline evaluate -b run --judge strict -o report", "'strict' is not one of"),
        ("phs-pipeline study volume --data cohort -o study", "found no command"),
        ("phs-pipeline relabel a.mgz b.mgz --mask m.nii -o c.mgz", "unexpected extra argument"),
    ],
)
def test_a_command_that_does_not_exist_would_be_found(line: str, problem: str | None) -> None:
    found = misspelt(words_of(line), whole=True)
    assert found is None if problem is None else problem in str(found)


def test_what_follows_a_recipe_for_sbatch_is_a_command() -> None:
    """The recipes themselves are run by tests/slurm.sh, where Slurm is installed."""
    pages = [ROOT / "docs/how_to/slurm.md", *sorted((ROOT / "docs/slurm").iterdir())]
    shown = [found for page in pages for found in re.findall(r"(\w+)\.sbatch (\w.*?)(?:  .*|`.*)?\n", page.read_text())]
    assert {recipe for recipe, _ in shown} == {page.stem for page in pages[1:]}
    for recipe, line in shown:
        assert misspelt(words_of(f"train {line}" if recipe == "train" else line), whole=True) is None, line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_page_that_shows_what_it_makes_and_how(command: str) -> None:
    """`make pictures` runs the lines, in the order of the commands."""
    lines = [line for line in SHOWN[command].lines if line.startswith("phs-pipeline ")]
    assert {line: problem for line in lines if (problem := misspelt(words_of(line), whole=True))} == {}
    assert command in {words_of(line)[0] for line in lines} or not lines
    if SHOWN[command].picture is None:
        assert made(command).read_text().strip()
    else:
        with Image.open(made(command)) as picture:
            assert min(picture.size) > 100


def test_no_other_pictures_of_commands_are_kept() -> None:
    assert {path.name for path in IMAGES.iterdir()} == {made(command).name for command in SHOWN}


def pictures_in(card: str) -> list[str]:
    """The files that a card shows."""
    return re.findall(r"^!\[[^\]]+\]\(([^)]+\.png)\)$", card, flags=re.MULTILINE)


@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir() if path.is_dir()))
def test_each_card_has_a_picture_that_travels_with_the_bundle(bundle: str) -> None:
    """In the wheel, in what is exported and in a zoo there are no other files than the bundle's."""
    docs = BUNDLES / bundle / "docs"
    shown = pictures_in((docs / "README.md").read_text())
    assert shown
    assert {name for name in shown if "/" in name} == set()
    assert {path.name for path in docs.glob("*.png")} == set(shown)
    if bundle in SHOWN_IN_CARDS:
        assert made(f"{CARDS}{bundle}").name in shown


@pytest.mark.parametrize("bundle", SHOWN_IN_CARDS)
def test_a_cards_picture_is_made_by_the_bundle(bundle: str) -> None:
    lines = [line for line in SHOWN_IN_CARDS[bundle].lines if line.startswith("phs-pipeline ")]
    assert {line: problem for line in lines if (problem := misspelt(words_of(line), whole=True))} == {}
    assert bundle in " ".join(lines)


def test_messages_are_those_of_the_program() -> None:
    program = "\n".join(_texts())
    table = (ROOT / "docs/reference/messages.md").read_text().partition("| says |")[2]
    rows = re.findall(r"^\| (.+?) \|", table, flags=re.MULTILINE)
    parts = [part.strip() for row in rows for part in row.split("…") if part.strip()]
    assert len(parts) > 10
    assert [part for part in parts if part not in program] == []


def _texts() -> list[str]:
    """The program's texts, each as it is said, without what is filled in."""
    nodes = [node for path in (ROOT / "pipeline").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Dead links and anchors are warnings, as are pages outside the navigation."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--mass-effect" in (tmp_path / "site/reference/commands/phantom.html").read_text()
    assert "<code>generator_rate</code>" in (tmp_path / "site/reference/configs.html").read_text()
    assert "(slices, C, right, anterior)" in (tmp_path / "site/api.html").read_text()
    assert (tmp_path / "site/source/pipeline/methods/gvs.py.txt").is_file()
    fetched = r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//"
    assert [page for page in (tmp_path / "site").rglob("*.html") if re.search(fetched, page.read_text())] == []
    page = tmp_path / "site/man/phs-pipeline-study-few-labels.1"
    assert ".SH OPTIONS" in page.read_text()
    if shutil.which("groff"):
        found = subprocess.run(["groff", "-man", "-Kutf8", "-Tutf8", "-ww", page], capture_output=True, text=True)
        assert (found.returncode, found.stderr) == (0, "")
        assert "--labelled-by [examples|patients]" in re.sub(r"\x1b\[\d*m|.\x08", "", found.stdout)
