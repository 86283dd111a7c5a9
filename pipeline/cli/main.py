"""`phs-pipeline`: the group of all commands, each loaded when it is called."""

import importlib
import io
import logging
import signal
import sys
import warnings
from typing import Any

import click

from pipeline import __version__
from pipeline.allocator import keep_freed_memory
from pipeline.cli.container import RUN, in_compose, in_its_form, remark
from pipeline.cli.say import Lines, complain
from pipeline.errors import PipelineError, ScanError, printable

COMMANDS = {
    "demo": "The whole chain on a phantom cohort, in minutes on a CPU.",
    "phantom": "Write a cohort of synthetic brains with lesions and known healthy truth.",
    "preprocess": "Clip, cut, label and split a cohort for training.",
    "join": "Join cohorts of several modalities, of different people, into one.",
    "train": "Train a bundle on a preprocessed cohort.",
    "synthesize": "Write the pseudo-healthy twin of each scan.",
    "enhance": "Write each scan with its lesions' contrast enhanced.",
    "fill": "Fill a lesion mask with healthy tissue.",
    "relabel": "Put the lesion back into a parcellation of the filled scan.",
    "segment": "Write masks of what a network finds in each scan.",
    "predict": "Estimate a number or a class from each scan.",
    "translate": "Write scans of one modality as another.",
    "restore": "Write scans with less noise or fewer artefacts.",
    "sample": "Draw synthetic images from a trained generator.",
    "bids": "Run a bundle over a BIDS dataset, as a BIDS App.",
    "evaluate": "Measure healthiness and identity on a cohort's test patients.",
    "select": "Choose the best epoch of a training on validation patients.",
    "compare": "Put methods side by side in a table, with significance.",
    "export": "Write a bundle's networks as TorchScript and ONNX, to use without this package.",
    "card": "Write measured performance into a bundle's model card.",
    "study": "Run the papers' experiments: data fraction, λ, enhancement, saliency, …",
    "rating": "Draw and read a blinded rating study.",
    "view": "Show pages of results in the browser, or masks in other viewers.",
    "verify": "Tell whether files are ours, unchanged, and from what.",
    "doctor": "Check this machine, and say how to mend what is missing.",
    "bundles": "List the methods that can be trained and used.",
    "completion": "Let the shell complete commands and options.",
}


# They report their own progress as information, and errors that we report ourselves.
LIBRARIES = ("highdicom", "ignite", "matplotlib", "monai", "nibabel", "onnx_ir", "onnxscript", "PIL", "pydicom")


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is called: `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"pipeline.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PHS"})
@click.version_option(__version__, prog_name="phs-pipeline")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("-q", "--quiet", is_flag=True, help="Only say what went wrong.")
def cli(debug: bool, quiet: bool) -> None:
    """Pseudo-healthy synthesis: the same person's scan without the disease.

    For research, not for diagnosis. Exit codes: 0 all done, 1 some scans failed, 2 nothing could be started, 130 or
    143 stopped (Ctrl-C, SIGTERM).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler])
    for library in (*LIBRARIES, "pipeline.training.trainer.PlayerTrainer"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if not debug:
        warnings.simplefilter("ignore")


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which batch systems and containers stop a run: it ends as with Ctrl-C, nothing half-written."""


def terminate(*_: object) -> None:
    """Handle SIGTERM."""
    raise Terminated


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; turn errors of ours into one sentence and an exit code."""
    signal.signal(signal.SIGTERM, terminate)
    keep_freed_memory()
    arguments = sys.argv[1:] if arguments is None else arguments
    # A terminal that lacks a letter, of ours or of a file's name, is shown its number instead.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Read by click, so that PHS_DEBUG counts as --debug does.
    debug = cli.make_context("phs-pipeline", list(arguments), resilient_parsing=True).params["debug"]
    try:
        program = RUN if in_compose() else "phs-pipeline"
        code: Any = cli.main(args=arguments, prog_name=program, standalone_mode=False)
        sys.exit(code or 0)
    except PipelineError as error:
        if debug:
            raise
        complain(f"Error: {error}{remark(error)}")
        sys.exit(1 if isinstance(error, ScanError) else 2)
    except click.ClickException as error:
        error.message = printable(in_its_form(error.message))  # type: ignore[misc]  # final for callers
        error.show()
        sys.exit(2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:  # click makes an Abort of whatever stops a command
        click.echo("Stopped.", err=True)
        sys.exit(143 if Terminated in (type(error), type(error.__context__)) else 130)
    except OSError as error:
        if debug:
            raise
        reason = (error.strerror or str(error)).lower()
        told = f"{error.filename or 'a file'}: cannot be used ({reason}); check the path and its permissions"
        complain(f"Error: {told}{remark(error)}")
        sys.exit(2)
