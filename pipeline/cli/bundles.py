"""`phs-pipeline bundles`: what can be trained and used."""

import click

from pipeline.cli.say import say


@click.command()
def bundles() -> None:
    """List the bundles by the command that uses them: what each does, presets, weights or why it has none."""
    from pipeline.bundles import COMMANDS, kind_of, list_bundles, predictors

    found = [(kind_of(bundle), bundle) for bundle in list_bundles()]
    for kind, command in COMMANDS.items():
        ours = [bundle for its_kind, bundle in found if its_kind == kind]
        others = [(bundle, its_kind) for its_kind, bundle in found if its_kind != kind and kind in predictors(bundle)]
        if ours or others:
            say(f"{kind}s, for `phs-pipeline {command}`:", always=True)
        for bundle in ours:
            weights = "with weights" if bundle.weights.is_file() else f"weights {bundle.metadata['without_weights']}"
            presets = f"presets: {', '.join(bundle.presets)}; " if bundle.presets else ""
            about = f"{bundle.metadata['version']}, {weights}): {bundle.metadata['description']}"
            say(f"  {bundle.name} ({about}", always=True)
            say(f"    {presets}model card: {bundle.root / 'docs' / 'README.md'}", always=True)
        for bundle, its_kind in others:
            say(f"  {bundle.name}: see the {its_kind}s", always=True)
