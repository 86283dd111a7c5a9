"""`phs-pipeline evaluate`: how healthy, and how much the same person, beside controls."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.cli.options import (
    a_dice_options,
    a_dice_settings,
    judge_iterations_option,
    judge_option,
    num_parts_option,
    part_id_option,
    part_of,
    refuse_a_dice_options,
)
from pipeline.cli.say import complain, progress, say

if TYPE_CHECKING:
    from pipeline.evaluation import Settings
    from pipeline.inference import Translator

FILL_FIGURES = ("psnr_lesion", "ssim_lesion")
EVALUATED = "evaluated {} of {} scans"


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
@judge_iterations_option
@judge_option(none=True)
@click.option("--name", help="Of the method in tables.  [default: the bundle's]")
@click.option(
    "--a-dice",
    default=0,
    show_default=True,
    metavar="SEEDS",
    type=click.IntRange(min=0),
    help="Also measure A-Dice (GVS, Eq. 8), trained this many times; minutes each on a CPU.",
)
@a_dice_options()
@click.option(
    "--healthy", is_flag=True, help="How much is changed where there is no disease: in each SCAN, or slices of COHORT."
)
@num_parts_option
@part_id_option
@click.option("--overwrite", is_flag=True, help="Write into a report folder that is not empty.")
@click.option("--trust-bundle", is_flag=True, help="Execute the code in an untrusted config.")
@click.pass_context
def evaluate(
    context: click.Context,
    /,
    scans: tuple[Path, ...],
    bundle_name: str,
    data: Path | None,
    output: Path,
    split: str,
    device: str,
    judge_iterations: int,
    judge: str,
    name: str | None,
    a_dice: int,
    healthy: bool,
    num_parts: int,
    part_id: int,
    overwrite: bool,
    trust_bundle: bool,
    **a_dice_given: Any,
) -> None:
    """Measure a run on a preprocessed cohort: healthiness, identity and fidelity of pseudo-healthy and filled images,
    overlap of segmentations, errors of scores.

    Healthiness is judged by a segmentor trained independently on the cohort's training patients; it is trained once
    and kept with the cohort. Each figure stands beside those of controls that learn next to nothing: the untouched
    input, and the lesion filled with the mean of normal tissue, from its rim, or from the other hemisphere; an
    intensity threshold; the mean of the training patients. Where the healthy truth is known (`phantom`), fills are
    measured against it by size of lesion, beside six more that are usual.

    With --healthy, each SCAN is that of a person without the disease (a file, a folder, a zip; as for synthesize), or
    the slices of COHORT without lesion are taken: whatever the method changes there was made up or taken away.

    With --num-parts each run measures its share of COHORT's scans; when all have ended, the same command without it
    makes the report of them.
    """  # noqa: D205
    _check(context, scans, data, healthy, a_dice)
    part = part_of(num_parts, part_id)
    _check_share(part, healthy, a_dice, overwrite)

    from pipeline.bundles import find_parts
    from pipeline.errors import ScanError
    from pipeline.evaluation import ADiceSettings, Settings
    from pipeline.evaluation.own import own_networks
    from pipeline.inference import load_parts
    from pipeline.launch import check_unseen, unfinished

    bundles = find_parts(bundle_name)
    for bundle in bundles:
        if data is not None and not scans:
            check_unseen(bundle, data, split)
        stopped = unfinished(bundle)
        if stopped:
            complain(f"warning: {stopped}")
    loaded = load_parts(bundles, "translator" if healthy else None, device, trust_bundle)
    predictor, provenance = loaded.predictor, loaded.provenance
    name, failed = name or loaded.name, 0
    if healthy:
        failed = _healthy(scans, data, split, predictor, loaded.metadata, output, name, provenance, overwrite)
    elif data is not None:
        settings = Settings(
            name,
            provenance,
            split,
            judge_iterations,
            None if judge == "none" else judge,
            ADiceSettings(range(a_dice), **a_dice_settings(a_dice_given)) if a_dice else None,
        )
        own = own_networks(bundles[0], trust_bundle) if len(bundles) == 1 else {}
        if num_parts > 1:
            _share(predictor, data, output, settings, part, own)
            return
        _on_cohort(predictor, data, output, settings, overwrite, own)
    say(f"report: {output / 'report.md'}")
    if failed:
        raise ScanError(f"{failed} scan(s) failed, for the reasons above")


def _check(context: click.Context, scans: tuple[Path, ...], data: Path | None, healthy: bool, a_dice: int) -> None:
    """Refuse options that do not go together."""
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
    if not a_dice:
        refuse_a_dice_options(context, "--a-dice SEEDS")


def _check_share(part: tuple[int, int], healthy: bool, a_dice: int, overwrite: bool) -> None:
    """Refuse what cannot be done in shares."""
    given = [
        name for name, chosen in (("--healthy", healthy), ("--a-dice", a_dice), ("--overwrite", overwrite)) if chosen
    ]
    if part[1] > 1 and given:
        raise click.UsageError(f"--num-parts {part[1]}: does not go with {given[0]}; leave one of the two out")


def _share(
    predictor: Any, data: Path, output: Path, settings: "Settings", part: tuple[int, int], networks: Any
) -> None:
    from pipeline.reports.cohort_evaluation import evaluate_part

    measured = evaluate_part(predictor, data, output, settings, part, networks, progress(EVALUATED))
    say(f"{output}: share {part[0]} of {part[1]} is measured, {measured} scan(s)")
    say("next, when all shares are: the same command without --num-parts makes the report")


def _on_cohort(predictor: Any, data: Path, output: Path, settings: "Settings", overwrite: bool, networks: Any) -> None:
    from pipeline.metrics import Metric
    from pipeline.reports.cohort_evaluation import evaluate_and_report

    summary = evaluate_and_report(predictor, data, output, settings, overwrite, networks, progress(EVALUATED)).summary
    metrics = [Metric.from_record(record) for record in summary["metrics"]]
    # A filler leaves normal tissue as it is; how close its fill comes to the truth is what it is evaluated for.
    of_fills = FILL_FIGURES if summary["kind"] == "filler" else ()
    shown = [metric for metric in metrics if metric.headline or metric.name in of_fills]
    say(f"{'':20} " + "   ".join(metric.label for metric in shown))
    for row, scores in summary["methods"].items():
        figures = [_figure(metric, scores["metrics"].get(metric.name)).rjust(len(metric.label)) for metric in shown]
        say(f"{row:20} " + "   ".join(figures))


def _healthy(
    scans: tuple[Path, ...],
    data: Path | None,
    split: str,
    translator: "Translator",
    metadata: dict[str, Any],
    output: Path,
    name: str,
    provenance: dict[str, Any],
    overwrite: bool,
) -> int:
    """Returns how many scans failed."""
    from pipeline.evaluation.healthy import cohort_loads, evaluate_healthy, scan_loads
    from pipeline.files import require_empty, sha256
    from pipeline.inference.outputs import output_names
    from pipeline.metrics import Metric
    from pipeline.preprocessing.cohort_format import COHORT_FILE
    from pipeline.reports.evaluation_report import write_healthy_report
    from pipeline.scans.sources import open_sources

    require_empty(output, overwrite)
    with contextlib.ExitStack() as stack:
        if scans:
            named = output_names(stack.enter_context(open_sources(scans)))
            loads = scan_loads(named, translator, metadata)
            of = "scans of persons without the disease, as the user says"
        else:
            folder = Path(str(data))
            loads = cohort_loads(folder, split)
            of = f"those without lesion in the {split} split of a cohort"
            provenance = {**provenance, "CohortSha256": sha256(folder / COHORT_FILE)}
        evaluation = evaluate_healthy(translator, loads, name, provenance, of, progress(EVALUATED))
    write_healthy_report(output, evaluation)
    summary = evaluation.summary
    metrics = [Metric.from_record(record) for record in summary["metrics"]]
    figures = [f"{metric.label} {_figure(metric, summary['scores'][metric.name])}" for metric in metrics]
    say(f"{name}: {'; '.join(figures)}")
    for subject, reason in summary["failed"].items():
        complain(f"{subject}: failed: {reason}")
    return len(summary["failed"])


def _figure(metric: Any, score: dict[str, Any] | None) -> str:
    if score is None or not score["n"]:
        return "–"
    return str(metric.text(score["mean"], missing=metric.perfect_word if score["identical"] else "collapsed"))
