"""`phs-pipeline study`: the papers' experiments, each a table, a plot, and all that they were made from."""

from pathlib import Path
from typing import Any, Literal

import click

from pipeline.cli.options import (
    a_dice_options,
    a_dice_settings,
    judge_iterations_option,
    judge_option,
    refuse_a_dice_options,
    split_by_option,
)
from pipeline.cli.study_options import (
    A_DICE,
    DATA,
    EVERY,
    FOLDER,
    RUNS,
    SWEEP,
    TRAINING,
    WITHOUT_EPOCHS,
    Numbers,
    Values,
    overrides_of,
    say_study,
)
from pipeline.cli.study_survey import SURVEY


@click.group()
def study() -> None:
    """Run the papers' experiments on a preprocessed cohort.

    A study that was stopped goes on when its command is given again; what is finished is not done twice. STUDY
    receives table.md, table.csv, plot.png and summary.json.
    """


@study.command("lambda")
@click.option("--values", type=Values(), default="1,5,10,20,50", show_default=True, help="Of λ.")
@SWEEP
def lambda_(**options: Any) -> None:
    """Healthiness against identity: train with several λ (GVS, Fig. 8d)."""
    _sweep("lambda", **options)


@study.command()
@click.option("--values", type=Values(), default="0.1,0.3,0.5,0.7,1.0", show_default=True, help="Shares of patients.")
@SWEEP
def fraction(**options: Any) -> None:
    """Train with several shares of the training patients (GVS, Fig. 5d)."""
    _sweep("fraction", **options)


@study.command("difference-aware")
@click.option("--values", type=Values(), default="true,false", show_default=True, help="With it, and without.")
@SWEEP
def difference_aware(**options: Any) -> None:
    """Train GVS with the difference-aware loss and without: Dice of its own segmentor (GVS, Fig. 8a and Table I)."""
    _sweep("difference_aware", **options)


@study.command()
@click.option("--setting", required=True, metavar="ID", help="Any setting of the bundle's train.json.")
@click.option("--values", type=Values(), required=True, help="Of the setting.")
@SWEEP
def sweep(setting: str, **options: Any) -> None:
    """Train with several values of any setting."""
    _sweep(setting, **options)


@study.command("few-labels")
@TRAINING
@click.option(
    "--labels", type=Numbers(), default="0.01,0.05,0.2,1", show_default=True, help="Shares whose masks are used."
)
@click.option(
    "--labelled-by",
    type=click.Choice(["examples", "patients"]),
    default="examples",
    show_default=True,
    help="What the shares are of.",
)
@click.option(
    "--labelled-target",
    type=float,
    help="Label images of this target alone, as long as there are enough: 9, the paper's rule for digits.",
)
@click.option(
    "--skips",
    type=Values(),
    default="compress",
    show_default=True,
    help="Long skips; those after the first for GenSeg with the first share alone: compress,concat,sum,none.",
)
@click.option(
    "--printed",
    type=click.Choice(["48-simple", "48-hard", "128", "brats"]),
    help="Which of the paper's cohorts this is; its numbers stand beside ours.",
)
def few_labels(
    data: Path, output: Path, presets: tuple[str, ...], settings: tuple[str, ...], epochs: int | None, **options: Any
) -> None:
    """Segment with few labels: GenSeg beside its baselines of equal iterations (GenSeg, Tables 1a, 1b, Figs. 7, 8).

    With --preset laptop_study a laptop takes less than an hour for one share, one seed and 2000 digits; the table
    says what it departs from. presence_to_absence.png and absence_to_presence.png show translations.
    """
    from pipeline.studies import few_labels as study_of

    page = study_of(data, output, presets=presets, overrides=overrides_of(settings, epochs), **options)
    say_study(page, output)


@study.command()
@click.option("-b", "--bundle", required=True, metavar="RUN", help="Folder of a training run, or a bundle's name.")
@EVERY
@click.option("--alphas", type=Numbers(), default="0,0.3,0.5,0.7,1.0", show_default=True, help="With 0.")
@click.option("--fractions", type=Numbers(), default="1.0", show_default=True, help="Shares of training patients.")
@click.option(
    "--losses", default="ce", show_default=True, help="Some of ce,ce+dice,ce+mixup,ce+dice+mixup, comma-separated."
)
@click.option("--preset", type=click.Choice(["laptop"]), help="Smaller than the paper: 2 mm, 16 filters, 6 epochs.")
def enhancement(
    bundle: str,
    data: Path,
    output: Path,
    seeds: int,
    epochs: int | None,
    device: str,
    split: str,
    alphas: list[float],
    fractions: list[float],
    losses: str,
    preset: str | None,
) -> None:
    """Segment lesions whose contrast RUN's generator enhanced (GVS, Table III and Figs. 8b, 8c, 9).

    For shares of the training patients below 1, generators are trained by RUN's settings on the same shares.
    segmentations_alpha=….png and .csv show what is found with and without enhancement.
    """
    from dataclasses import replace

    from pipeline.bundles import find_bundle
    from pipeline.studies import enhancement as study_of
    from pipeline.studies.enhancement import PAPER, PRESETS

    scale = PRESETS[preset] if preset else PAPER
    scale = replace(scale, epochs=epochs) if epochs else scale
    wanted = list(dict.fromkeys(losses.split(",")))
    page = study_of(find_bundle(bundle), data, output, alphas, fractions, wanted, seeds, scale, split, device)
    say_study(page, output)


@study.command()
@EVERY
@judge_iterations_option
def saliency(
    data: Path, output: Path, seeds: int, epochs: int | None, device: str, split: str, judge_iterations: int
) -> None:
    """Where a classifier and a segmentor look for a lesion (GVS, Fig. 1)."""
    from pipeline.studies import saliency as study_of
    from pipeline.studies.saliency import EPOCHS

    say_study(study_of(data, output, seeds, epochs or EPOCHS, split, judge_iterations, device), output)


@study.command()
@RUNS
@EVERY
@judge_option()
def healthiness(
    bundles: tuple[str, ...],
    data: Path,
    output: Path,
    seeds: int,
    epochs: int | None,
    device: str,
    split: str,
    judge: str,
) -> None:
    """How healthiness depends on the segmentor that judges it, by its seed and epoch (GVS, Fig. 5a).

    Each RUN's images are judged by the same segmentors: give those of `study fraction`, for example.
    """
    from pipeline.bundles import find_bundle
    from pipeline.studies import healthiness as study_of
    from pipeline.studies.healthiness import EPOCHS

    runs = [find_bundle(name) for name in bundles]
    say_study(study_of(runs, data, output, seeds, epochs or EPOCHS, split, judge, device), output)


@study.command()
@RUNS
@EVERY
@click.option("--rates", type=Numbers(), default="0.0001,0.1", show_default=True, help="Of A-Dice's optimiser.")
@a_dice_options("optimizer", "filters", "batch_size", "spacing")
def convergence(
    bundles: tuple[str, ...],
    data: Path,
    output: Path,
    seeds: int,
    epochs: int | None,
    device: str,
    split: str,
    rates: list[float],
    **a_dice_given: Any,
) -> None:
    """How fast lesions are learned in each RUN's images: the curves behind A-Dice (GVS, Figs. 5b, 5c)."""
    from pipeline.bundles import find_bundle
    from pipeline.evaluation import ADiceSettings
    from pipeline.studies import convergence as study_of

    if not all(0 < rate <= 10 for rate in rates):
        raise click.UsageError(f"--rates: found {rates}, expected rates above 0 and at most 10")
    given = a_dice_settings(a_dice_given) | ({"epochs": epochs} if epochs else {})
    settings = ADiceSettings(range(seeds), **given)
    runs = [find_bundle(name) for name in bundles]
    say_study(study_of(runs, data, output, rates, settings, split, device), output)


@study.command()
@WITHOUT_EPOCHS
@judge_iterations_option
@judge_option()
@click.option(
    "--variance",
    default=0.2,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Of the noise, in units of the intensity window.",
)
@A_DICE
def counterfeits(
    data: Path,
    output: Path,
    seeds: int,
    device: str,
    split: str,
    judge_iterations: int,
    judge: str,
    variance: float,
    a_dice: bool,
    **a_dice_given: Any,
) -> None:
    """What healthiness says of lesions filled with a constant or covered with noise (GVS, Fig. 6)."""
    from pipeline.studies import counterfeits as study_of

    measures = _a_dice(a_dice, seeds, a_dice_given)
    say_study(study_of(data, output, seeds, variance, split, judge_iterations, judge, measures, device), output)


@study.command()
@click.option(
    *("-b", "--bundle", "bundles"),
    metavar="BUNDLE",
    multiple=True,
    default=("fill",),
    show_default=True,
    help="A filler: a bundle's name or a run's folder; may be given several times.",
)
@DATA
@click.option(
    "--contrast",
    type=click.Choice(["T1w", "T2w", "FLAIR"]),
    help="Which tissue is bright and which dark.  [default: as the scans' names tell, else T1w]",
)
def volumes(bundles: tuple[str, ...], data: Path, output: Path, device: str, split: str, contrast: str | None) -> None:
    """Grey and white matter in filled scans: what a fill does to volumes that are measured in it.

    COHORT is made by `phantom --kind planted` and `preprocess --whole`. The scan with its planted lesion, and filled by
    each BUNDLE and by the controls of the field, is segmented as the truth is; the errors are in % of the truth's
    volumes.
    """
    from pipeline.bundles import find_bundle
    from pipeline.studies import volumes as study_of

    fillers = [find_bundle(name) for name in bundles]
    say_study(study_of(fillers, data, output, contrast, split, device), output)


@study.command("cross-modal")
@click.option("--data", required=True, metavar="COHORT", help="Of the target modality, by `preprocess --modality`.")
@click.option(
    *("--source", "sources"),
    required=True,
    multiple=True,
    metavar="COHORT",
    help="Of a source modality, or NAME=COHORT; may be given several times.",
)
@click.option("-o", "--output", required=True, metavar="STUDY", type=FOLDER, help="Folder of the study.")
@click.option(
    "--splits", type=click.IntRange(min=1), help="Of the target modality, drawn anew.  [default: 10; laptop: 3]"
)
@click.option("--preset", type=click.Choice(["laptop"]), help="Smaller than the paper: 64×64 pixels of 4 mm.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of each training.  [default: 200; laptop: 10]")
@split_by_option
@click.option("--no-target-labels", is_flag=True, help="Of domain adaptation: by source labels alone.")
@click.option(
    "--features", metavar="FILE", type=FOLDER, help="ImageNet weights of torchvision's ResNet-50, for Table 5."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def cross_modal(
    data: str,
    sources: tuple[str, ...],
    output: Path,
    splits: int | None,
    preset: str | None,
    epochs: int | None,
    by: Literal["patient", "image"],
    no_target_labels: bool,
    features: Path | None,
    device: str,
) -> None:
    """Predict with images translated from other modalities, and with what else can be made of them (DUIIT).

    Tables 1 to 5: target only, DUIIT with each source and with all, transfer and multi-task learning, domain
    adaptation, CycleGAN, augmentations, and controls; FID and inception score of the translations. Figs. 2 and 3 are
    fig2.png and fig3.png.
    """
    from dataclasses import replace

    from pipeline.cli.join import modality
    from pipeline.studies import cross_modal as study_of
    from pipeline.studies.cross_modal_methods import PAPER, PRESETS

    scale = PRESETS[preset] if preset else PAPER
    scale = replace(scale, epochs=epochs) if epochs else scale
    page = study_of(
        modality(data),
        [modality(text) for text in sources],
        output,
        splits or (3 if preset else 10),
        scale,
        by,
        not no_target_labels,
        features,
        device,
    )
    say_study(page, output)


def _a_dice(wanted: bool, seeds: int, given: dict[str, Any]) -> Any:
    """How to measure A-Dice; None where it is not wanted."""
    if not wanted:
        refuse_a_dice_options(click.get_current_context(), "--a-dice")
        return None
    from pipeline.evaluation import ADiceSettings

    return ADiceSettings(range(seeds), **a_dice_settings(given))


def _sweep(
    setting: str,
    values: list[Any],
    bundle: str,
    data: Path,
    output: Path,
    seeds: int,
    epochs: int | None,
    device: str,
    split: str,
    presets: tuple[str, ...],
    settings: tuple[str, ...],
    a_dice: bool,
    judge_iterations: int,
    **a_dice_given: Any,
) -> None:
    measures = _a_dice(a_dice, seeds, a_dice_given)
    overrides = overrides_of(settings, epochs)

    from pipeline.bundles import find_bundle
    from pipeline.studies import sweep as study_of

    table = study_of(
        find_bundle(bundle),
        data,
        output,
        setting,
        values,
        seeds,
        presets,
        overrides,
        split,
        measures,
        judge_iterations,
        device,
    )
    say_study(table, output)


for command in SURVEY:
    study.add_command(command)
