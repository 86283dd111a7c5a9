"""`phs-pipeline select`: which epoch of a training to use."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.say import say


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="COHORT", type=click.Path(path_type=Path), help="The run's cohort.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--judge-iterations",
    default=600,
    show_default=True,
    type=click.IntRange(min=1),
    help="Training iterations of the independent segmentor.",
)
def select(run: Path, data: Path, device: str, judge_iterations: int) -> None:
    """Choose the best of the epochs that RUN kept (`train --set keep_every=1`), on the validation patients.

    Among epochs of a pooled healthiness of 0.9 or more, the one with the highest PSNR in normal tissue becomes
    RUN/models/model.pt; if none is as healthy, the healthiest. An epoch that leaves normal tissue below 30 dB is taken
    only if all do, and then the closest of them. RUN/selection.json has the scores of all.
    """
    from pipeline.evaluation.selection import select_epoch

    def tell(row: dict[str, Any]) -> None:
        psnr = "identical" if row["psnr_normal"] is None else f"{row['psnr_normal']:.2f}"
        changed = row["changed_in_healthy_slices"]
        healthy = "–" if changed is None else f"{100 * changed:.2f} %"
        say(f"{row['epoch']:5d} {row['healthiness']:12.3f} {psnr:>25} {healthy:>25}")

    say("epoch  healthiness   normal tissue: PSNR, dB  changed in healthy slices")
    record = select_epoch(run, data, device, judge_iterations, tell)
    say(f"{run / 'models' / 'model.pt'}: epoch {record['epoch']}")
