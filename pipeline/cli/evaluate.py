"""`phs-pipeline evaluate`: how healthy, and how much the same person, beside controls."""

import sys
from pathlib import Path

import click

from pipeline.cli.say import say


@click.command()
@click.option(
    "-b", "--bundle", "bundle_name", required=True, metavar="RUN", help="Folder of a training run, or a bundle's name."
)
@click.option(
    "--data",
    required=True,
    metavar="COHORT",
    type=click.Path(path_type=Path),
    help="Folder made by `phs-pipeline preprocess`.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="REPORT",
    type=click.Path(path_type=Path),
    help="Folder for the report.",
)
@click.option(
    "--split",
    default="test",
    show_default=True,
    type=click.Choice(["test", "validation", "training"]),
    help="Which patients to evaluate on.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--judge-iterations",
    default=600,
    show_default=True,
    type=click.IntRange(min=1),
    help="Training iterations of the independent segmentor.",
)
@click.option("--name", help="Of the method in tables.  [default: the bundle's]")
@click.option(
    "--a-dice",
    default=0,
    show_default=True,
    metavar="SEEDS",
    type=click.IntRange(min=0),
    help="Also measure A-Dice (GVS, Eq. 8), trained this many times; minutes each on a CPU.",
)
@click.option("--overwrite", is_flag=True, help="Write into a report folder that is not empty.")
def evaluate(
    bundle_name: str,
    data: Path,
    output: Path,
    split: str,
    device: str,
    judge_iterations: int,
    name: str | None,
    a_dice: int,
    overwrite: bool,
) -> None:
    """Measure healthiness, identity and fidelity on the pathological slices of a preprocessed cohort.

    Healthiness is judged by a segmentor trained independently on the cohort's training patients; it is trained once
    and kept with the cohort. Each figure stands beside those of controls that learn nothing: the untouched input, and
    the lesion filled with the mean of normal tissue, from its rim, or from the other hemisphere.
    """
    from pipeline.bundles import find_bundle, load_cycle, load_synthesizer
    from pipeline.evaluation import evaluate as evaluate_method

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\revaluated {done} of {total} scans", err=True, nl=done == total)

    bundle = find_bundle(bundle_name)
    synthesizer, provenance = load_synthesizer(bundle, device)
    summary = evaluate_method(
        synthesizer,
        data,
        output,
        name or bundle.name,
        provenance,
        split=split,
        judge_iterations=judge_iterations,
        overwrite=overwrite,
        cycle=load_cycle(bundle),
        a_dice_seeds=range(a_dice),
        progress=progress,
    )
    say(f"{'':20} healthiness   normal tissue: PSNR, dB   SSIM")
    for row, scores in summary["methods"].items():
        psnr, ssim = (scores["metrics"][metric]["mean"] for metric in ("psnr_normal", "ssim_normal"))
        shown = "identical" if psnr is None else f"{psnr:.2f}"
        say(f"{row:20} {scores['healthiness_pooled']:11.3f} {shown:>25} {ssim:6.4f}")
    say(f"report: {output / 'report.md'}")
