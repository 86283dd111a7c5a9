"""What MkDocs adds to `docs/` when it builds the site: commands' help, bundles' cards, and files that pages link to.

Links in the pages are valid in the repository. Those that lead out of `docs/` are pointed at the site's own copy: a
bundle's card is a page, any other file lies as text under `source/`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pipeline.cli.main import cli

ROOT = Path(__file__).parents[1]
HELP = "<!-- help of all commands -->"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
TOP_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the cards and the pages of the top folder, then every other file that a page links to."""
    for card in sorted(ROOT.glob("bundles/*/docs/README.md")):
        files.append(_added(config, card))
    for name in TOP_PAGES:
        files.append(_added(config, ROOT / name))
    for file in list(files.documentation_pages()):
        for target in _targets(_origin(file), file.content_string):
            uri = site_uri(target)
            if uri.startswith("source/") and uri not in files.src_uris:
                files.append(_added(config, ROOT / target))
    config.nav = _expanded(config.nav, files)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Fill in the commands' help, name a card after its bundle, and point links at the site's copies."""
    origin = _origin(page.file)
    if origin.parts[0] == "bundles":
        markdown = f"# {origin.parts[1]}\n\n" + re.sub(r"^(?=#+ )", "#", markdown, flags=re.MULTILINE)
    here = PurePosixPath(page.file.src_uri).parent

    def pointed(link: re.Match[str]) -> str:
        target = _target(origin, link[1])
        return link[1] if target is None else os.path.relpath(site_uri(target), here)

    return LINK.sub(pointed, markdown).replace(HELP, "\n".join(_help(cli, None, "phs-pipeline")))


def site_uri(target: str) -> str:
    """Where a file of the repository lies in the site, before Markdown becomes HTML.

    `docs/api.md` is `api.md`, `bundles/gvs/docs/README.md` is `bundles/gvs.md`, and `pipeline/errors.py` is
    `source/pipeline/errors.py.txt`, which browsers show.
    """
    path = PurePosixPath(target)
    if path.parts[0] == "docs":
        return path.relative_to("docs").as_posix()
    if path.match("bundles/*/docs/README.md"):
        return f"bundles/{path.parts[1]}.md"
    return target if target in TOP_PAGES else f"source/{target}.txt"


def _added(config: MkDocsConfig, path: Path) -> File:
    """A file from outside `docs/`, which remembers where it came from."""
    uri = site_uri(path.relative_to(ROOT).as_posix())
    return File.generated(config, uri, content=path.read_text(encoding="utf-8"))


def _origin(file: File) -> PurePosixPath:
    """The file of the repository that a page is made of."""
    uri = PurePosixPath(file.src_uri)
    if file.generated_by is None:
        return PurePosixPath("docs") / uri
    return PurePosixPath("bundles", uri.stem, "docs", "README.md") if uri.parts[0] == "bundles" else uri


def _targets(origin: PurePosixPath, markdown: str) -> Iterator[str]:
    for link in LINK.finditer(markdown):
        target = _target(origin, link[1])
        if target is not None and (ROOT / target).is_file():  # MkDocs warns of others
            yield target


def _target(origin: PurePosixPath, link: str) -> str | None:
    """The file of the repository that a link leads to; None for one that leads out of it."""
    target = os.path.normpath(origin.parent / link)
    return None if target.startswith("..") else target


def _expanded(nav: Any, files: Files) -> Any:
    """The navigation, with the pages of a folder in its place."""
    if isinstance(nav, list):
        return [_expanded(entry, files) for entry in nav]
    if isinstance(nav, dict):
        return {title: _expanded(entry, files) for title, entry in nav.items()}
    if not nav.endswith("/"):
        return nav
    return sorted(file.src_uri for file in files.documentation_pages() if file.src_uri.startswith(nav))


def _help(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    """The help of a command, and of those below it, as Markdown."""
    context = click.Context(command, parent, info_name=name, max_content_width=100, terminal_width=100)
    yield from ("", f"## {context.command_path}", "", "```text", command.get_help(context), "```")
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None:
                yield from _help(found, context, below)
