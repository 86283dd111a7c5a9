"""`phs-pipeline study`: the papers' experiments, each a table, a plot, and all that they were made from."""

from collections.abc import Callable
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
from pipeline.cli.say import say, say_lines
from pipeline.cli.train import _value as plain_value


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """Numbers, separated by commas."""

    name = "A,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """A list of floats, none twice."""
        if isinstance(value, list):
            return value
        try:
            numbers = [float(text) for text in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 0.1,0.5,1", param, ctx)
        return list(dict.fromkeys(numbers))


class Values(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """Values of a setting, separated by commas."""

    name = "A,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:  # noqa: ARG002
        """JSON where it is JSON, else text; none twice."""
        return value if isinstance(value, list) else [plain_value(text) for text in dict.fromkeys(value.split(","))]


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


FOLDER = click.Path(path_type=Path)
DATA = _options(
    click.option("--data", required=True, metavar="COHORT", type=FOLDER, help="Made by `phs-pipeline preprocess`."),
    click.option("-o", "--output", required=True, metavar="STUDY", type=FOLDER, help="Folder of the study."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--split",
        default="validation",
        show_default=True,
        type=click.Choice(["validation", "test"]),
        help="Which patients to measure on.",
    ),
)
SEEDS = click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Trainings of each kind."
)
WITHOUT_EPOCHS = _options(DATA, SEEDS)
EVERY = _options(WITHOUT_EPOCHS, click.option("--epochs", type=click.IntRange(min=1), help="Length of each training."))
RUNS = click.option(
    *("-b", "--bundle", "bundles"),
    metavar="RUN",
    multiple=True,
    required=True,
    help="Folder of a training run, or a bundle's name; may be given several times.",
)
A_DICE = _options(click.option("--a-dice", is_flag=True, help="Measure A-Dice too."), a_dice_options())
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="ID=VALUE", help="Any setting of the bundle's train.json."
)
TRAINING = _options(
    EVERY,
    click.option("--preset", "presets", multiple=True, help="Settings to lay over the paper's, e.g. laptop."),
    SETTINGS,
)
SWEEP = _options(
    click.option("-b", "--bundle", default="gvs", show_default=True, help="What to train."),
    TRAINING,
    A_DICE,
    judge_iterations_option,
)


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


@study.command("objectives")
@click.option("-o", "--output", required=True, metavar="STUDY", type=FOLDER, help="Folder of the study.")
@click.option(
    "--steps", default=2000, show_default=True, type=click.IntRange(min=0), help="On the mixture; 0 leaves it out."
)
@click.option(
    "--digit-steps", default=600, show_default=True, type=click.IntRange(min=0), help="On digits; 0 leaves them out."
)
@click.option("--digits", metavar="FILE", type=FOLDER, help="MNIST as .npz.  [default: scikit-learn's digits]")
@SEEDS
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def objectives(output: Path, steps: int, digit_steps: int, digits: Path | None, seeds: int, device: str) -> None:
    """Which objective saturates, and which collapses (survey, Table 1, Fig. 2); needs no cohort."""
    from pipeline.studies import objectives as study_of

    _say_study(study_of(output, steps, digit_steps, seeds, digits, device), output)


@study.command("conditional")
@WITHOUT_EPOCHS
@click.option("--preset", "presets", multiple=True, help="Settings of dcgan to lay over the paper's, e.g. laptop.")
@click.option("--set", "settings", multiple=True, metavar="ID=VALUE", help="Any setting of dcgan's train.json.")
@click.option("--fractions", type=Numbers(), default="0.1,1", show_default=True, help="Shares of the patients.")
@click.option("--steps", default=800, show_default=True, type=click.IntRange(min=1), help="Of each generator.")
@click.option("--iterations", default=300, show_default=True, type=click.IntRange(min=1), help="Of each segmentor.")
@click.option("--drawn", default=600, show_default=True, type=click.IntRange(2, 9999), help="Images of a generator.")
def conditional(
    data: Path,
    output: Path,
    device: str,
    split: str,
    seeds: int,
    presets: tuple[str, ...],
    settings: tuple[str, ...],
    fractions: list[float],
    steps: int,
    iterations: int,
    drawn: int,
) -> None:
    """Images of a class, for a mask, with a mask: what they show, and what they teach a segmentor (survey, Eq. 5)."""
    overrides = _overrides(settings, None)

    from pipeline.studies import Lengths
    from pipeline.studies import conditional as study_of

    lengths = Lengths(steps, iterations, drawn)
    _say_study(study_of(data, output, fractions, seeds, lengths, presets, overrides, split, device), output)


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

    page = study_of(data, output, presets=presets, overrides=_overrides(settings, epochs), **options)
    _say_study(page, output)


@study.command()
@EVERY
@SETTINGS
def segmentation(
    data: Path, output: Path, seeds: int, epochs: int | None, device: str, split: str, settings: tuple[str, ...]
) -> None:
    """Segment with a critic, or with cross-entropy or Dice loss alone (survey, Section 5.4).

    Luc's, Kohl's and SegAN's critics: Dice, HD95, holes and fragments. At its own size, of a laptop, three seeds take
    less than an hour; `--set spacing_mm=1` and other settings make it larger. segmentations.png shows what is found.
    """
    from pipeline.studies import segmentation as study_of

    _say_study(study_of(data, output, seeds, _overrides(settings, epochs), split, device), output)


@study.command("semi-supervised")
@EVERY
@SETTINGS
@click.option(
    "--task",
    type=click.Choice(["segmentation", "presence", "digits"]),
    default="segmentation",
    show_default=True,
    help="Masks by Zhang's critic, or classes by K + 1: whether a slice shows a lesion, or which digit.",
)
@click.option(
    "--labels", type=Numbers(), default="0.01,0.05,0.2", show_default=True, help="Shares of patients, or of digits."
)
def semi_supervised(
    data: Path,
    output: Path,
    seeds: int,
    epochs: int | None,
    device: str,
    split: str,
    settings: tuple[str, ...],
    task: Literal["segmentation", "presence", "digits"],
    labels: list[float],
) -> None:
    """Learn from few labels and many slices without (survey, Section 5.6).

    Beside the same labels alone, and of segmentation beside GenSeg and an intensity threshold. At its own size, of a
    laptop, three shares and seeds take less than an hour.
    """
    from pipeline.studies import semi_supervised as study_of

    overrides = _overrides(settings, epochs)
    _say_study(study_of(data, output, task, labels, seeds, overrides, split, device), output)


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
    _say_study(page, output)


@study.command()
@EVERY
@judge_iterations_option
def saliency(
    data: Path, output: Path, seeds: int, epochs: int | None, device: str, split: str, judge_iterations: int
) -> None:
    """Where a classifier and a segmentor look for a lesion (GVS, Fig. 1)."""
    from pipeline.studies import saliency as study_of
    from pipeline.studies.saliency import EPOCHS

    _say_study(study_of(data, output, seeds, epochs or EPOCHS, split, judge_iterations, device), output)


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
    _say_study(study_of(runs, data, output, seeds, epochs or EPOCHS, split, judge, device), output)


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
    _say_study(study_of(runs, data, output, rates, settings, split, device), output)


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
    _say_study(study_of(data, output, seeds, variance, split, judge_iterations, judge, measures, device), output)


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
    _say_study(study_of(fillers, data, output, contrast, split, device), output)


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
    _say_study(page, output)


@study.command("domain-adaptation")
@click.option("--data", required=True, metavar="COHORT", type=FOLDER, help="Made by `phs-pipeline preprocess`.")
@click.option("-o", "--output", required=True, metavar="STUDY", type=FOLDER, help="Folder of the study.")
@click.option(
    "--target",
    metavar="PATTERN",
    help="Patients of the target domain, e.g. 'brats13-*'.  [default: simulated scanners]",
)
@click.option(
    "--source", metavar="PATTERN", default="*", show_default=True, help="Patients of the source domain, of the others."
)
@SEEDS
@click.option("--spacing", type=click.FloatRange(min=0.5), help="Of the grid in mm.  [default: 3]")
@click.option("--iterations", type=click.IntRange(min=1), help="Of each segmentor and translator.  [default: 600]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def domain_adaptation(
    data: Path,
    output: Path,
    target: str | None,
    source: str,
    seeds: int,
    spacing: float | None,
    iterations: int | None,
    device: str,
) -> None:
    """Segment scans of another scanner, with masks of the first alone (survey, Eq. 9 and Fig. 10).

    Domain-adversarial features of the last and of several layers, the source translated, the target translated back;
    beside the segmentor as it is, histogram matching, random contrast, a threshold, and one trained on the target.
    Without --target two scanners are simulated, whose truth is known.
    """
    from pipeline.studies import domain_adaptation as study_of
    from pipeline.studies.domain_adaptation import scale

    page = study_of(data, output, target, source, seeds, scale(spacing, iterations), device)
    _say_study(page, output)


SCALE = _options(
    click.option("--iterations", type=click.IntRange(min=1), help="Of each training.  [default: 600]"),
    click.option("--spacing-mm", type=click.FloatRange(0.5, 16), help="Of pixels.  [default: 3]"),
)
TO = click.option("--target", required=True, metavar="CHANNEL", help="Channel of COHORT to translate into.")
FROM = click.option("--source", required=True, metavar="CHANNEL", help="Channel of COHORT to translate from.")


@study.command()
@WITHOUT_EPOCHS
@click.option(
    *("--task", "tasks"),
    multiple=True,
    metavar="NAME",
    help="denoise, k-space, super-resolution (of scans with slices of 2 mm at most); may be given several times.  "
    "[default: all that COHORT has slices for]",
)
@click.option(
    "--channels",
    metavar="NAMES",
    help="The sequence to restore, then one that networks see beside it in k-space, comma-separated.  [default: the "
    "cohort's first two]",
)
@click.option("--spacing-mm", type=click.FloatRange(min=0.5, max=8), help="Pixel of the grid.  [default: 2.5]")
@click.option("--filters", type=click.IntRange(min=1), help="Of the generators' first stage.  [default: 16]")
@click.option("--steps", type=click.IntRange(min=1), help="Of each generator.  [default: 300]")
@click.option("--feature-steps", type=click.IntRange(min=1), help="Of the perceptual features.  [default: 100]")
def quality(
    data: Path,
    output: Path,
    device: str,
    split: str,
    seeds: int,
    tasks: tuple[str, ...],
    channels: str | None,
    **sizes: float | None,
) -> None:
    """Restore degraded images by L1, by an adversary and by perception: noise, undersampled k-space, thick slices.

    Survey (Wolterink et al. 2018), Section 5.3: PSNR, SSIM, Fréchet distance, contrast of lesions, and small planted
    lesions that are kept or lost, beside controls. plot.png sets distortion against perception; pictures_TASK.png are
    slices.
    """
    from pipeline.studies import quality as study_of
    from pipeline.studies.quality_methods import Scale

    scale = Scale(**{name: value for name, value in sizes.items() if value is not None})  # type: ignore[arg-type]
    names = channels.split(",") if channels else None
    _say_study(study_of(data, output, tasks or None, names, seeds, scale, split, device), output)


@study.command()
@WITHOUT_EPOCHS
@SCALE
@click.option(
    *("--source", "sources"),
    multiple=True,
    metavar="CHANNEL",
    help="Channel to translate from, or mask or edges, a sketch of the target; may be given several times.",
)
@TO
@click.option(
    "--noise",
    type=click.FloatRange(0, 1, min_open=True),
    help="Take noise of this standard deviation from the target instead, in units of the intensity window.",
)
def paired(
    data: Path,
    output: Path,
    sources: tuple[str, ...],
    target: str,
    noise: float | None,
    seeds: int,
    iterations: int | None,
    spacing_mm: float | None,
    **options: str,
) -> None:
    """Translate pairs by an L1 term, a discriminator, or both; by patches or whole images (survey, Section 3.1).

    COHORT has several channels (`preprocess --channels`). pictures.png shows slices.
    """
    from pipeline.studies import paired as study_of

    if (noise is None) != bool(sources):
        raise click.UsageError("give --source, or --noise, one of the two")
    scale = _scale(iterations, spacing_mm)
    _say_study(study_of(data, output, sources, target, noise, seeds, scale, **options), output)


@study.command()
@WITHOUT_EPOCHS
@SCALE
@FROM
@TO
@click.option("--shifts", type=Numbers(), default="0,1,2,4", show_default=True, help="Of the targets, in pixels.")
@click.option(
    "--lambda-self",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="λ of the self-regularised method (Eq. 8).",
)
def misregistration(
    data: Path,
    output: Path,
    source: str,
    target: str,
    shifts: list[float],
    lambda_self: float,
    seeds: int,
    iterations: int | None,
    spacing_mm: float | None,
    **options: str,
) -> None:
    """Paired against unpaired translation of pairs shifted by known amounts (survey, Sections 3.2 and 5.2).

    COHORT has several channels on one grid (`preprocess --channels`). pictures.png shows slices.
    """
    from pipeline.studies import misregistration as study_of

    if min(shifts) < 0:
        raise click.UsageError(f"--shifts: found {shifts}, expected pixels, 0 or more")
    scale = _scale(iterations, spacing_mm)
    _say_study(study_of(data, output, source, target, shifts, seeds, lambda_self, scale, **options), output)


@study.command()
@WITHOUT_EPOCHS
@SCALE
@FROM
@TO
@click.option(
    "--shares",
    type=Numbers(),
    default="0,0.25,0.5,0.75,1",
    show_default=True,
    help="Of slices with a tumour in the target domain.",
)
def hallucination(
    data: Path,
    output: Path,
    source: str,
    target: str,
    shares: list[float],
    seeds: int,
    iterations: int | None,
    spacing_mm: float | None,
    **options: str,
) -> None:
    """Tumours that appear or vanish as their share in a CycleGAN's target domain changes (survey, Section 6).

    COHORT has several channels and lesion masks (`preprocess --channels`). pictures.png shows slices.
    """
    from pipeline.studies import hallucination as study_of

    scale = _scale(iterations, spacing_mm)
    _say_study(study_of(data, output, source, target, shares, seeds, scale, **options), output)


def _scale(iterations: int | None, spacing_mm: float | None) -> Any:
    """How large the networks of a study of translation are: a laptop's size, but for what is given."""
    from dataclasses import replace

    from pipeline.studies.paired_slices import Scale

    scale = Scale()
    return replace(scale, iterations=iterations or scale.iterations, spacing_mm=spacing_mm or scale.spacing_mm)


@study.command()
@click.option("--data", required=True, metavar="COHORT", type=FOLDER, help="Made by `phs-pipeline preprocess`.")
@click.option("-o", "--output", required=True, metavar="STUDY", type=FOLDER, help="Folder of the study.")
@SEEDS
@click.option("--epochs", type=click.IntRange(min=1), help="Length of each training.")
@click.option(
    "--preset", "presets", multiple=True, default=("laptop",), show_default=True, help="Of the bundle anogan."
)
@click.option("--set", "settings", multiple=True, metavar="ID=VALUE", help="Any setting of the bundle's train.json.")
@click.option(
    *("--source", "sources"),
    multiple=True,
    metavar="NAME=PATTERN",
    help="Patients of one source of data, by their names in COHORT, e.g. open_ms=openms-*; may be given several times.",
)
@click.option(
    *("-b", "--bundle", "translator"),
    default="gvs",
    show_default=True,
    help="A translator whose difference is a control; `none` for none.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def anomaly(
    data: Path,
    output: Path,
    seeds: int,
    epochs: int | None,
    presets: tuple[str, ...],
    settings: tuple[str, ...],
    sources: tuple[str, ...],
    translator: str,
    device: str,
) -> None:
    """Find lesions with healthy slices alone: AnoGAN, f-AnoGAN, BiGAN, autoencoder, VAE (survey, Section 5.1).

    Controls: the intensity, equalised and not, the distance to the mean healthy brain, and a translator's difference.
    Thresholds are chosen on the validation patients, all figures are of the test patients. maps.png shows some.
    """
    from pipeline.bundles import find_bundle
    from pipeline.studies import anomaly as study_of

    named = dict(text.partition("=")[::2] for text in sources)
    if not all(name and pattern for name, pattern in named.items()):
        raise click.UsageError(f"--source: found {', '.join(sources)}, expected NAME=PATTERN, e.g. open_ms=openms-*")
    control = None if translator == "none" else find_bundle(translator)
    page = study_of(data, output, seeds, presets, _overrides(settings, epochs), named, control, device)
    _say_study(page, output)


@study.command()
@WITHOUT_EPOCHS
@click.option(
    "--seconds",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Of each of the 6 trainings of a seed; the processor's on a CPU.",
)
@click.option(
    *("--preset", "presets"),
    multiple=True,
    default=("laptop",),
    show_default=True,
    help="Settings of the bundle dcgan, laid under those of each family.",
)
@click.option("--set", "settings", multiple=True, metavar="ID=VALUE", help="Any setting of the bundle's train.json.")
def samples(data: Path, output: Path, settings: tuple[str, ...], **options: Any) -> None:
    """Families of generators at equal time: perceptron, DCGAN, Laplacian pyramid, progressive growing, InfoGAN.

    FID, inception score, precision, recall and a copying test against real slices of other people; the latent space,
    and whether a classifier of lesion presence learns more with made slices (survey, Sections 2.2, 2.4, 5.1). COHORT
    has lesion masks. samples.png, nearest.png, walk.png, arithmetic.png and codes.png show images of seed 0. As it is,
    a laptop takes less than an hour.
    """
    from pipeline.studies import samples as study_of

    page = study_of(data, output, overrides=_overrides(settings, None), **options)
    _say_study(page, output)


@study.command()
@click.option("-o", "--output", required=True, metavar="STUDY", type=FOLDER, help="Folder of the study.")
@click.option("--count", default=1024, show_default=True, type=click.IntRange(min=8), help="Curves to learn from.")
@click.option("--points", default=32, show_default=True, type=click.IntRange(min=16), help="Along each: 16, 32, 64, ….")
@click.option(
    "--iterations", default=10_000, show_default=True, type=click.IntRange(min=1), help="Steps of the critic."
)
@SEEDS
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def curves(output: Path, **options: Any) -> None:
    """A Wasserstein GAN of vessels' centrelines, simulated with known parameters, and its latent space.

    Beside a point distribution model: how parameters are distributed, which of them the latent tells, and what moving
    it does (survey, Section 5.1).
    """
    from pipeline.studies import curves as study_of

    _say_study(study_of(output, **options), output)


def _a_dice(wanted: bool, seeds: int, given: dict[str, Any]) -> Any:
    """How to measure A-Dice; None where it is not wanted."""
    if not wanted:
        refuse_a_dice_options(click.get_current_context(), "--a-dice")
        return None
    from pipeline.evaluation import ADiceSettings

    return ADiceSettings(range(seeds), **a_dice_settings(given))


def _overrides(settings: tuple[str, ...], epochs: int | None) -> dict[str, Any]:
    """What --set and --epochs say, by config id."""
    overrides: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    for given in settings:
        name, found, value = given.partition("=")
        if not (name and found):
            raise click.UsageError(f"--set {given}: expected ID=VALUE, for example --set generator_rate=0.0003")
        overrides[name] = plain_value(value)
    return overrides


def _say_study(page: str, output: Path) -> None:
    say_lines(page)
    say(f"table: {output / 'table.md'}; plot: {output / 'plot.png'}")


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
    overrides = _overrides(settings, epochs)

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
    _say_study(table, output)
