"""`phs-pipeline train`: train a bundle on a preprocessed cohort."""

import json
import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline.cli.again import command_again
from pipeline.cli.say import complain, say

# Options that a resumed training takes from its folder.
SETTLED = ("presets", "epochs", "seed", "settings", "deterministic")


@click.command()
@click.argument("bundle")
@click.option("--data", required=True, metavar="DIR", type=click.Path(path_type=Path), help="A preprocessed cohort.")
@click.option(
    "-o", "--output", required=True, metavar="RUN", type=click.Path(path_type=Path), help="Folder of the run."
)
@click.option("--preset", "presets", multiple=True, help="Settings to lay over the paper's, e.g. laptop.")
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs.")
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.  [default: auto]")
@click.option("--seed", type=click.IntRange(min=0), help="Of weights and order of slices.")
@click.option("--set", "settings", multiple=True, metavar="ID=VALUE", help="Any setting of the bundle's train.json.")
@click.option("--deterministic", is_flag=True, help="Float32 and fixed algorithms: the same bits each time.")
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped.")
@click.option(
    "--gpus",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Processes that share each batch, one a GPU.",
)
@click.option("--trust-bundle", is_flag=True, help="Execute the code in untrusted configs.")
def train(
    bundle: str,
    data: Path,
    output: Path,
    presets: tuple[str, ...],
    epochs: int | None,
    device: str | None,
    seed: int | None,
    settings: tuple[str, ...],
    deterministic: bool,
    resume: bool,
    gpus: int,
    trust_bundle: bool,
) -> None:
    """Train BUNDLE (a name from `phs-pipeline bundles`) on a cohort made by `phs-pipeline preprocess`.

    RUN receives checkpoints, the weights models/model.pt, loss curves, and each epoch a panel of validation slices;
    it can be given to `synthesize -b RUN`.

    BUNDLE may also be a folder. Configs execute code: expressions that are exactly those of a bundle that comes with
    phs-pipeline are trusted, others only with --trust-bundle. Read them first.

    With --gpus processes share each batch, on the CPU where there is no GPU. On several machines torchrun starts
    `-m pipeline.cli train …` itself. A run goes on with any number of processes that divides its batch.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not (name and found):
            raise click.UsageError(f"--set {setting}: expected ID=VALUE, for example --set lambda=20")
        overrides[name] = _value(value)
    given = {"epochs": epochs, "device_name": device, "seed": seed, "deterministic": deterministic or None}
    overrides |= {name: value for name, value in given.items() if value is not None}

    from pipeline.bundles import find_bundle
    from pipeline.launch import goes_on
    from pipeline.launch import train as launch

    method, context = find_bundle(bundle), click.get_current_context()
    # Where nobody chose a folder, as in a container, the command that was stopped goes on when it is given again.
    left_out = context.get_parameter_source("output") is ParameterSource.ENVIRONMENT
    free = left_out and not resume and "RANK" not in os.environ
    settled: tuple[str, ...] = ()
    if free and goes_on(method, data, output, presets, overrides):
        say(f"{output}: goes on with this training, which was stopped; a new one: phs-pipeline train {bundle} -o RUN")
        resume, presets, settled = True, (), SETTLED
        overrides = {name: value for name, value in overrides.items() if name == "device_name"}
    if gpus > 1 and "RANK" not in os.environ:  # one of them reads the same environment, which may say how many
        from pipeline.training.processes import run_processes

        code = run_processes(command_again(without=("gpus", *settled)) + ["--resume"] * bool(settled), gpus)
        raise click.exceptions.Exit(code)
    try:
        launch(method, data, output, presets, overrides, resume, trust_bundle)
    except KeyboardInterrupt:
        if (output / "configs" / "train.json").is_file() and os.environ.get("RANK", "0") == "0":
            again = "the same command goes on" if left_out else "give --resume to go on"
            complain(f"{output}: stopped; {again} after the last whole epoch")
        raise
    if os.environ.get("RANK", "0") != "0":
        return
    say(f"{output / 'models' / 'model.pt'}: trained; look at {output / 'curves.png'} and {output / 'panels'}")
    say(f"next: phs-pipeline evaluate -b {output} --data {data} -o REPORT")


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself; expressions are not accepted."""
    from pipeline.bundles import is_plain

    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if not is_plain(value):
        raise click.UsageError(f"--set takes plain values, found {text!r}; edit a copy of the bundle for expressions")
    return value
