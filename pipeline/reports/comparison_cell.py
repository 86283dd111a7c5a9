"""How one score of the comparison is written, whatever the page is made of."""

from pipeline.comparison.compare import Cell
from pipeline.metrics import A_DICE, Metric

TITLE = "Pseudo-healthy synthesis: methods compared"
MARKS = {"better": "*", "worse": "†", "": ""}


def text(cell: Cell | None, metric: Metric) -> str:
    """A score as plain text: mean ± deviation over patients, that over trainings, and how many have no mean."""
    if cell is None:
        return "–"
    if cell.identical:
        return metric.perfect_word
    if cell.mean is None:
        return "collapsed"
    shown = metric.text(cell.mean)
    if metric.level != "pooled" or metric.name == A_DICE.name:
        shown = metric.spread(cell.mean, cell.sd)
    notes = []
    if cell.sd_trainings is not None:
        notes.append(f"trainings ± {metric.text(cell.sd_trainings)}")
    if cell.without_mean:
        kind = "collapsed" if metric.name == A_DICE.name else metric.perfect_word
        notes.append(f"{cell.without_mean} of {cell.n} {kind}")
    return f"{shown} ({'; '.join(notes)})" if notes else shown
