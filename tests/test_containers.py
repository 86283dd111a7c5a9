"""What the container files promise, as far as it can be read; `tests/containers.sh` runs them on a Docker engine."""

import re
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
from click.core import ParameterSource

from pipeline.cli.container import FOLDERS, MOUNTED
from pipeline.cli.container import ROOT as ROOT_IN_CONTAINER
from pipeline.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
GPU = (ROOT / "docker-compose.gpu.yml").read_text(encoding="utf-8")
SBOM = (ROOT / "Dockerfile.sbom").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def services(compose: str) -> dict[str, str]:
    """The text of each service by its name."""
    parts = re.split(r"^  ([\w-]+):", compose.partition("\nservices:\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_command_has_its_service() -> None:
    assert set(services(COMPOSE)) == set(COMMANDS)
    for name, text in services(COMPOSE).items():
        assert f"entrypoint: [phs-pipeline, {name}]" in text
        assert "<<: *command" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_service_gives_its_command_the_options_that_are_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict(re.findall(r"^      (PHS_\w+): (\S+)$", services(COMPOSE)[name], flags=re.MULTILINE))
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    with cli.make_context("phs-pipeline", [name]) as group:
        command = cli.get_command(group, name)
        assert command is not None
        if isinstance(command, click.Group):
            assert not given, "a group has no options of its own"
            return
        arguments = [
            parameter.type.choices[0] if isinstance(parameter.type, click.Choice) else "ARGUMENT"
            for parameter in command.params
            if isinstance(parameter, click.Argument)
        ]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.required:
                named = f"PHS_{name}_{parameter.name}".upper() in given
                arguments += [] if named else [parameter.opts[0], "VALUE"]
        context = command.make_context(name, arguments, parent=group)

    options = {str(parameter.name) for parameter in command.params if isinstance(parameter, click.Option)}
    from_environment = {
        option for option in options if context.get_parameter_source(option) == ParameterSource.ENVIRONMENT
    }
    assert {f"PHS_{name}_{option}".upper() for option in from_environment} == set(given)
    for option in from_environment:
        assert str(context.params[option]) == given[f"PHS_{name}_{option}".upper()]


def test_a_bundle_is_only_named_for_commands_that_have_no_weights_of_their_own() -> None:
    with cli.make_context("phs-pipeline", ["--help"], resilient_parsing=True) as group:
        for name, text in services(COMPOSE).items():
            command = cli.get_command(group, name)
            assert command is not None
            named = re.findall(rf"PHS_{name.upper()}_(BUNDLE\w*):", text)
            required = [str(option.name).upper() for option in command.params if option.required]
            assert set(named) <= set(required), name


def test_a_service_sees_the_folders_that_its_options_name() -> None:
    for name, text in services(COMPOSE).items():
        mounted = re.findall(r"\*([a-z]+)(?:-read)?\b", "".join(re.findall(r"volumes: \[(.*)\]", text)))
        named = re.findall(r"PHS_\w+: (\w+)/", text)
        assert set(named) <= set(mounted), name


def test_a_service_is_told_which_folders_are_mounted_for_its_messages() -> None:
    told = COMPOSE.partition("x-told: &told\n")[2].partition("\n\n")[0]
    folders = re.findall(rf"  {MOUNTED}(\w+): \"(\$\S+)\"", told)
    assert [name.lower() for name, _ in folders] == list(FOLDERS)
    for name, source in folders:
        assert f'source: "{source}", target: {ROOT_IN_CONTAINER / name.lower()}' in COMPOSE
    assert "working_dir: /  " in COMPOSE
    assert COMPOSE.count("environment: *told") == 1
    assert COMPOSE.count("    environment:\n") == COMPOSE.count("    environment:\n      <<: *told\n")


def test_no_gpu_is_reserved_unless_the_second_file_is_chosen() -> None:
    assert not re.search(r"nvidia|gpus:|devices:|deploy:|runtime:", COMPOSE)
    assert "capabilities: [gpu]" in GPU
    predicting = {"synthesize", "enhance", "fill", "segment", "predict", "sample"}
    assert set(services(GPU)) == {"demo", "train", *predicting, "evaluate", "select", "study", "doctor"}


def test_the_example_of_settings_names_each_variable_with_its_default() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE))
    named = dict(re.findall(r"^(\w+)=(.*)$", example, flags=re.MULTILINE))
    offered = re.findall(r"^#(\w+)=", example, flags=re.MULTILINE)
    assert named == {variable: default for variable, default in used.items() if default}
    assert set(offered) == {"COMPOSE_FILE"} | {variable for variable, default in used.items() if not default}


def test_the_image_starts_from_a_pinned_python_and_pinned_packages() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert set(bases) == {"python:3.11-slim-bookworm"}
    assert "-c constraints.txt" in DOCKERFILE


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, flags=re.MULTILINE) == ["1000:1000"]
    assert 'user: "${UID:-1000}:${GID:-1000}"' in COMPOSE


def test_only_what_the_image_is_built_from_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE + SBOM, flags=re.MULTILINE)
    assert let_in == {source for sources in copied for source in sources.split()}
    assert any(fnmatch("bundles/gvs/run", rule) for rule in rules[1:])


def test_apptainer_builds_the_image_of_the_dockerfile() -> None:
    definition = (ROOT / "apptainer.def").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    files = dict(re.findall(r"^    (\S+) /source/(\S+)$", definition, flags=re.MULTILINE))
    assert set(files) == {source for sources in copied for source in sources.split()}
    assert all(source == target for source, target in files.items())
    assert f"BASE={re.findall(r'^FROM (.+)$', DOCKERFILE, flags=re.MULTILINE)[-1]}\n" in definition
    assert "-c /source/constraints.txt" in definition
    for name, value in re.findall(r"image\.(\w+)=\"([^\"]+)\"", DOCKERFILE):
        assert f"org.opencontainers.image.{name} {value}\n" in definition


def test_continuous_integration_ends_with_the_summary_of_the_tests() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert any("tests/containers.sh" in line for line in lines[:-1])
    assert lines[-1] == "make test"


def test_a_stopped_training_has_time_to_finish_a_step() -> None:
    assert "STOPSIGNAL SIGINT" in DOCKERFILE
    assert "stop_grace_period: 1m " in COMPOSE
