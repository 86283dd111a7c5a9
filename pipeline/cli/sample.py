"""`phs-pipeline sample`: images of a generator."""

from pathlib import Path

import click

from pipeline.cli.say import say


@click.command()
@click.option("-b", "--bundle", required=True, help="A bundle's name or a run's folder.")
@click.option("-n", "--count", default=64, show_default=True, type=click.IntRange(1, 9999), help="How many images.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0, max=2**63 - 1),
    help="Another seed gives other images; the same seed gives the same ones.",
)
@click.option(
    "--class",
    "label",
    metavar="NAME",
    help="healthy or pathological, of a training with the condition class.  [default: both in turn]",
)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Lesion mask in NIfTI, of a training with the condition mask; each slice with a lesion in turn gets an image.",
)
@click.option(
    "-o",
    "--output",
    default=Path("samples"),
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to write.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty, in place of samples there.")
@click.option("--trust-bundle", is_flag=True, help="Execute the code in an untrusted config.")
def sample(
    bundle: str,
    count: int,
    seed: int,
    label: str | None,
    masks: tuple[Path, ...],
    output: Path,
    device: str,
    overwrite: bool,
    trust_bundle: bool,
) -> None:
    """Draw synthetic images, of no person, from a trained generator.

    Each is a NIfTI slice whose header says SYNTHETIC; a generator of images with their lesion masks writes these beside
    them. Beside all: samples.png, a picture of the first 64, and sampling.json, which says by what they were made.
    """
    from pipeline.bundles import find_bundle
    from pipeline.files import require_empty
    from pipeline.inference import Draw, load_predictor
    from pipeline.inference.samples import PICTURE, draw_samples

    found = find_bundle(bundle)
    require_empty(output, overwrite)
    sampler, provenance = load_predictor(found, "sampler", device, trust=trust_bundle)
    references = found.metadata["references"]
    draw_samples(output, sampler, Draw(count, seed, label, masks), provenance, references)
    say(f"{output}: {count} written; look at {output / PICTURE}")
    say(f"Synthetic images for research, not for diagnosis. Please cite: {references[0]}")
