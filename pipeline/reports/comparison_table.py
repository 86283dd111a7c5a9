"""Table 1 of a paper: methods as rows, metrics as columns, for a page, a manuscript, a spreadsheet and a browser."""

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from pipeline import RESEARCH_ONLY, __version__
from pipeline.comparison.compare import Cell, Comparison
from pipeline.files import table_csv, write_json, write_text
from pipeline.metrics import Metric
from pipeline.mosaic import save_png
from pipeline.reports.comparison_cell import MARKS, TITLE, text
from pipeline.reports.comparison_latex import latex
from pipeline.reports.comparison_notes import notes, sources
from pipeline.reports.html import render
from pipeline.reports.markdown import escaped, table

PANEL = "panel.png"


def write_comparison(folder: Path, comparison: Comparison, panel: Image.Image | None) -> None:
    """Write `table.md`, `table.tex`, `table.csv`, `panel.png`, `table.html` and, last, `comparison.json`.

    Args:
        folder: where; made if it is not there.
        comparison: the table.
        panel: of `pipeline.reports.comparison_panel`; without it, one of an earlier comparison is removed.
    """
    write_text(folder / "table.md", page(comparison, with_panel=panel is not None))
    write_text(folder / "table.tex", latex(comparison))
    write_text(folder / "table.csv", table_csv(frame(comparison)))
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
            **{name: value for name, value in vars(comparison).items() if name not in ("rows", "metrics")},
            "metrics": [metric.record() for metric in comparison.metrics],
            "rows": [asdict(row) for row in comparison.rows],
            "notes": notes(comparison),
        },
    )


def frame(comparison: Comparison) -> pd.DataFrame:
    """All digits: one row for each method and metric; `baseline` is the row that it was tested against."""
    rows: list[dict[str, Any]] = []
    for row in comparison.rows:
        for metric in comparison.metrics:
            cell = row.cells.get(metric.name)
            if cell is None:
                continue
            rows.append(
                {
                    "method": row.name,
                    "kind": row.kind,
                    "metric": metric.name,
                    "better": metric.better,
                    "mean": cell.mean,
                    "sd": cell.sd,
                    "n": cell.n,
                    "without_mean": cell.without_mean,
                    "trainings": row.trainings,
                    "sd_trainings": cell.sd_trainings,
                    "identical": cell.identical,
                    "best": cell.best,
                    "baseline": comparison.tested_against[metric.name] if cell.test else None,
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
    rows = [
        [escaped(row.name), *(_marked(row.cells.get(metric.name), metric) for metric in comparison.metrics)]
        for row in comparison.rows
    ]
    return table(["", *(metric.heading for metric in comparison.metrics)], rows)


def page(comparison: Comparison, with_panel: bool) -> str:
    """Table, notes and, if there is one, the panel in Markdown."""
    parts = [
        f"# {TITLE}",
        f"**{RESEARCH_ONLY}** Pseudo-healthy images are synthetic.",
        markdown(comparison),
        "\n".join(f"- {escaped(note)}" for note in notes(comparison)),
        *(["## Cases", f"![Cases]({PANEL})"] if with_panel else []),
        "## Reports",
        "\n".join(f"- {escaped(line)}" for line in sources(comparison)),
    ]
    return "\n\n".join(parts) + "\n"


def html(comparison: Comparison, panel_png: bytes | None) -> str:
    """One file that needs nothing else: table, notes and the panel.

    Args:
        comparison: the table.
        panel_png: content of the panel's file.
    """
    rows = [
        (row.name, row.kind, [_facts(row.cells.get(m.name), m) for m in comparison.metrics]) for row in comparison.rows
    ]
    picture = None if panel_png is None else f"data:image/png;base64,{base64.b64encode(panel_png).decode()}"
    return render(
        "comparison.html",
        title=TITLE,
        warning=RESEARCH_ONLY,
        headings=[metric.heading for metric in comparison.metrics],
        rows=rows,
        notes=notes(comparison),
        sources=sources(comparison),
        picture=picture,
    )


def _marked(cell: Cell | None, metric: Metric) -> str:
    shown = text(cell, metric)
    if cell is None:
        return shown
    # Apart from the bold text, an asterisk stands for itself.
    return (f"**{shown}**" if cell.best else shown) + (f" {MARKS[cell.mark]}" if cell.mark else "")


def _facts(cell: Cell | None, metric: Metric) -> dict[str, Any]:
    return {"text": text(cell, metric), "best": bool(cell and cell.best), "mark": MARKS[cell.mark] if cell else ""}
