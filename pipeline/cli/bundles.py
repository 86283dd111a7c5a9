"""`phs-pipeline bundles`: what can be trained and used."""

import click


@click.command()
def bundles() -> None:
    """List the bundles: method, presets, and whether trained weights come with it."""
    from pipeline.bundles import list_bundles

    for bundle in list_bundles():
        weights = "with weights" if bundle.weights.is_file() else "no weights yet, train it first"
        click.echo(f"{bundle.name} ({bundle.metadata['version']}, {weights}): {bundle.metadata['task']}")
        click.echo(f"  presets: {', '.join(bundle.presets)}; model card: {bundle.root / 'docs' / 'README.md'}")
