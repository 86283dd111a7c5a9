"""Table 1 of a paper: methods as rows, metrics as columns, for a page, a manuscript, a spreadsheet and a browser."""

import base64
import html as markup
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from pipeline import RESEARCH_ONLY, __version__
from pipeline.comparison.compare import A_DICE, PAIRED, POOLED, Cell, Comparison
from pipeline.comparison.significance import ALPHA
from pipeline.files import write_json, write_text
from pipeline.mosaic import save_png
from pipeline.reports.evaluation_report import ROWS, WEAK_JUDGE

PANEL = "panel.png"
TITLE = "Pseudo-healthy synthesis: methods compared"
# Label, arrow in the direction of better, digits.
HEADINGS = {
    POOLED: ("healthiness, all slices pooled", "↑", 3),
    **{metric: (ROWS[metric][0], "↑", ROWS[metric][1]) for metric in PAIRED},
    A_DICE: ("A-Dice", "↓", 3),
}
MARKS = {"better": "*", "worse": "†", "": ""}

STYLE = """
body { font-family: sans-serif; margin: 2rem; max-width: 80rem; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }
th, td { padding: .3rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid; vertical-align: bottom; }
tr.other td { border-top: 1px solid; }
img { max-width: 100%; }
li { margin: .3rem 0; }
"""

# How pdfLaTeX writes what is no plain letter; Greek letters are frequent in names of experiments.
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": "--",
    "…": r"\ldots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "*": r"\textsuperscript{*}",
    "†": r"\textsuperscript{\dag}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "µ": r"$\mu$",
    "σ": r"$\sigma$",
}


def write_comparison(folder: Path, comparison: Comparison, panel: Image.Image | None) -> None:
    """Write `table.md`, `table.tex`, `table.csv`, `panel.png`, `table.html` and, last, `comparison.json`.

    Args:
        folder: where; made if it is not there.
        comparison: the table.
        panel: of `pipeline.reports.comparison_panel`; without it, one of an earlier comparison is removed.
    """
    write_text(folder / "table.md", page(comparison, with_panel=panel is not None))
    write_text(folder / "table.tex", latex(comparison))
    write_text(folder / "table.csv", frame(comparison).to_csv(index=False, lineterminator="\n"))
    if panel is None:
        (folder / PANEL).unlink(missing_ok=True)
    else:
        save_png(folder / PANEL, panel)
    write_text(folder / "table.html", html(comparison, None if panel is None else (folder / PANEL).read_bytes()))
    write_json(
        folder / "comparison.json",
        {
            "format": 1,
            "pipeline_version": __version__,
            "warning": RESEARCH_ONLY,
            **asdict(comparison),
            "notes": notes(comparison),
        },
    )


def frame(comparison: Comparison) -> pd.DataFrame:
    """All digits: one row for each method and metric; `baseline` is the row that it was tested against."""
    rows: list[dict[str, Any]] = []
    for row in comparison.rows:
        for metric, cell in row.cells.items():
            rows.append(
                {
                    "method": row.name,
                    "kind": row.kind,
                    "metric": metric,
                    "better": "lower" if HEADINGS[metric][1] == "↓" else "higher",
                    "mean": cell.mean,
                    "sd": cell.sd,
                    "n": cell.n,
                    "without_mean": cell.without_mean,
                    "identical": cell.identical,
                    "best": cell.best,
                    "baseline": comparison.tested_against[metric] if cell.test else None,
                    "pairs": cell.test.pairs if cell.test else None,
                    "pairs_differing": cell.test.differing if cell.test else None,
                    "p": cell.test.p if cell.test else None,
                    "p_corrected": cell.p_corrected,
                    "against_baseline": cell.mark,
                }
            )
    return pd.DataFrame(rows).astype({"pairs": "Int64", "pairs_differing": "Int64"})


def markdown(comparison: Comparison) -> str:
    """The table alone."""
    headings = [" ".join(HEADINGS[metric][:2]) for metric in comparison.metrics]
    lines = ["| | " + " | ".join(headings) + " |", "|---|" + "---:|" * len(headings)]
    for row in comparison.rows:
        cells = []
        for metric in comparison.metrics:
            text, cell = _text(row.cells.get(metric), metric), row.cells.get(metric)
            text = f"**{text}**" if cell and cell.best else text
            # Apart from the bold text, an asterisk stands for itself.
            cells.append(f"{text} {MARKS[cell.mark]}" if cell and cell.mark else text)
        lines.append(f"| {_markdown(row.name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(comparison: Comparison, with_panel: bool) -> str:
    """Table, notes and, if there is one, the panel in Markdown."""
    parts = [
        f"# {TITLE}",
        f"**{RESEARCH_ONLY}** Pseudo-healthy images are synthetic.",
        markdown(comparison),
        "\n".join(f"- {_markdown(note)}" for note in notes(comparison)),
        *(["## Cases", f"![Cases]({PANEL})"] if with_panel else []),
        "## Reports",
        "\n".join(f"- {_markdown(line)}" for line in _sources(comparison)),
    ]
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    r"""A `table*` for pdfLaTeX with booktabs, to be put into a manuscript by `\input`."""
    columns = comparison.metrics
    headings = " & ".join(
        r"\shortstack[r]{" + r"\\".join(_latex(part) for part in _folded(" ".join(HEADINGS[metric][:2]))) + "}"
        for metric in columns
    )
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_latex(TITLE)}.}}",
        r"\label{tab:phs-comparison}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        rf" & {headings} \\",
        r"\midrule",
    ]
    for place, row in enumerate(comparison.rows):
        if place and row.kind != comparison.rows[place - 1].kind:
            lines.append(r"\midrule")
        cells = []
        for metric in columns:
            cell = row.cells.get(metric)
            text = _latex(_text(cell, metric).replace("-", "−"))
            text = rf"\textbf{{{text}}}" if cell and cell.best else text
            cells.append(text + (_latex(MARKS[cell.mark]) if cell else ""))
        lines.append(rf"{{{_latex(row.name)}}} & {' & '.join(cells)} \\")
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"\begin{minipage}{\textwidth}\footnotesize\raggedright",
        *(_latex(note) for note in notes(comparison)),
        r"\end{minipage}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def html(comparison: Comparison, panel_png: bytes | None) -> str:
    """One file that needs nothing else: table, notes and the panel.

    Args:
        comparison: the table.
        panel_png: content of the panel's file.
    """
    escape = markup.escape
    headings = "".join(
        f'<th scope="col">{escape(" ".join(HEADINGS[metric][:2]))}</th>' for metric in comparison.metrics
    )
    rows = []
    for place, row in enumerate(comparison.rows):
        other = ' class="other"' if place and row.kind != comparison.rows[place - 1].kind else ""
        cells = "".join(f"<td>{_html(row.cells.get(metric), metric)}</td>" for metric in comparison.metrics)
        rows.append(f"<tr{other}><td>{escape(row.name)}</td>{cells}</tr>")
    picture = ""
    if panel_png is not None:
        data = base64.b64encode(panel_png).decode()
        picture = f'<h2>Cases</h2>\n<p><img src="data:image/png;base64,{data}" alt="Cases, SYNTHETIC images"/></p>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"/><title>{TITLE}</title><style>{STYLE}</style></head>
<body>
<h1>{TITLE}</h1>
<p><strong>{RESEARCH_ONLY}</strong> Pseudo-healthy images are synthetic.</p>
<table>
<thead><tr><td></td>{headings}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody>
</table>
<ul>
{chr(10).join(f"<li>{escape(note)}</li>" for note in notes(comparison))}
</ul>
{picture}
<h2>Reports</h2>
<ul>
{chr(10).join(f"<li>{escape(line)}</li>" for line in _sources(comparison))}
</ul>
</body>
</html>
"""


def notes(comparison: Comparison) -> list[str]:
    """What must be known to read the table, one matter each, as plain text."""
    return [
        *_reading(comparison),
        *_tests(comparison),
        *_identical(comparison),
        *_a_dice(comparison),
        *_material(comparison),
    ]


def _reading(comparison: Comparison) -> list[str]:
    patients = comparison.cohort["patients"]
    fewer = {
        HEADINGS[metric][0]: n
        for metric in comparison.metrics
        if metric in PAIRED
        and (n := max(row.cells[metric].n for row in comparison.rows if metric in row.cells)) < patients
    }
    exceptions = "".join(f"; n = {n} in {label}" for label, n in fewer.items())
    return [
        f"Mean ± standard deviation over patients, n = {patients}, each the mean of their volumes{exceptions}.",
        "Pooled healthiness is one figure over all slices, without deviation and test.",
        "↑ higher is better, ↓ lower is better; bold is the best of two or more rows.",
    ]


def _tests(comparison: Comparison) -> list[str]:
    tested, without, short = [], [], []
    for metric, baseline in comparison.tested_against.items():
        label = HEADINGS[metric][0]
        tests = [test for row in comparison.rows if metric in row.cells and (test := row.cells[metric].test)]
        if baseline is None:
            without.append(label)
        elif tests:
            pairs = max(test.pairs for test in tests)
            tested.append(f"{label} against {baseline} ({_count(len(tests), 'row')}, {_count(pairs, 'pair')})")
            if len(tests) * min(test.least_p for test in tests) >= ALPHA:
                short.append(f"{label} ({max(test.differing for test in tests)})")
    lines = []
    if tested:
        lines.append(
            f"* better, † worse than the best baseline (by rank sums, p < {ALPHA:g}): two-sided Wilcoxon signed-rank "
            "test over patients, pairs without difference left out, Holm-corrected within each metric over all rows "
            f"that are no baseline. Tested were {'; '.join(tested)}."
        )
    lines.append(
        f"Baselines: {', '.join(comparison.baselines) or 'none'}; the best of them by its mean is tested against."
    )
    if without:
        lines.append(f"No baseline can be tested against, so nothing is marked, in {'; '.join(without)}.")
    if short:
        lines.append(
            f"Too few pairs differ for any mark in {'; '.join(short)}: with fewer than 6 a two-sided Wilcoxon test "
            "cannot fall below 5 %, and with more rows to correct for it takes more."
        )
    return lines


def _identical(comparison: Comparison) -> list[str]:
    named = [
        f"{HEADINGS[metric][0]} ({', '.join(names)})"
        for metric in comparison.metrics
        if (names := [row.name for row in comparison.rows if metric in row.cells and row.cells[metric].identical])
    ]
    if not named:
        return []
    meaning = (
        "Identical: every patient's image equals what it is compared with, as those of controls do that leave normal "
        "tissue alone; that is so by construction, and such a row is neither the best nor a baseline nor tested"
    )
    return [f"{meaning}: {'; '.join(named)}."]


def _a_dice(comparison: Comparison) -> list[str]:
    if comparison.a_dice is None:
        return []
    differ = (
        f" Between reports the brackets differ by up to {comparison.brackets_differ:.3f}; the first report's are shown."
        if comparison.brackets_differ
        else ""
    )
    meaning = (
        "A-Dice: mean ± standard deviation over seeds, without test. Its brackets are the original images, in which "
        "lesions can be learned, and healthy slices with random masks, in which nothing can."
    )
    return [meaning + differ]


def _material(comparison: Comparison) -> list[str]:
    cohort, judge = comparison.cohort, comparison.judge
    dice = judge["dice"].get(cohort["split"])
    if dice is None:
        seen = "It was trained on the very patients of this split: healthiness here is not independent."
    else:
        weak = " That is weak: draw no conclusions from healthiness." if dice["pooled"] < WEAK_JUDGE else ""
        seen = (
            f"Its own Dice on this split is {dice['pooled']:.3f} pooled and {dice['mean_per_slice']:.3f} as mean of "
            f"slices.{weak}"
        )
    counts = ", ".join(
        _count(cohort[key], noun)
        for key, noun in (("patients", "patient"), ("volumes", "volume"), ("slices", "pathological slice"))
    )
    trained = f"{judge['network']}, seed {judge['seed']}, about {judge['iterations']} iterations"
    return [
        f"Cohort {cohort['sha256'][:12]} (sha256), {cohort['split']} split: {counts}.",
        f"Judge of healthiness {judge['weights_sha256'][:12]} (sha256): {trained}. {seen}",
        f"{RESEARCH_ONLY} phs-pipeline {__version__}.",
    ]


def _sources(comparison: Comparison) -> list[str]:
    return [
        f"{source['method']}: {source['report']}"
        + "".join(f"; {term} {value}" for term, value in (source["provenance"] or {}).items())
        for source in comparison.sources
    ]


def _text(cell: Cell | None, metric: str) -> str:
    if cell is None:
        return "–"
    if cell.identical:
        return "identical"
    if cell.mean is None:
        return "collapsed"
    digits = HEADINGS[metric][2]
    spread = "" if metric == POOLED else f" ± {'–' if cell.sd is None else f'{cell.sd:.{digits}f}'}"
    kind = "collapsed" if metric == A_DICE else "identical"
    rest = f" ({cell.without_mean} of {cell.n} {kind})" if cell.without_mean else ""
    return f"{cell.mean:.{digits}f}{spread}{rest}"


def _html(cell: Cell | None, metric: str) -> str:
    text = markup.escape(_text(cell, metric))
    if cell is None:
        return text
    return (f"<strong>{text}</strong>" if cell.best else text) + (f"<sup>{MARKS[cell.mark]}</sup>" if cell.mark else "")


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~$&!#])", r"\\\1", text)


def _latex(text: str) -> str:
    """As pdfLaTeX can set it: letters that its fonts may lack are given by their code."""
    return "".join(
        LATEX.get(letter, letter if letter.isascii() or "À" <= letter <= "ÿ" else f"U+{ord(letter):04X}")
        for letter in text
    )


def _folded(heading: str) -> list[str]:
    """A heading on two lines of about the same length."""
    words = heading.split()
    breaks = range(1, len(words))
    place = min(breaks, key=lambda at: abs(len(" ".join(words[:at])) - len(" ".join(words[at:]))))
    return [" ".join(words[:place]), " ".join(words[place:])]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
