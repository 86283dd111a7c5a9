"""The experiments of the survey (Wolterink et al. 2018), as commands of `phs-pipeline study`."""

from pathlib import Path
from typing import Any, Literal

import click

from pipeline.cli.study_options import (
    EVERY,
    FOLDER,
    SEEDS,
    SETTINGS,
    WITHOUT_EPOCHS,
    Numbers,
    options_of,
    overrides_of,
    say_study,
)


@click.command("objectives")
@click.option("-o", "--output", required=True, metavar="STUDY", type=FOLDER, help="Folder of the study.")
@click.option(
    "--steps", default=1500, show_default=True, type=click.IntRange(min=0), help="On the mixture; 0 leaves it out."
)
@click.option(
    "--digit-steps", default=300, show_default=True, type=click.IntRange(min=0), help="On digits; 0 leaves them out."
)
@click.option("--digits", metavar="FILE", type=FOLDER, help="MNIST as .npz.  [default: scikit-learn's digits]")
@SEEDS
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def objectives(output: Path, steps: int, digit_steps: int, digits: Path | None, seeds: int, device: str) -> None:
    """Which objective saturates, and which collapses (survey, Table 1, Fig. 2); needs no cohort."""
    from pipeline.studies import objectives as study_of

    say_study(study_of(output, steps, digit_steps, seeds, digits, device), output)


@click.command("conditional")
@WITHOUT_EPOCHS
@click.option("--preset", "presets", multiple=True, help="Settings of dcgan to lay over the paper's, e.g. laptop.")
@click.option("--set", "settings", multiple=True, metavar="ID=VALUE", help="Any setting of dcgan's train.json.")
@click.option("--fractions", type=Numbers(), default="0.1,1", show_default=True, help="Shares of the patients.")
@click.option("--steps", default=600, show_default=True, type=click.IntRange(min=1), help="Of each generator.")
@click.option("--iterations", default=200, show_default=True, type=click.IntRange(min=1), help="Of each segmentor.")
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
    overrides = overrides_of(settings, None)

    from pipeline.studies import Lengths
    from pipeline.studies import conditional as study_of

    lengths = Lengths(steps, iterations, drawn)
    say_study(study_of(data, output, fractions, seeds, lengths, presets, overrides, split, device), output)


@click.command()
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

    say_study(study_of(data, output, seeds, overrides_of(settings, epochs), split, device), output)


@click.command("semi-supervised")
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
    "--labels",
    type=Numbers(),
    help="Shares of patients, or of digits.  [default: 0.01,0.05,0.2; of presence 0.05,0.2]",
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
    labels: list[float] | None,
) -> None:
    """Learn from few labels and many slices without (survey, Section 5.6).

    Beside the same labels alone, and of segmentation beside GenSeg and an intensity threshold. At its own size, of a
    laptop, three seeds take less than an hour on two cores.
    """
    from pipeline.studies import semi_supervised as study_of

    overrides = overrides_of(settings, epochs)
    say_study(study_of(data, output, task, labels, seeds, overrides, split, device), output)


@click.command("domain-adaptation")
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
@click.option("--spacing", type=click.FloatRange(min=0.5), help="Of the grid in mm.  [default: 4]")
@click.option("--iterations", type=click.IntRange(min=1), help="Of each segmentor and translator.  [default: 200]")
@click.option("--filters", type=click.IntRange(min=1), help="Of the segmentors' first stage.  [default: 8]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def domain_adaptation(
    data: Path,
    output: Path,
    target: str | None,
    source: str,
    seeds: int,
    spacing: float | None,
    iterations: int | None,
    filters: int | None,
    device: str,
) -> None:
    """Segment scans of another scanner, with masks of the first alone (survey, Eq. 9 and Fig. 10).

    Domain-adversarial features of the last and of several layers, the source translated, the target translated back;
    beside the segmentor as it is, histogram matching, random contrast, a threshold, and one trained on the target.
    Without --target two scanners are simulated, whose truth is known.
    """
    from pipeline.studies import domain_adaptation as study_of
    from pipeline.studies.domain_adaptation import scale

    page = study_of(data, output, target, source, seeds, scale(spacing, iterations, filters), device)
    say_study(page, output)


SCALE = options_of(
    click.option("--iterations", type=click.IntRange(min=1), help="Of each training.  [default: 300]"),
    click.option("--spacing-mm", type=click.FloatRange(0.5, 16), help="Of pixels.  [default: 4]"),
)


TO = click.option("--target", required=True, metavar="CHANNEL", help="Channel of COHORT to translate into.")


FROM = click.option("--source", required=True, metavar="CHANNEL", help="Channel of COHORT to translate from.")


@click.command()
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
@click.option("--spacing-mm", type=click.FloatRange(min=0.5, max=8), help="Pixel of the grid.  [default: 4]")
@click.option("--filters", type=click.IntRange(min=1), help="Of the generators' first stage.  [default: 8]")
@click.option("--steps", type=click.IntRange(min=1), help="Of each generator.  [default: 80]")
@click.option("--feature-steps", type=click.IntRange(min=1), help="Of the perceptual features.  [default: 60]")
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
    say_study(study_of(data, output, tasks or None, names, seeds, scale, split, device), output)


@click.command()
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
    say_study(study_of(data, output, sources, target, noise, seeds, scale, **options), output)


@click.command()
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
    say_study(study_of(data, output, source, target, shifts, seeds, lambda_self, scale, **options), output)


@click.command()
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
    say_study(study_of(data, output, source, target, shares, seeds, scale, **options), output)


def _scale(iterations: int | None, spacing_mm: float | None) -> Any:
    """How large the networks of a study of translation are: a laptop's size, but for what is given."""
    from dataclasses import replace

    from pipeline.studies.paired_slices import Scale

    scale = Scale()
    return replace(scale, iterations=iterations or scale.iterations, spacing_mm=spacing_mm or scale.spacing_mm)


@click.command()
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
    page = study_of(data, output, seeds, presets, overrides_of(settings, epochs), named, control, device)
    say_study(page, output)


@click.command()
@WITHOUT_EPOCHS
@click.option(
    "--seconds",
    default=30.0,
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

    page = study_of(data, output, overrides=overrides_of(settings, None), **options)
    say_study(page, output)


@click.command()
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

    say_study(study_of(output, **options), output)


SURVEY = (
    objectives,
    conditional,
    segmentation,
    semi_supervised,
    domain_adaptation,
    quality,
    paired,
    misregistration,
    hallucination,
    anomaly,
    samples,
    curves,
)
