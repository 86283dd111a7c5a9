"""The comparison as a table for a manuscript."""

from pipeline.comparison.compare import Comparison
from pipeline.reports.comparison_cell import MARKS, TITLE, text
from pipeline.reports.comparison_notes import notes

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


def latex(comparison: Comparison) -> str:
    r"""A `table*` for pdfLaTeX with booktabs, to be put into a manuscript by `\input`."""
    columns = comparison.metrics
    headings = " & ".join(
        r"\shortstack[r]{" + r"\\".join(_latex(part) for part in _folded(metric.heading)) + "}" for metric in columns
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
            cell = row.cells.get(metric.name)
            shown = _latex(text(cell, metric).replace("-", "−"))
            shown = rf"\textbf{{{shown}}}" if cell and cell.best else shown
            cells.append(shown + (_latex(MARKS[cell.mark]) if cell else ""))
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
