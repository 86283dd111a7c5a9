"""What MONAI's model zoo checks of a bundle, offline, and that MONAI's commands do what `phs-pipeline` does."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_net_in_out
from monai.data import load_net_with_metadata
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import PolynomialLR

from pipeline import __version__
from pipeline.bundles import find_bundle, load_synthesizer, read_config
from pipeline.methods import GVS
from pipeline.networks import JohnsonGenerator
from pipeline.scans import read_nifti

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "gvs"
CONFIGS = BUNDLE / "configs"
META = str(CONFIGS / "metadata.json")

# By hand after MONAI's bundle specification: the zoo's own schema lies on the network.
TENSOR = {
    "type": "object",
    "required": [
        "type",
        "format",
        "num_channels",
        "spatial_shape",
        "dtype",
        "value_range",
        "is_patch_data",
        "channel_def",
    ],
    "properties": {
        "type": {"type": "string"},
        "format": {"type": "string"},
        "modality": {"type": "string"},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "dtype": {"type": "string", "pattern": "^(float|u?int)(8|16|32|64)$"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "patternProperties": {"^[0-9]+$": {"type": "string"}}},
    },
}
DATA_FORMAT = {
    "type": "object",
    "required": ["inputs", "outputs"],
    "properties": {
        "inputs": {"type": "object", "required": ["image"], "additionalProperties": TENSOR},
        "outputs": {"type": "object", "required": ["pred"], "additionalProperties": TENSOR},
    },
}
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}
SCHEMA = {
    "type": "object",
    "required": [
        "schema",
        "version",
        "changelog",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    ],
    "properties": {
        "schema": {"type": "string", "pattern": r"meta_schema_\d{8}\.json$"},
        "version": VERSION,
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
        "monai_version": VERSION,
        "pytorch_version": VERSION,
        "numpy_version": VERSION,
        "required_packages_version": {"type": "object", "additionalProperties": VERSION},
        "task": {"type": "string"},
        "description": {"type": "string"},
        "authors": {"type": "string"},
        "copyright": {"type": "string"},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": DATA_FORMAT,
    },
    "patternProperties": {"_data_format$": DATA_FORMAT},
}


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return read_config(CONFIGS / "metadata.json")


@pytest.fixture
def settings(tiny: dict[str, Any]) -> list[str]:
    """The tiny settings as MONAI's command line takes them."""
    given = {**tiny, "device_name": "cpu"}
    return [part for key, value in given.items() for part in (f"--{key}", str(value).replace(" ", ""))]


def monai(*arguments: str, processes: int = 1) -> None:
    """`python -m monai.bundle run`, as a user starts it."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "monai.bundle", "run", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def config_files(*names: str) -> str:
    return str([str(CONFIGS / f"{name}.json") for name in names])


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "configs/metadata.json",
        "configs/train.json",
        "configs/inference.json",
        "configs/evaluate.json",
        "configs/multi_gpu_train.json",
        "configs/logging.conf",
        "docs/README.md",
        "docs/data_license.txt",
    ],
)
def test_the_files_that_the_zoo_requires_are_there(name):
    assert (BUNDLE / name).read_text().strip()


def test_no_file_needs_large_file_storage():
    assert all(path.stat().st_size < 25_000_000 for path in BUNDLE.rglob("*"))


def test_the_license_is_apache_2():
    text = (BUNDLE / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_metadata_follows_the_schema(metadata):
    jsonschema.validate(metadata, SCHEMA)


def test_the_changelog_knows_the_version(metadata):
    assert metadata["version"] in metadata["changelog"]
    assert metadata["required_packages_version"]["phs-pipeline"] == __version__


def test_the_model_card_states_what_the_zoo_and_a_reader_look_for():
    card = (BUNDLE / "docs" / "README.md").read_text()
    for heading in ("# Model overview", "## Data", "## Training", "## Performance", "## Limitations", "## References"):
        assert heading in card
    assert "not for diagnosis" in card.lower()


def test_the_model_card_names_every_departure_of_the_laptop_preset():
    card = (BUNDLE / "docs" / "README.md").read_text()
    for setting in read_config(CONFIGS / "laptop.json"):
        assert f"`{setting}`" in card


@pytest.mark.parametrize("config", ["train", "inference"])
@pytest.mark.parametrize("n", [1, 3])
def test_the_network_takes_and_gives_what_metadata_says(config, n):
    verify_net_in_out(
        net_id="network_def", meta_file=META, config_file=str(CONFIGS / f"{config}.json"), device="cpu", n=n
    )


def test_the_segmentor_takes_and_gives_what_metadata_says(metadata):
    verify_net_in_out(
        net_id="segmentor_def",
        meta_file=META,
        config_file=str(CONFIGS / "train.json"),
        device="cpu",
        n=2,
        **{"_meta_::network_data_format": metadata["segmentor_def_data_format"]},
    )


@pytest.mark.parametrize(
    ("kind", "files"), [("train", ["train"]), ("train", ["train", "laptop"]), ("infer", ["inference"])]
)
def test_the_workflow_has_all_properties_that_monai_asks_for(
    kind: str, files: Sequence[str], phantom_cohort: Path, phantom_scans: Path, tiny: dict[str, Any]
):
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in files],
        meta_file=META,
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(phantom_cohort if kind == "train" else phantom_scans),
        device_name="cpu",
        **tiny,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_paper_s_settings_are_the_defaults():
    parser = ConfigParser(read_config(CONFIGS / "train.json"))
    method = parser.get_parsed_content("method")
    assert isinstance(method, GVS)
    assert (method.lambda_, method.difference_aware, method.residual_region) == (10.0, True, "whole")
    assert not method.real_in_step_a
    assert (parser["epochs"], parser["batch_size"], parser["average_decay"]) == (20, 8, None)
    assert (parser["spacing_mm"], parser["size"]) == (1.0, [240, 240])
    optimizers, schedulers = parser.get_parsed_content("optimizers"), parser.get_parsed_content("schedulers")
    for player in ("segmentor", "generator"):
        optimizer, schedule = optimizers[player], schedulers[player]
        assert type(optimizer) is Adam
        assert tuple(optimizer.defaults["betas"]) == (0.9, 0.99)
        assert optimizer.defaults["lr"] == 1e-3
        owned = list(method.networks[player].parameters())
        assert all(mine is theirs for mine, theirs in zip(optimizer.param_groups[0]["params"], owned, strict=True))
        assert isinstance(schedule, PolynomialLR)
        rates = []
        for _ in range(20):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert rates == pytest.approx([1e-3 * (1 - epoch / 20) ** 0.8 for epoch in range(20)])


def test_training_and_inference_build_the_same_network():
    training, inference = (read_config(CONFIGS / f"{name}.json") for name in ("train", "inference"))
    shared = set(training) & set(inference) - {
        "imports",
        "output_dir",
        "batch_size",
        "dataset_dir",
        "run",
        "initialize",
    }
    assert {"network_def", "grid", "filters", "residual_blocks", "upsampling", "output", "size"} <= shared
    assert {key: training[key] for key in shared} == {key: inference[key] for key in shared}


def test_every_setting_of_the_preset_is_one_of_the_training():
    assert set(read_config(CONFIGS / "laptop.json")) <= set(read_config(CONFIGS / "train.json"))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_trained_weights_export_to_torchscript_and_give_the_same_image(laptop_run, tmp_path):
    exported = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(laptop_run / "models" / "model.pt"),
        meta_file=str(laptop_run / "configs" / "metadata.json"),
        config_file=str(laptop_run / "configs" / "inference.json"),
    )
    scripted, about, extra = load_net_with_metadata(str(exported), more_extra_files=["inference.json"])
    network = JohnsonGenerator(filters=4, residual_blocks=1, upsampling="bilinear", output="residual")
    network.load_state_dict(torch.load(laptop_run / "models" / "model.pt", weights_only=True))
    image = torch.rand(2, 1, 64, 48)
    torch.testing.assert_close(scripted(image), network(image))
    assert about["name"] == "gvs"
    assert json.loads(extra["inference.json"])["filters"] == 4


@pytest.mark.slow
def test_monais_command_trains_to_the_same_bits_as_phs_pipeline(phantom_cohort, laptop_run, settings, tmp_path):
    run = tmp_path / "run"
    monai(
        *("--config_file", config_files("train", "laptop")),
        *("--meta_file", META, "--bundle_root", str(BUNDLE)),
        *("--dataset_dir", str(phantom_cohort), "--output_dir", str(run), "--epochs", "3"),
        *settings,
    )
    mine, theirs = (torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (laptop_run, run))
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert (run / "curves.csv").read_text() == (laptop_run / "curves.csv").read_text()
    assert not (BUNDLE / "run").exists()


@pytest.mark.slow
def test_monais_command_writes_the_same_twin_as_phs_pipeline(phantom_scans, laptop_run, tmp_path):
    source = next(phantom_scans.glob("sub-*/anat/*_FLAIR.nii.gz"))
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / source.name).symlink_to(source)
    configs = laptop_run / "configs"
    monai(
        *("--config_file", str(configs / "inference.json"), "--meta_file", str(configs / "metadata.json")),
        *("--bundle_root", str(laptop_run)),
        *("--dataset_dir", str(tmp_path / "scans"), "--output_dir", str(tmp_path / "out")),
    )
    (written,) = (tmp_path / "out").glob("*desc-pseudohealthy_FLAIR.nii.gz")
    synthesizer, _ = load_synthesizer(find_bundle(str(laptop_run)), device="cpu")
    twin = synthesizer(read_nifti(source))
    assert np.array_equal(np.asarray(nib.load(written).dataobj), twin.stored)


@pytest.mark.slow
def test_two_processes_train_the_bundle_as_one_does(phantom_cohort, settings, tiny, tmp_path):
    from pipeline.training.launch import train

    # Three of the four training patients: an even number of slices, so that no process gets one twice.
    shared = {"fraction": 0.75, "epochs": 2}
    monai(
        *("--config_file", config_files("train", "laptop", "multi_gpu_train")),
        *("--meta_file", META, "--bundle_root", str(BUNDLE)),
        *("--dataset_dir", str(phantom_cohort), "--output_dir", str(tmp_path / "two")),
        *(part for key, value in shared.items() for part in (f"--{key}", str(value))),
        *settings,
        processes=2,
    )
    train(find_bundle("gvs"), phantom_cohort, tmp_path / "one", ["laptop"], {**tiny, **shared, "device_name": "cpu"})
    x_p = torch.rand(2, 1, 64, 64)
    residuals = []
    for run in ("one", "two"):
        network: nn.Module = JohnsonGenerator(filters=4, residual_blocks=1, upsampling="bilinear", output="residual")
        network.load_state_dict(torch.load(tmp_path / run / "models" / "model.pt", weights_only=True))
        residuals.append(network(x_p).detach() - x_p)
    one, two = residuals
    # Adam turns the rounding of gradients that are zero in exact arithmetic into steps: images agree, not bits.
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(one, two, rtol=0.05, atol=0.02 * float(one.abs().max()))
