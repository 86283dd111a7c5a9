"""`phs-pipeline export`: a bundle's networks for other programs."""

from pathlib import Path

import click

from pipeline.cli.say import say


@click.command()
@click.argument("bundle")
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder to write; a new one."
)
@click.option("--onnx/--no-onnx", default=True, show_default=True, help="Write ONNX beside TorchScript.")
@click.option("--trust-bundle", is_flag=True, help="Execute the code in an untrusted config.")
def export(bundle: str, output: Path, onnx: bool, trust_bundle: bool) -> None:
    """Write the networks of BUNDLE (a name, or the folder of a run) so that they work without this package.

    DIR is a MONAI bundle that needs MONAI alone: models/model.ts is TorchScript, models/model.onnx is ONNX whose batch
    and size are dynamic, and configs/inference.json applies the network to NIfTI volumes that lie on its grid in its
    range of values, as configs/metadata.json says. Each file is compared with the bundle's network at several sizes,
    and export.json keeps the largest difference. What makes a twin of a network's output (grid, window, residual
    transfer, provenance) stays in this package.
    """
    from pipeline.bundles import find_bundle
    from pipeline.inference.export import export as write

    for made in write(find_bundle(bundle), output, onnx, trust_bundle):
        sizes = ", ".join("×".join(map(str, shape)) for shape in made.shapes)
        say(f"{output / made.path}: differs by {made.difference:.1g} at most, for inputs of {sizes}")
    say(f"next: python -m monai.bundle run --config_file {output}/configs/inference.json --bundle_root {output}")
