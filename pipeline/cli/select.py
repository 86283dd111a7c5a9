"""`phs-pipeline select`: which epoch of a training to use."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import judge_iterations_option
from pipeline.cli.say import say


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="COHORT", type=click.Path(path_type=Path), help="The run's cohort.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@judge_iterations_option
def select(run: Path, data: Path, device: str, judge_iterations: int) -> None:
    """Choose the best of the epochs that RUN kept (`train --set keep_every=1`), on the validation patients.

    Among epochs of a pooled healthiness of 0.9 or more, the one with the highest PSNR in normal tissue becomes
    RUN/models/model.pt; if none is as healthy, the healthiest. An epoch that leaves normal tissue below 30 dB is taken
    only if all do, and then the closest of them. RUN/selection.json has the scores of all.
    """
    from pipeline.evaluation.selection import select_epoch
    from pipeline.metrics import Metric

    def tell(row: dict[str, Any], metrics: list[Metric]) -> None:
        changed = row["changed_in_healthy_slices"]
        figures = [metric.text(row[metric.name], metric.perfect_word or "–") for metric in metrics if metric.headline]
        figures.append("–" if changed is None else f"{100 * changed:.2f} %")
        headings = [*(metric.label for metric in metrics if metric.headline), "changed in healthy slices"]
        if not told:
            say("   ".join(["epoch", *headings]))
        told.append(row["epoch"])
        aligned = zip(["epoch", *headings], [str(row["epoch"]), *figures], strict=True)
        say("   ".join(figure.rjust(len(heading)) for heading, figure in aligned))

    told: list[int] = []
    record = select_epoch(run, data, device, judge_iterations, tell)
    say(f"{run / 'models' / 'model.pt'}: epoch {record['epoch']}")
