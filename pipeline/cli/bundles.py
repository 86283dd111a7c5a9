"""`phs-pipeline bundles`: what can be trained and used."""

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import json_option
from pipeline.cli.say import say, say_json

if TYPE_CHECKING:
    from pipeline.bundles import Bundle


@click.command()
@json_option
def bundles(as_json: bool) -> None:
    """List the bundles by the command that uses them: what each does, presets, weights or why it has none."""
    from pipeline.bundles import COMMANDS, list_bundles

    found = [_about(bundle) for bundle in list_bundles()]
    if as_json:
        say_json(found)
        return
    for kind, command in COMMANDS.items():
        ours = [bundle for bundle in found if bundle["kind"] == kind]
        others = [bundle for bundle in found if kind in bundle["further_kinds"]]
        if ours or others:
            say(f"{kind}s, for `phs-pipeline {command}`:", always=True)
        for bundle in ours:
            weights = "with weights" if bundle["weights"] else f"weights {bundle['without_weights']}"
            presets = f"presets: {', '.join(bundle['presets'])}; " if bundle["presets"] else ""
            say(f"  {bundle['name']} ({bundle['version']}, {weights}): {bundle['description']}", always=True)
            say(f"    {presets}model card: {bundle['model_card']}", always=True)
        for bundle in others:
            say(f"  {bundle['name']}: see the {bundle['kind']}s", always=True)


def _about(bundle: "Bundle") -> dict[str, Any]:
    """What a program wants to know of a bundle; none of it needs torch."""
    from pipeline.bundles import COMMANDS, kind_of, predictors

    kind, metadata = kind_of(bundle), bundle.metadata
    return {
        "name": bundle.name,
        "kind": kind,
        "command": COMMANDS[kind],
        "further_kinds": [other for other in predictors(bundle) if other != kind],
        "version": metadata["version"],
        "description": metadata["description"],
        "weights": bundle.weights.is_file(),
        "without_weights": metadata.get("without_weights"),
        "presets": bundle.presets,
        "model_card": str(bundle.root / "docs" / "README.md"),
    }
