"""Every bundle, small enough to train in seconds, and MONAI's commands as a user starts them."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shown_commands import run_module

from pipeline.bundles import Bundle, list_bundles, read_config

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a bundle's training costs, each bundle costs anew."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_pictures(undrawn: None) -> None:
    """Pictures of curves would take half as long as these trainings."""


@pytest.fixture(scope="session", params=list_bundles(), ids=lambda bundle: bundle.name)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """Each bundle of the project; a new one is tested as it comes."""
    found: Bundle = request.param
    return found


@pytest.fixture(scope="session", params=[b for b in list_bundles() if b.trainable], ids=lambda bundle: bundle.name)
def trainable(request: pytest.FixtureRequest) -> Bundle:
    """Each bundle that has something to train."""
    found: Bundle = request.param
    return found


@pytest.fixture(scope="session")
def small() -> Callable[[Bundle], dict[str, Any]]:
    """Settings with which a bundle trains two epochs of the phantom cohort in seconds, whatever its networks are."""

    def settings(bundle: Bundle) -> dict[str, Any]:
        chosen: dict[str, Any] = {
            "spacing_mm": 4.0,
            "size": [64, 64],
            "epochs": 2,
            "batch_size": 4,
            "device_name": "cpu",
            "deterministic": True,  # trainings are compared, whichever precision is fastest
        }
        for name, value in read_config(bundle.config("train" if bundle.trainable else "inference")).items():
            if name.endswith("filters"):
                chosen[name] = [4] * len(value) if isinstance(value, list) else 4
            elif name.endswith("blocks"):
                chosen[name] = 1
            elif name.endswith("pool_size"):
                chosen[name] = 3  # full within an epoch, so that draws decide what is shown
            elif name.endswith("_steps"):
                chosen[name] = 2
            elif name == "crop":
                chosen[name] = [32, 48]
        return chosen

    return settings


@pytest.fixture(scope="session")
def cohort_for(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Bundle], Path]:
    """The phantom cohort; for a bundle of several modalities, each training patient has one of them, or all."""

    def cohort(bundle: Bundle) -> Path:
        settings = read_config(bundle.config("train"))
        if "sources" not in settings:
            return phantom_cohort
        modalities = [settings["target_modality"], *settings["sources"]]
        folder = tmp_path_factory.mktemp("modalities") / "cohort"
        shutil.copytree(phantom_cohort, folder)
        content = json.loads((folder / "cohort.json").read_text())
        for number, subject in enumerate(content["subjects"]):
            one = modalities[number % len(modalities) if subject["split"] == "training" else 0]
            theirs = modalities if "in_channels" in settings else [one]
            subject["channels"] = dict.fromkeys(theirs, subject["images"])
        (folder / "cohort.json").write_text(json.dumps(content))
        return folder

    return functools.cache(cohort)


@pytest.fixture(scope="session")
def run(
    trainable: Bundle,
    small: Callable[[Bundle], dict[str, Any]],
    cohort_for: Callable[[Bundle], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished run of `phs-pipeline train BUNDLE --preset laptop` with small settings."""
    from pipeline.launch import train

    folder = tmp_path_factory.mktemp("runs") / trainable.name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.Curves._draw", lambda curves: None)
        train(trainable, cohort_for(trainable), folder, ["laptop"], small(trainable))
    return folder


@pytest.fixture
def monai_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`python -m monai.bundle run …` in a process of its own, or under torchrun in several."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def start(*arguments: str, processes: int = 1) -> None:
        if processes == 1:
            run_module(["monai.bundle", "run", *arguments])
        else:
            torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            command = [sys.executable, *torchrun, "-m", "monai.bundle", "run", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr

    return start


@pytest.fixture(scope="session")
def training_arguments() -> Callable[..., list[str]]:
    """The arguments of `monai.bundle run` that train a bundle with its laptop preset and these settings."""

    def arguments(
        bundle: Bundle, cohort: Path, run: Path, settings: dict[str, Any], configs: tuple[str, ...] = ()
    ) -> list[str]:
        files = [str(bundle.config(name)) for name in ("train", "laptop", *configs)]
        return [
            *("--config_file", str(files), "--meta_file", str(bundle.config("metadata"))),
            *("--bundle_root", str(bundle.root), "--dataset_dir", str(cohort), "--output_dir", str(run)),
            *(part for name, value in settings.items() for part in (f"--{name}", str(value).replace(" ", ""))),
        ]

    return arguments
