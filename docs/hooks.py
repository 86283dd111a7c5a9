"""What MkDocs adds to `docs/` when it builds the site, so that it cannot be stale.

A page for each command with its help and picture, and its man page; the settings of bundles; the docstrings of the API;
bundles' cards, and files that pages link to. Links in the pages are valid in the repository. Those that lead out of
`docs/` are pointed at the site's own copy: a bundle's card is a page, its pictures lie below it, any other file lies as
text under `source/`.
"""

import ast
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pipeline import RESEARCH_ONLY, __version__
from pipeline.bundles import list_bundles, read_config
from pipeline.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from pictures import SHOWN, made  # noqa: E402  # MkDocs loads this file by its path

MARK = re.compile(r"<!-- (commands|settings|docstrings)(?: of (\S+))? -->")
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example|Yields):$")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
TOP_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the commands' pages, the cards, the pages of the top folder, and every other file that a page links to."""
    for name in COMMANDS:
        files.append(File.generated(config, f"reference/commands/{name}.md", content=command_page(name)))
    for card in sorted(ROOT.glob("bundles/*/docs/README.md")):
        files.append(_added(config, card))
    for name in TOP_PAGES:
        files.append(_added(config, ROOT / name))
    for file in list(files.documentation_pages()):
        for target in _targets(_origin(file), file.content_string):
            uri = site_uri(target)
            if not target.startswith("docs/") and uri not in files.src_uris:
                files.append(_added(config, ROOT / target))
    config.nav = _expanded(config.nav, files)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Fill in what is made of the program, name a card after its bundle, and point links at the site's copies."""
    origin = _origin(page.file)
    if origin.parts[0] == "bundles":
        markdown = f"# {origin.parts[1]}\n\n" + re.sub(r"^(?=#+ )", "#", markdown, flags=re.MULTILINE)
    here = PurePosixPath(page.file.src_uri).parent

    def pointed(link: re.Match[str]) -> str:
        target = _target(origin, link[1])
        return link[1] if target is None else os.path.relpath(site_uri(target), here)

    parts: dict[str, Callable[[str], str]] = {
        "commands": lambda _: commands_table(),
        "settings": lambda _: "\n".join(_settings()),
        "docstrings": lambda path: "\n".join(docstrings(ROOT / path)),
    }
    return LINK.sub(pointed, MARK.sub(lambda mark: parts[mark[1]](mark[2]), markdown))


def on_post_build(config: MkDocsConfig) -> None:
    """Write a man page for each command into `man/`."""
    folder = Path(config.site_dir) / "man"
    folder.mkdir(exist_ok=True)
    for context in _contexts(cli, None, "phs-pipeline"):
        path = folder / f"{context.command_path.replace(' ', '-')}.1"
        path.write_text(man_page(context), encoding="utf-8")


def commands_table() -> str:
    """All commands and what each is for."""
    rows = [f"| [`{name}`](commands/{name}.md) | {says} |" for name, says in COMMANDS.items()]
    return "\n".join(["| command | |", "|---|---|", *rows])


def command_page(name: str) -> str:
    """A command's page: what it is for, what it shows, how that was made, and its help."""
    shown, file = SHOWN[name], made(name)
    parts = [f"# {name}", COMMANDS[name]]
    if shown.picture:
        picture = os.path.relpath(file.relative_to(ROOT / "docs"), "reference/commands")
        parts += [f"![{shown.caption}]({picture})"]
    else:
        parts += [f"```text\n{file.read_text(encoding='utf-8').rstrip()}\n```"]
    parts += [f"*{shown.caption.replace('*', '')}*"]
    if shown.lines:
        parts += ["Made by", "```text\n" + "\n".join(shown.lines) + "\n```"]
    parts += ["## Help", *_help(cli.get_command(click.Context(cli), name), name)]
    return "\n\n".join(parts) + "\n"


def man_page(context: click.Context) -> str:
    """A command's help for `man`, in roff."""
    command, path = context.command, context.command_path
    says = COMMANDS.get(context.info_name or "", "") if context.parent and not context.parent.parent else ""
    short = says or command.get_short_help_str(200)
    lines = [
        f'.TH "{path.replace(" ", "-").upper()}" 1 "" "phs-pipeline {__version__}" "phs-pipeline"',
        ".SH NAME",
        f"{path.replace(' ', '-')} \\- {_roff(short)}",
        ".SH SYNOPSIS",
        f"\\fB{_roff(path)}\\fR {_roff(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
    ]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [".PP", _roff(paragraph)]
    options = (each for each in command.get_params(context) if isinstance(each, click.Option))
    records = [record for each in options if (record := each.get_help_record(context))]
    lines += [".SH OPTIONS"] * bool(records)
    for option, says in records:
        lines += [".TP", f"\\fB{_roff(option)}\\fR", _roff(says)]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS"]
        for below in command.list_commands(context):
            lines += [".TP", f"\\fB{_roff(f'{path} {below}').replace(' ', '-')}\\fR(1)"]
            found = command.get_command(context, below)
            lines += [_roff(found.get_short_help_str(200) if found else "")]
    return "\n".join([*lines, ".SH NOTES", _roff(RESEARCH_ONLY), ""])


def docstrings(path: Path) -> Iterator[str]:
    """The public functions and classes of a module, with their signatures and docstrings, as Markdown.

    The module is read and not imported: what it needs may take seconds to load.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        says = ast.get_docstring(node)
        if says is None:
            continue
        yield from ("", f"### {node.name}", "", "```text", *_signature(node), "```", "", *_google(says))
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            says = ast.get_docstring(inner) if isinstance(inner, ast.FunctionDef) else None
            if isinstance(inner, ast.FunctionDef) and says and not inner.name.startswith("_"):
                yield from ("", f"#### {node.name}.{inner.name}", "", "```text", *_signature(inner), "```", "")
                yield from _google(says)


def _signature(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    """A function's name, parameters and result, or a class's name and fields, a line each."""
    if isinstance(node, ast.ClassDef):
        made = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
        for constructor in made:
            yield from (line.replace("__init__", node.name) for line in _signature(constructor))
            return
        yield node.name
        for field in node.body:
            if isinstance(field, ast.AnnAssign):
                yield f"    {ast.unparse(field)}"
        return
    arguments = node.args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + list(arguments.defaults)
    named = [pair for pair in zip(arguments.args, defaults, strict=True) if pair[0].arg not in ("self", "cls")]
    keywords = [*zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    lines = [_parameter(argument, default) for argument, default in named]
    lines += ["*"] * bool(keywords) + [_parameter(argument, default) for argument, default in keywords]
    result = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    if len(lines) < 2:
        yield f"{node.name}({''.join(lines)}){result}"
        return
    yield f"{node.name}("
    yield from (f"    {line}," for line in lines)
    yield f"){result}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def _google(says: str) -> Iterator[str]:
    """A docstring in Google's style as Markdown: its sections as lists, examples as text."""
    section = None
    for line in says.splitlines():
        if found := SECTION.match(line):
            if section == "Example":
                yield "```"
            section = found[1]
            yield from ("", f"*{section}*", "")
            if section == "Example":
                yield "```text"
        elif section == "Example":
            yield line[4:]
        elif section and line.strip():
            entry = re.match(r"^    (\*{0,2}\w+): (.*)$", line)
            yield f"- `{entry[1]}`: {entry[2]}" if entry else f"  {line.strip()}"
        else:
            yield line
    if section == "Example":
        yield "```"


def _settings() -> Iterator[str]:
    """Plain settings of each bundle that is trained: the paper's values, and what presets make of them."""
    for bundle in list_bundles():
        path = bundle.root / "configs/train.json"
        if not path.is_file():
            continue
        train = read_config(path)
        presets = {name: read_config(bundle.config(name)) for name in bundle.presets}
        yield from (
            "",
            f"### {bundle.name}",
            "",
            f"| setting | `train.json` | {' | '.join(f'`{name}`' for name in presets)} |",
        )
        yield "|---|---|" + "---|" * len(presets)
        ids = [*train, *(name for preset in presets.values() for name in preset)]
        for name in dict.fromkeys(ids):
            values = [config.get(name, "") for config in (train, *presets.values())]
            if all(_is_plain(value) for value in values):
                yield f"| `{name}` | " + " | ".join(_value(value) for value in values) + " |"


def _is_plain(value: Any) -> bool:
    """Neither an object nor an expression: what `--set` takes."""
    return not isinstance(value, dict) and not any(text in json.dumps(value) for text in ('"$', '"@', "_target_"))


def _value(value: Any) -> str:
    return "" if value == "" else f"`{json.dumps(value, ensure_ascii=False)}`"


def _roff(text: str) -> str:
    """Plain text for roff: its own signs are escaped, and no line is a request."""
    lines = (line.strip() for line in text.replace("\\", "\\e").replace("-", "\\-").splitlines())
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def site_uri(target: str) -> str:
    """Where a file of the repository lies in the site, before Markdown becomes HTML.

    `docs/api.md` is `api.md`, `bundles/gvs/docs/README.md` is `bundles/gvs.md`, a picture beside it is
    `bundles/gvs/gvs.png`, and `pipeline/errors.py` is `source/pipeline/errors.py.txt`, which browsers show.
    """
    path = PurePosixPath(target)
    if path.parts[0] == "docs":
        return path.relative_to("docs").as_posix()
    if path.match("bundles/*/docs/README.md"):
        return f"bundles/{path.parts[1]}.md"
    if path.match("bundles/*/docs/*.png"):
        return f"bundles/{path.parts[1]}/{path.name}"
    return target if target in TOP_PAGES else f"source/{target}.txt"


def _added(config: MkDocsConfig, path: Path) -> File:
    """A file from outside `docs/`, which remembers where it came from."""
    uri = site_uri(path.relative_to(ROOT).as_posix())
    return File.generated(config, uri, content=path.read_bytes())


def _origin(file: File) -> PurePosixPath:
    """The file of the repository that a page is made of."""
    uri = PurePosixPath(file.src_uri)
    if uri.parts[0] == "bundles":
        return PurePosixPath("bundles", uri.stem, "docs", "README.md")
    return uri if file.src_uri in TOP_PAGES else PurePosixPath("docs") / uri


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
        expanded = [_expanded(entry, files) for entry in nav]
        return [each for entry in expanded for each in (entry if isinstance(entry, list) else [entry])]
    if isinstance(nav, dict):
        return {title: _expanded(entry, files) for title, entry in nav.items()}
    if not nav.endswith("/"):
        return nav
    return sorted(file.src_uri for file in files.documentation_pages() if file.src_uri.startswith(nav))


def _help(command: click.Command | None, name: str) -> Iterator[str]:
    """The help of a command, and of those below it, as Markdown."""
    assert command is not None
    above = click.Context(cli, info_name="phs-pipeline")
    for context in _contexts(command, above, name):
        if context.parent is not above:
            yield f"### {context.info_name}"
        context.max_content_width = context.terminal_width = 100
        yield f"```text\n{context.command.get_help(context)}\n```"


def _contexts(command: click.Command, parent: click.Context | None, name: str) -> Iterator[click.Context]:
    """A command and those below it, as they are called."""
    context = click.Context(command, parent, info_name=name)
    yield context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None:
                yield from _contexts(found, context, below)
