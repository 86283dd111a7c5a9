"""Options, values and messages that the commands of `phs-pipeline study` share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import (
    a_dice_options,
    judge_iterations_option,
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


def options_of(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one, in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


FOLDER = click.Path(path_type=Path)


DATA = options_of(
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


WITHOUT_EPOCHS = options_of(DATA, SEEDS)


EVERY = options_of(
    WITHOUT_EPOCHS, click.option("--epochs", type=click.IntRange(min=1), help="Length of each training.")
)


RUNS = click.option(
    *("-b", "--bundle", "bundles"),
    metavar="RUN",
    multiple=True,
    required=True,
    help="Folder of a training run, or a bundle's name; may be given several times.",
)


A_DICE = options_of(click.option("--a-dice", is_flag=True, help="Measure A-Dice too."), a_dice_options())


SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="ID=VALUE", help="Any setting of the bundle's train.json."
)


TRAINING = options_of(
    EVERY,
    click.option("--preset", "presets", multiple=True, help="Settings to lay over the paper's, e.g. laptop."),
    SETTINGS,
)


SWEEP = options_of(
    click.option("-b", "--bundle", default="gvs", show_default=True, help="What to train."),
    TRAINING,
    A_DICE,
    judge_iterations_option,
)


def overrides_of(settings: tuple[str, ...], epochs: int | None) -> dict[str, Any]:
    """What --set and --epochs say, by config id."""
    overrides: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    for given in settings:
        name, found, value = given.partition("=")
        if not (name and found):
            raise click.UsageError(f"--set {given}: expected ID=VALUE, for example --set generator_rate=0.0003")
        overrides[name] = plain_value(value)
    return overrides


def say_study(page: str, output: Path) -> None:
    """What a study came to, and where it lies."""
    say_lines(page)
    say(f"table: {output / 'table.md'}; plot: {output / 'plot.png'}")
