"""`phs-pipeline study`: what its commands ask of the studies."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.compare import compare
from pipeline.cli.enhance import enhance
from pipeline.cli.evaluate import evaluate
from pipeline.cli.phantom import phantom
from pipeline.cli.preprocess import preprocess
from pipeline.cli.study import study
from pipeline.cli.train import train
from pipeline.evaluation import ADiceSettings
from pipeline.studies.enhancement import PAPER, PRESETS


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """What the studies were called with, by name; each returns its name as its table."""
    calls: dict[str, tuple[Any, ...]] = {}

    def stand_in(name: str) -> Callable[..., str]:
        def call(*arguments: Any) -> str:
            calls[name] = arguments
            return f"table of {name}"

        return call

    names = ("sweep", "enhancement", "saliency", "healthiness", "convergence", "counterfeits", "volumes", "anomaly")
    for name in (*names, "segmentation", "semi_supervised"):
        monkeypatch.setattr(f"pipeline.studies.{name}", stand_in(name))
    return calls


def call(*arguments: str) -> Result:
    return CliRunner().invoke(study, [*arguments, "--data", "COHORT", "-o", "STUDY"])


def test_lambda_trains_gvs_with_five_values_and_three_seeds(asked: dict[str, tuple[Any, ...]]) -> None:
    result = call("lambda")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["table of sweep", "table: STUDY/table.md; plot: STUDY/plot.png"]
    bundle, *rest = asked["sweep"]
    assert bundle.name == "gvs"
    expected = ["lambda", [1, 5, 10, 20, 50], 3, (), {}, "validation", None, 600, "auto"]
    assert rest == [Path("COHORT"), Path("STUDY"), *expected]


def test_fraction_takes_the_shares_of_the_paper_and_settings(asked: dict[str, tuple[Any, ...]]) -> None:
    options = ["--preset", "laptop", "--set", "lambda=20", "--epochs", "2", "--split", "test"]
    options += ["--a-dice", "--a-dice-rate", "0.05", "--a-dice-spacing", "1", "--a-dice-batch-size", "4"]
    result = call("fraction", "-b", "va_gan", *options, "--seeds", "1", "--judge-iterations", "7", "--device", "cpu")
    assert result.exit_code == 0, result.output
    bundle, _, _, *rest = asked["sweep"]
    assert bundle.name == "va_gan"
    overrides = {"epochs": 2, "lambda": 20}
    measures = ADiceSettings(range(1), rate=0.05, spacing_mm=1, batch_size=4)
    assert rest == ["fraction", [0.1, 0.3, 0.5, 0.7, 1.0], 1, ("laptop",), overrides, "test", measures, 7, "cpu"]


def test_any_setting_can_be_swept_with_values_of_its_type(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("sweep", "--setting", "filters", "--values", "16,32,16").exit_code == 0
    assert asked["sweep"][3:5] == ("filters", [16, 32])
    assert call("sweep", "--setting", "upsampling", "--values", "bilinear").exit_code == 0
    assert asked["sweep"][3:5] == ("upsampling", ["bilinear"])


def test_enhancement_takes_the_papers_alphas_and_a_scale(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("enhancement", "-b", "gvs").exit_code == 0
    assert asked["enhancement"][3:] == ([0, 0.3, 0.5, 0.7, 1], [1], ["ce"], 3, PAPER, "validation", "auto")
    options = ["--preset", "laptop", "--epochs", "1", "--alphas", "0,1", "--losses", "ce,ce+mixup"]
    assert call("enhancement", "-b", "gvs", *options).exit_code == 0
    alphas, _, losses, _, scale, *_ = asked["enhancement"][3:]
    assert (alphas, losses) == ([0, 1], ["ce", "ce+mixup"])
    assert (scale.spacing_mm, scale.filters, scale.epochs) == (2.0, PRESETS["laptop"].filters, 1)


def test_saliency_needs_no_generator(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("saliency", "--seeds", "2", "--epochs", "1", "--judge-iterations", "5").exit_code == 0
    assert asked["saliency"] == (Path("COHORT"), Path("STUDY"), 2, 1, "validation", 5, "auto")


def test_difference_aware_trains_with_the_loss_and_without(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("difference-aware", "--preset", "laptop").exit_code == 0
    assert asked["sweep"][3:7] == ("difference_aware", [True, False], 3, ("laptop",))


def test_healthiness_and_convergence_take_several_runs(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("healthiness", "-b", "gvs", "-b", "va_gan", "--seeds", "2", "--judge", "paper").exit_code == 0
    runs, *rest = asked["healthiness"]
    assert [run.name for run in runs] == ["gvs", "va_gan"]
    assert rest == [Path("COHORT"), Path("STUDY"), 2, 20, "validation", "paper", "auto"]
    assert call("convergence", "-b", "gvs", "--epochs", "5", "--a-dice-optimizer", "adam").exit_code == 0
    (run,), _, _, rates, settings, *rest = asked["convergence"]
    assert (run.name, rates, rest) == ("gvs", [0.0001, 0.1], ["validation", "auto"])
    assert settings == ADiceSettings(range(3), epochs=5, optimizer="adam")


def test_counterfeits_need_no_generator_and_have_the_noise_of_the_paper(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("counterfeits", "--a-dice", "--judge-iterations", "5").exit_code == 0
    assert asked["counterfeits"][2:] == (3, 0.2, "validation", 5, "default", ADiceSettings(range(3)), "auto")


def test_quality_takes_all_tasks_and_sizes_of_a_laptop_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.studies.quality_methods import Scale

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("pipeline.studies.quality", lambda *arguments: calls.append(arguments) or "table")
    assert call("quality").exit_code == 0
    options = ["--task", "k-space", "--channels", "FLAIR,T1w", "--steps", "7", "--spacing-mm", "2", "--seeds", "1"]
    assert call("quality", *options, "--split", "test").exit_code == 0
    everything = (None, None, 3, Scale(), "validation", "auto")
    chosen = (("k-space",), ["FLAIR", "T1w"], 1, Scale(spacing_mm=2.0, steps=7), "test", "auto")
    assert [arguments[2:] for arguments in calls] == [everything, chosen]


def test_samples_and_curves_take_a_laptop_s_time_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    for name in ("samples", "curves"):
        monkeypatch.setattr(f"pipeline.studies.{name}", lambda *_, **options: calls.append(options) or "table")
    assert call("samples").exit_code == 0
    assert call("samples", "--seconds", "9", "--set", "latent=7", "--preset", "conditional").exit_code == 0
    assert CliRunner().invoke(study, ["curves", "-o", "STUDY", "--points", "16", "--seeds", "1"]).exit_code == 0
    common = {"seeds": 3, "split": "validation", "device": "auto"}
    assert calls == [
        {**common, "seconds": 30.0, "presets": ("laptop",), "overrides": {}},
        {**common, "seconds": 9.0, "presets": ("conditional",), "overrides": {"latent": 7}},
        {"count": 1024, "points": 16, "iterations": 10_000, "seeds": 1, "device": "auto"},
    ]


def test_volumes_takes_the_shipped_filler_and_the_contrast_that_names_tell(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("volumes").exit_code == 0
    (filler,), *rest = asked["volumes"]
    assert filler.name == "fill"
    assert rest == [Path("COHORT"), Path("STUDY"), None, "validation", "auto"]
    options = ["-b", "harmonic", "-b", "fill", "--contrast", "T2w", "--split", "test", "--device", "cpu"]
    assert call("volumes", *options).exit_code == 0
    fillers, *rest = asked["volumes"]
    assert [filler.name for filler in fillers] == ["harmonic", "fill"]
    assert rest[2:] == ["T2w", "test", "cpu"]


def test_critics_are_trained_at_their_own_size_unless_told(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("segmentation").exit_code == 0
    assert asked["segmentation"] == (Path("COHORT"), Path("STUDY"), 3, {}, "validation", "auto")
    assert call("segmentation", "--epochs", "2", "--set", "spacing_mm=1.0", "--seeds", "1").exit_code == 0
    assert asked["segmentation"][2:4] == (1, {"epochs": 2, "spacing_mm": 1.0})


def test_few_labels_are_for_masks_by_patients_unless_a_task_is_given(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("semi-supervised").exit_code == 0
    assert asked["semi_supervised"][2:5] == ("segmentation", None, 3)
    assert call("semi-supervised", "--task", "digits", "--labels", "0.1", "--set", "rate=0.001").exit_code == 0
    assert asked["semi_supervised"][2:6] == ("digits", [0.1], 3, {"rate": 0.001})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["enhancement", "-b", "gvs", "--alphas", "0,much"], "no list of numbers"),
        (["lambda", "--set", "epochs"], "expected ID=VALUE"),
        (["lambda", "--values", "$import os"], "plain values"),
        (["fraction", "--split", "training"], "training"),
        (["convergence", "-b", "gvs", "--rates", "0.1,-1"], "rates above 0"),
        (["healthiness"], "Missing option '-b'"),
        (["fraction", "--a-dice-rate", "0.1"], "--a-dice-rate is for --a-dice"),
        (["counterfeits", "--a-dice-spacing", "1"], "--a-dice-spacing is for --a-dice"),
    ],
)
def test_wrong_arguments_are_refused(asked: dict[str, tuple[Any, ...]], arguments: list[str], said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert asked == {}


def test_the_page_of_figures_names_every_study_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    named = set(re.findall(r"`study ([\w-]+)", page))
    assert named == set(study.commands) - {"sweep"}  # any setting: no figure of a paper
    for option in set(re.findall(r"(--[a-z][\w-]+)", page)):
        commands = [*study.commands.values(), evaluate, compare, enhance, phantom, preprocess, train]
        assert any(option in parameter.opts for command in commands for parameter in command.params), option


def test_anomaly_is_asked_for_sources_and_a_control_by_name(asked: dict[str, tuple[Any, ...]]) -> None:
    assert call("anomaly", "--source", "open_ms=openms-*", "--source", "lgg=sub-*", "--epochs", "3").exit_code == 0
    *_, presets, overrides, sources, control, _ = asked["anomaly"]
    assert (presets, overrides) == (("laptop",), {"epochs": 3})
    assert sources == {"open_ms": "openms-*", "lgg": "sub-*"}
    assert control.name == "gvs"
    assert call("anomaly", "-b", "none").exit_code == 0
    assert asked["anomaly"][-2] is None
    refused = call("anomaly", "--source", "openms-*")
    assert refused.exit_code == 2
    assert "expected NAME=PATTERN" in refused.output
