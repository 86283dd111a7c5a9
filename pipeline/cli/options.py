"""Options that several commands share."""

from collections.abc import Callable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from pipeline import JUDGE_ITERATIONS

num_parts_option = click.option(
    "--num-parts",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Share the scans among so many runs.",
)
part_id_option = click.option(
    "--part-id",
    envvar="SLURM_ARRAY_TASK_ID",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Which share, from 0.  [env: SLURM_ARRAY_TASK_ID]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
judge_iterations_option = click.option(
    "--judge-iterations",
    default=JUDGE_ITERATIONS,
    show_default=True,
    type=click.IntRange(min=1),
    help="Training iterations of the independent segmentor.",
)
split_by_option = click.option(
    "--by",
    default="patient",
    show_default=True,
    type=click.Choice(["patient", "image"]),
    help="What is split. By image, as DUIIT, slices of one person are in training and test, which leaks.",
)


def part_of(num_parts: int, part_id: int) -> tuple[int, int]:
    """Which share is asked for, and of how many; the number of a job array that shares something else is none.

    Raises:
        UsageError: if there is no such share.
    """
    from pipeline.errors import UsageError

    source = click.get_current_context().get_parameter_source("part_id")
    if num_parts == 1 and source is ParameterSource.ENVIRONMENT:
        return 0, 1
    if part_id >= num_parts:
        raise UsageError(
            f"--part-id {part_id}: expected a number from 0 to {num_parts - 1}, with --num-parts {num_parts}"
        )
    return part_id, num_parts


def judge_option(none: bool = False) -> Callable[[Any], Any]:
    """`--judge`, the size of the segmentor that judges healthiness; with `none`, there may be none."""
    return click.option(
        "--judge",
        default="default",
        show_default=True,
        type=click.Choice(["default", "paper", *(["none"] if none else [])]),
        help="Its size: 16 filters, pixels of 2 mm; or PHS-GAN's: 64 filters, full resolution, hours on a CPU"
        + ("; or none." if none else "."),
    )


A_DICE = {
    "epochs": click.option(
        "--a-dice-epochs", default=20, show_default=True, type=click.IntRange(min=1), help="E of GVS, Eq. 8."
    ),
    "rate": click.option(
        "--a-dice-rate",
        default=0.1,
        show_default=True,
        type=click.FloatRange(min=0, min_open=True, max=10),
        help="Learning rate of A-Dice's segmentor.",
    ),
    "optimizer": click.option(
        "--a-dice-optimizer",
        default="sgd",
        show_default=True,
        type=click.Choice(["sgd", "adam"]),
        help="Of its segmentor; with adam take a rate such as 0.0001.",
    ),
    "filters": click.option(
        "--a-dice-filters",
        default=8,
        show_default=True,
        type=click.IntRange(min=1, max=256),
        help="Filters of its first stage.",
    ),
    "batch_size": click.option(
        "--a-dice-batch-size",
        default=8,
        show_default=True,
        type=click.IntRange(min=1),
        help="Slices in one of its steps.",
    ),
    "spacing": click.option(
        "--a-dice-spacing",
        default=2.0,
        show_default=True,
        metavar="MM",
        type=click.FloatRange(min=0.1, max=10),
        help="Pixels of its grid.",
    ),
}


def a_dice_options(*names: str) -> Callable[[Any], Any]:
    """Options of how A-Dice is measured, all of `A_DICE` if none is named; `a_dice_settings` reads them."""

    def add(command: Any) -> Any:
        for name in reversed(names or tuple(A_DICE)):
            command = A_DICE[name](command)
        return command

    return add


def a_dice_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a command was given of these options, as `pipeline.evaluation.ADiceSettings` calls it."""
    names = {f"a_dice_{name}": "spacing_mm" if name == "spacing" else name for name in A_DICE}
    return {names[option]: value for option, value in given.items()}


def refuse_a_dice_options(context: click.Context, wanted: str) -> None:
    """Refuse them where A-Dice is not measured; `wanted` is what asks for it.

    Raises:
        UsageError: if one was typed.
    """
    for name in A_DICE:
        if context.get_parameter_source(f"a_dice_{name}") is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--a-dice-{name.replace('_', '-')} is for {wanted}; give both or none")
