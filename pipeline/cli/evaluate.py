"""`phs-pipeline evaluate`: how healthy, and how much the same person, beside controls."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.cli.say import say

if TYPE_CHECKING:
    from pipeline.inference import Translator


@click.command()
@click.argument("scans", nargs=-1, metavar="[SCAN]…", type=click.Path(path_type=Path))
@click.option(
    "-b", "--bundle", "bundle_name", required=True, metavar="RUN", help="Folder of a training run, or a bundle's name."
)
@click.option(
    "--data",
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
@click.option(
    "--healthy", is_flag=True, help="How much is changed where there is no disease: in each SCAN, or slices of COHORT."
)
@click.option("--overwrite", is_flag=True, help="Write into a report folder that is not empty.")
@click.option("--trust-bundle", is_flag=True, help="Execute the code in an untrusted config.")
@click.pass_context
def evaluate(
    context: click.Context,
    scans: tuple[Path, ...],
    bundle_name: str,
    data: Path | None,
    output: Path,
    split: str,
    device: str,
    judge_iterations: int,
    name: str | None,
    a_dice: int,
    healthy: bool,
    overwrite: bool,
    trust_bundle: bool,
) -> None:
    """Measure healthiness, identity and fidelity on the pathological slices of a preprocessed cohort.

    Healthiness is judged by a segmentor trained independently on the cohort's training patients; it is trained once
    and kept with the cohort. Each figure stands beside those of controls that learn nothing: the untouched input, and
    the lesion filled with the mean of normal tissue, from its rim, or from the other hemisphere.

    With --healthy, each SCAN is that of a person without the disease (a file, a folder, a zip; as for synthesize), or
    the slices of COHORT without lesion are taken: whatever the method changes there was made up or taken away.
    """
    # A container names its folder of cohorts in the environment; what is typed wins.
    typed = context.get_parameter_source("data") is ParameterSource.COMMANDLINE
    if scans and not healthy:
        raise click.UsageError("SCAN… is for --healthy; a cohort with lesion masks is given with --data COHORT")
    if scans and typed:
        raise click.UsageError("--healthy takes SCAN… or --data COHORT, found both; give one of the two")
    if not (scans or data):
        raise click.UsageError("missing --data COHORT" + (", or SCAN…" if healthy else ""))
    if healthy and a_dice:
        raise click.UsageError("--a-dice needs lesions; leave it or --healthy out")

    from pipeline.bundles import find_bundle
    from pipeline.errors import ScanError
    from pipeline.inference import load_export, load_predictor

    bundle = find_bundle(bundle_name)
    synthesizer, provenance = load_predictor(bundle, "translator", device, trust=trust_bundle)
    name, failed = name or bundle.name, 0
    if healthy:
        failed = _healthy(scans, data, split, synthesizer, bundle.metadata, output, name, provenance, overwrite)
    elif data is not None:
        cycle = load_export(bundle, "cycle", trust_bundle)
        _pathological(data, split, synthesizer, cycle, output, name, provenance, overwrite, judge_iterations, a_dice)
    say(f"report: {output / 'report.md'}")
    if failed:
        raise ScanError(f"{failed} scan(s) failed, for the reasons above")


def _pathological(
    data: Path,
    split: str,
    synthesizer: "Translator",
    cycle: Any,
    output: Path,
    name: str,
    provenance: dict[str, Any],
    overwrite: bool,
    judge_iterations: int,
    a_dice: int,
) -> None:
    from pipeline.evaluation import evaluate as evaluate_method

    summary = evaluate_method(
        synthesizer,
        data,
        output,
        name,
        provenance,
        split=split,
        judge_iterations=judge_iterations,
        overwrite=overwrite,
        cycle=cycle,
        a_dice_seeds=range(a_dice),
        progress=_progress,
    )
    say(f"{'':20} healthiness   normal tissue: PSNR, dB   SSIM")
    for row, scores in summary["methods"].items():
        psnr, ssim = (scores["metrics"][metric]["mean"] for metric in ("psnr_normal", "ssim_normal"))
        shown = "identical" if psnr is None else f"{psnr:.2f}"
        say(f"{row:20} {scores['healthiness_pooled']:11.3f} {shown:>25} {ssim:6.4f}")


def _healthy(
    scans: tuple[Path, ...],
    data: Path | None,
    split: str,
    synthesizer: "Translator",
    metadata: dict[str, Any],
    output: Path,
    name: str,
    provenance: dict[str, Any],
    overwrite: bool,
) -> int:
    """Returns how many scans failed."""
    from pipeline.evaluation.healthy import cohort_loads, evaluate_healthy, scan_loads
    from pipeline.files import sha256
    from pipeline.inference.outputs import output_names
    from pipeline.preprocessing.cohort_format import COHORT_FILE
    from pipeline.scans.sources import open_sources

    with contextlib.ExitStack() as stack:
        if scans:
            named = output_names(stack.enter_context(open_sources(scans)))
            loads = scan_loads(named, synthesizer, metadata)
            of = "scans of persons without the disease, as the user says"
        else:
            folder = Path(str(data))
            loads = cohort_loads(folder, split)
            of = f"those without lesion in the {split} split of a cohort"
            provenance = {**provenance, "CohortSha256": sha256(folder / COHORT_FILE)}
        summary = evaluate_healthy(synthesizer, loads, output, name, provenance, of, overwrite, _progress)
    metrics = {metric: scores["mean"] for metric, scores in summary["metrics"].items()}
    psnr = "identical" if metrics["psnr"] is None else f"{metrics['psnr']:.2f} dB"
    say(
        f"{name}: {100 * metrics['changed_share']:.2f} % of healthy tissue changed, a slice "
        f"{metrics['appeared_per_slice']:.2f} regions appeared and {metrics['vanished_per_slice']:.2f} vanished; "
        f"PSNR {psnr}, SSIM {metrics['ssim']:.4f}"
    )
    for subject, reason in summary["failed"].items():
        click.echo(f"{subject}: failed: {reason}", err=True)
    return len(summary["failed"])


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\revaluated {done} of {total} scans", err=True, nl=done == total)
