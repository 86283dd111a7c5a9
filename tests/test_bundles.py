"""Bundles are found by name or folder, and one from elsewhere cannot execute code here."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from pipeline import inference
from pipeline.bundles import Bundle, build, bundle, bundles_folder, find_bundle, kind_of, list_bundles, read_config
from pipeline.bundles.parts import KINDS, check_sizes
from pipeline.cli.main import main
from pipeline.errors import UsageError
from pipeline.files import sha256
from pipeline.inference import load_export, load_predictor
from pipeline.networks import JohnsonGenerator
from pipeline.networks.genseg import Convolution
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule

PARTS = ("network_def", "grid", "window", "batch_size")


@pytest.fixture
def foreign(laptop_run: Path, tmp_path: Path) -> Bundle:
    """A run from elsewhere, to be tampered with."""
    shutil.copytree(laptop_run, tmp_path / "foreign")
    return find_bundle(str(tmp_path / "foreign"))


def tamper(bundle: Bundle, **changes: Any) -> None:
    path = bundle.config("inference")
    path.write_text(json.dumps({**read_config(path), **changes}))


def test_gvs_is_among_the_bundles():
    bundle = find_bundle("gvs")
    assert bundle in list_bundles()
    assert bundle.root == bundles_folder() / "gvs"
    assert bundle.presets == ["laptop", "lits"]
    assert bundle.metadata["version"]


def test_an_installed_wheel_carries_its_bundles_inside_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "__file__", str(tmp_path / "pipeline" / "bundles" / "bundle.py"))
    assert bundles_folder() == tmp_path / "bundles"
    (tmp_path / "pipeline" / "_bundles").mkdir(parents=True)
    assert bundles_folder() == tmp_path / "pipeline" / "_bundles"


@pytest.mark.parametrize("name", ["vagan", "/nowhere", ""])
def test_an_unknown_bundle_is_refused_with_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no bundle of that name and .*; known bundles: .*gvs"):
        find_bundle(name)


def test_a_bundle_without_weights_says_how_to_train_it(laptop_run, tmp_path):
    shutil.copytree(laptop_run, tmp_path / "run", ignore=shutil.ignore_patterns("model.pt"))
    with pytest.raises(UsageError, match=r"has no weights yet .*`phs-pipeline train gvs --data COHORT -o RUN`"):
        load_predictor(find_bundle(str(tmp_path / "run")), device="cpu")


def test_the_parts_are_built_from_plain_values(laptop_run):
    parts = build(find_bundle(str(laptop_run)), PARTS)
    assert isinstance(parts["network_def"], JohnsonGenerator)
    assert parts["network_def"].output == "residual"
    assert parts["grid"] == Grid(4.0, (64, 64))
    assert parts["window"] == WindowRule()
    assert parts["batch_size"] == 4


def test_provenance_holds_version_and_hashes(laptop_run):
    bundle = find_bundle(str(laptop_run))
    synthesizer, provenance = load_predictor(bundle, device="cpu", batch_size=2)
    assert synthesizer.runner.batch_size == 2
    assert provenance == {
        "Bundle": "gvs",
        "BundleVersion": bundle.metadata["version"],
        "WeightsSha256": sha256(bundle.weights),
        "ConfigSha256": sha256(bundle.config("inference")),
    }


@pytest.mark.parametrize("content", ["{", "[1, 2]", "\xff\xfe", ""])
def test_a_broken_config_is_one_sentence(foreign, content):
    foreign.config("inference").write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"inference\.json: .*restore the bundle's files"):
        load_predictor(foreign, device="cpu")


def test_a_config_without_a_network_is_one_sentence(foreign):
    config = read_config(foreign.config("inference"))
    del config["network_def"]
    foreign.config("inference").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="has no 'network_def', expected it in a bundle of ours"):
        load_predictor(foreign, device="cpu")


@pytest.mark.parametrize("content", [b"", b"damaged", b"PK\x03\x04"])
def test_corrupt_weights_are_one_sentence(foreign, content):
    foreign.weights.write_bytes(content)
    with pytest.raises(UsageError, match=r"model\.pt: not a weights file that can be loaded safely"):
        load_predictor(foreign, device="cpu")


@pytest.mark.parametrize("content", [JohnsonGenerator(filters=8).state_dict(), {}, torch.zeros(2), {"weight": 1}])
def test_weights_of_another_network_are_one_sentence(foreign, content):
    torch.save(content, foreign.weights)
    with pytest.raises(UsageError, match=r"the weights belong to another network .*; use the bundle or run") as caught:
        load_predictor(foreign, device="cpu")
    assert "\n" not in str(caught.value)


def test_quantised_weights_are_not_taken_for_their_values(foreign):
    state = torch.load(foreign.weights, weights_only=True)
    name = next(name for name, weight in state.items() if weight.is_floating_point())
    torch.save({**state, name: state[name].to(torch.int8)}, foreign.weights)
    with pytest.raises(UsageError, match=f"found int8 for {name}, expected floating point"):
        load_predictor(foreign, device="cpu")


def test_code_in_the_weights_is_not_run(foreign, dangerous, tmp_path):
    torch.save(dangerous(tmp_path / "touched"), foreign.weights)
    with pytest.raises(UsageError, match="holds more than tensors"):
        load_predictor(foreign, device="cpu")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "builtins.exec",
        "torch.hub.load",
        # Reached through a trusted module's own imports.
        "pipeline.preprocessing.cohort.os.system",
        "pipeline.networks.johnson.torch.hub.load",
        "monai.networks.nets.basic_unet.torch.load",
        "monai.networks.nets.basic_unet.nn.Sequential",
        # Ours, but neither network nor grid nor window.
        "pipeline.preprocessing.cohort.preprocess",
        "pipeline.networks.johnson._normed",
        "pipeline.networks.missing.Network",
        "JohnsonGenerator",
        "",
        7,
    ],
)
def test_a_config_that_names_anything_but_a_network_is_refused_and_not_run(foreign, tmp_path, target):
    touched = tmp_path / "touched"
    tamper(foreign, network_def={"_target_": target, "command": f"touch {touched}", "args": ["touch", str(touched)]})
    with pytest.raises(UsageError, match="code from a bundle is not run"):
        load_predictor(foreign, device="cpu")
    assert not touched.exists()


@pytest.mark.parametrize("place", ["filters", "batch_size", "network_def", "grid", "spacing_mm"])
def test_an_expression_anywhere_in_what_is_built_is_refused_and_not_run(foreign, tmp_path, place):
    touched = tmp_path / "touched"
    tamper(foreign, **{place: f"$__import__('pathlib').Path({str(touched)!r}).touch()"})
    with pytest.raises(UsageError, match=r"found .*, expected plain values .*; code from a bundle is not run"):
        load_predictor(foreign, device="cpu")
    assert not touched.exists()


@pytest.mark.parametrize(
    "grid",
    [
        {"_target_": "pipeline.preprocessing.grid.Grid", "spacing_mm": 4.0, "size": [64, "$__import__('os').abort()"]},
        {"_target_": "pipeline.preprocessing.grid.Grid", "spacing_mm": {"_target_": "os.abort"}, "size": [64, 64]},
        {"_target_": "pipeline.preprocessing.grid.Grid", "spacing_mm": "%other.json#spacing", "size": [64, 64]},
        {"_target_": "pipeline.preprocessing.grid.Grid", "_mode_": "debug", "spacing_mm": 4.0, "size": [64, 64]},
        "@hidden",
    ],
)
def test_code_hidden_deeper_is_refused_too(foreign, grid):
    tamper(foreign, grid=grid, hidden={"_target_": "os.abort"})
    with pytest.raises(UsageError, match="code from a bundle is not run"):
        load_predictor(foreign, device="cpu")


def test_code_runs_once_the_user_trusts_it_and_the_message_says_so(foreign, tmp_path):
    touched = tmp_path / "touched"
    expression = f"$pathlib.Path({str(touched)!r}).touch() or 3"
    tamper(foreign, imports=["$import pathlib"], batch_size=expression)
    with pytest.raises(UsageError, match="unless you give --trust-bundle, because you trust who wrote it"):
        load_predictor(foreign, device="cpu")
    assert not touched.exists()
    synthesizer, _ = load_predictor(foreign, device="cpu", trust=True)
    assert touched.exists()
    assert synthesizer.runner.batch_size == 3


def test_trust_in_a_config_is_none_in_pickled_weights(foreign, dangerous, tmp_path):
    torch.save(dangerous(tmp_path / "touched"), foreign.weights)
    with pytest.raises(UsageError, match="holds more than tensors"):
        load_predictor(foreign, device="cpu", trust=True)
    assert not (tmp_path / "touched").exists()


def test_expressions_in_parts_that_are_not_built_are_not_evaluated(foreign, tmp_path):
    touched = tmp_path / "touched"
    code = f"$__import__('pathlib').Path({str(touched)!r}).touch()"
    tamper(foreign, imports=[code], initialize=[code], run=[code], evaluator=code, device=code)
    load_predictor(foreign, device="cpu")
    assert not touched.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"upsampling": "nearest"}, "found 'nearest'"),
        ({"size": [10, 10]}, "divisible by 16"),
        ({"network_def": {"_target_": "pipeline.networks.JohnsonGenerator", "depth": 3}}, "depth"),
        ({"grid": "@grid"}, "grid"),
    ],
)
def test_values_that_build_no_network_are_one_sentence(foreign, changes, reason):
    tamper(foreign, **changes)
    with pytest.raises(UsageError, match=f"does not describe a predictor we can build .*{reason}") as caught:
        load_predictor(foreign, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_network_of_monai_may_be_named(foreign):
    unet = {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2, "features": [4, 4, 4, 4, 4, 4]}
    tamper(foreign, network_def=unet)
    assert type(build(foreign, ("network_def",))["network_def"]).__name__ == "BasicUNet"


def test_neither_evaluate_nor_synthesize_runs_the_code_of_a_stranger_s_bundle(
    foreign, dangerous, tmp_path, phantom_cohort, phantom_scans
):
    """Whatever a bundle holds beside plain settings, tensors and our networks, stays text."""
    touched = tmp_path / "touched"
    code = f"$__import__('pathlib').Path({str(touched)!r}).touch()"
    os_system = {"_target_": "os.system", "command": f"touch {touched}"}
    for name in ("train", "inference", "evaluate", "metadata"):
        path = foreign.config(name)
        more = {"imports": [code], "initialize": [code], "run": [code], "extra": os_system, "cycle_def": os_system}
        path.write_text(json.dumps({**read_config(path), **more, "training_domain": code}))
    torch.save(dangerous(touched), foreign.weights.with_name("cycle.pt"))
    torch.save(dangerous(touched), foreign.weights.with_name("checkpoint.pt"))
    scan = next(phantom_scans.glob("sub-*/anat/*_FLAIR.nii.gz"))
    for command in (
        ["synthesize", str(scan), "-b", str(foreign.root), "-o", str(tmp_path / "out")],
        ["evaluate", "-b", str(foreign.root), "--data", str(phantom_cohort), "-o", str(tmp_path / "report")],
        ["evaluate", "-b", str(foreign.root), "--healthy", str(scan), "-o", str(tmp_path / "healthy")],
    ):
        with pytest.raises(SystemExit) as caught:
            main(command)
        assert caught.value.code in (1, 2)
    assert not touched.exists()


@pytest.mark.parametrize("cycle_def", ["code", "target"])
def test_the_way_back_of_a_stranger_s_bundle_is_not_run(foreign, tmp_path, cycle_def):
    touched = tmp_path / "touched"
    code = f"$__import__('pathlib').Path({str(touched)!r}).touch()"
    tamper(foreign, cycle_def=code if cycle_def == "code" else {"_target_": "pathlib.Path.touch", "self": str(touched)})
    foreign.weights.with_name("cycle.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="code from a bundle is not run"):
        load_export(foreign, "cycle")
    assert not touched.exists()


@pytest.mark.parametrize(
    "network",
    [
        {"_target_": "monai.networks.nets.HoVerNet", "pretrained_url": "http://127.0.0.1:9/weights"},
        {"_target_": "monai.networks.nets.ResNet", "block": "basic", "pretrained": "/etc/passwd"},
        {"_target_": "monai.networks.nets.BasicUNet", "features": "../secret"},
        {"_target_": "monai.networks.nets.resnet50", "pretrained": True},
    ],
)
def test_a_network_that_would_fetch_or_read_something_is_refused(foreign, network):
    tamper(foreign, network_def=network)
    with pytest.raises(UsageError, match="code from a bundle is not run"):
        load_predictor(foreign, device="cpu")


# Sixteen million layers of sizes that are small.
DEEP = {"_target_": "monai.networks.nets.DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1,
    "growth_rate": 1, "bn_size": 1, "block_config": [4096] * 4096}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"residual_blocks": 1_000_000}, "residual_blocks: found 1000000, expected a size of at most 4096"),
        ({"filters": 4096}, r"found a network of \d+ parameters, expected at most"),
        ({"batch_size": -3}, "batch_size: found -3, expected a whole number from 1"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"batch_size": "x"}, "batch_size: found 'x'"),
        ({"percentile": 1000}, "1000"),
        ({"fixed_window": [5, 5]}, "5"),
        ({"fixed_window": [0, float("nan")]}, "nan"),
        ({"spacing_mm": float("nan")}, "grid::spacing_mm: found 'nan'"),
        ({"spacing_mm": 1e-9}, "of 0.1 to 20 mm"),
        ({"spacing_mm": True}, "grid::spacing_mm: found 'True'.*valid number"),
        ({"size": [32, 32, 32]}, "grid::size: found '.32, 32, 32.'"),
        ({"size": [1 << 30, 1 << 30]}, "2048 pixels at most"),
        ({"slab_mm": float("inf")}, "slab::thickness_mm: found 'inf'"),
        ({"foreground_only": "no"}, "window::foreground_only: found 'no'.*valid boolean"),
        ({"upsampling": ["bilinear"]}, "network_def::upsampling"),
        ({"filters": 2.0}, "network_def::filters: found '2.0'.*valid integer"),
        ({"network_def": DEEP}, r"network_def: found a network of \d+ layers, expected at most 20000"),
    ],
)
def test_values_of_no_use_are_refused_when_the_bundle_is_loaded(foreign, changes, reason):
    tamper(foreign, **changes)
    with pytest.raises(UsageError, match=reason) as caught:
        load_predictor(foreign, device="cpu")
    assert "\n" not in str(caught.value)


def test_the_size_of_a_network_is_told_without_drawing_its_weights(monkeypatch):
    """GenSeg's many convolutions with spectral norm took three seconds, before each use of a run."""
    config = read_config(find_bundle("genseg").config("inference")) | {"filters": [4, 4, 4, 4]}
    followed = []
    monkeypatch.setattr(Convolution, "follow", lambda self: followed.append(self))  # noqa: PLW0108  # bound to each
    network = ConfigParser(config).get_parsed_content("network_def")
    assert len(followed) > 100
    followed.clear()
    most = {"layers": 20_000, "parameters": sum(parameter.numel() for parameter in network.parameters())}
    monkeypatch.setattr("pipeline.bundles.parts.MOST", most)
    check_sizes(config, ["network_def"], Path("config.json"))
    monkeypatch.setitem(most, "parameters", most["parameters"] - 1)
    with pytest.raises(UsageError, match=r"network_def: found a network of \d+ parameters, expected at most"):
        check_sizes(config, ["network_def"], Path("config.json"))
    assert followed == []


WINDOWS = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16]}
UNET = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1,
    "channels": [2, 4], "strides": [2]}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"window": {"_target_": "pipeline.preprocessing.slab.Slab"}}, "window: found a Slab, expected a WindowRule"),
        ({"grid": "@window"}, "grid: found a WindowRule, expected a Grid"),
        ({"inferer": "@network_def"}, "inferer: found a JohnsonGenerator, expected a Inferer"),
        ({"network_def": "@grid"}, "network: found a Grid, expected a Module"),
        ({"inferer": {**WINDOWS, "sw_batch_size": -3}}, "the network cannot be run on images of shape"),
        ({"inferer": {**WINDOWS, "overlap": 2}}, "the network cannot be run .*overlap must be"),
        ({"inferer": {**WINDOWS, "mode": "gaussian", "sigma_scale": 0}}, "NaN or infinite values"),
        ({"network_def": {**UNET, "in_channels": 2}}, "the network cannot be run .*have 2 channels"),
        ({"network_def": {**UNET, "spatial_dims": 3}}, "the network cannot be run"),
        ({"network_def": {**UNET, "out_channels": 2}}, "the network gave 2 channels"),
        ({"network_def": {**UNET, "strides": [7]}}, "expected as many pixels"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_one_sentence_before_any_scan_is_read(foreign, changes, reason):
    tamper(foreign, **changes)
    if isinstance(changes.get("network_def"), dict):
        network = ConfigParser(read_config(foreign.config("inference"))).get_parsed_content("network_def")
        torch.save(network.state_dict(), foreign.weights)
    with pytest.raises(UsageError, match=reason) as caught:
        load_predictor(foreign, device="cpu")
    assert "\n" not in str(caught.value)


def test_weights_that_grow_on_reading_are_refused_before(foreign):
    whole = foreign.weights.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(foreign.weights, "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member), zipfile.ZIP_DEFLATED)
        target.writestr("archive/data/99", bytes(50_000_000), zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match="not a weights file that can be loaded safely"):
        load_predictor(foreign, device="cpu")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("name", ["metadata", "inference"])
def test_a_pipe_in_a_config_s_stead_is_refused_and_not_waited_for(foreign, name):
    foreign.config(name).unlink()
    os.mkfifo(foreign.config(name))
    with pytest.raises(UsageError, match=r"no readable JSON config \(.*is no regular file"):
        load_predictor(foreign, device="cpu")


def test_a_config_nested_without_end_is_refused(foreign):
    foreign.config("inference").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(UsageError, match="no readable JSON config"):
        load_predictor(foreign, device="cpu")


class TestKinds:
    def test_a_command_sends_a_bundle_of_another_kind_to_its_own(self, foreign):
        with pytest.raises(UsageError, match="is a translator, for `phs-pipeline synthesize`, expected a segmenter"):
            load_predictor(foreign, "segmenter", device="cpu")

    def test_a_predictor_that_disagrees_with_the_metadata_is_refused(self, foreign):
        metadata = foreign.metadata
        metadata["network_data_format"]["outputs"]["pred"]["type"] = "segmentation"
        foreign.config("metadata").write_text(json.dumps(metadata))
        with pytest.raises(UsageError, match=r"puts out 'segmentation', but the translator .* expects image"):
            load_predictor(foreign, device="cpu")

    def test_a_segmentation_network_makes_no_pseudo_healthy_scan(self, foreign):
        network = {"_target_": "pipeline.networks.UNetSegmentor", "filters": 4}
        tamper(foreign, network_def=network)
        with pytest.raises(UsageError, match="a UNetSegmentor puts out 'segmentation', expected image for a"):
            load_predictor(foreign, device="cpu")

    def test_the_kind_is_read_without_building_anything(self, foreign):
        assert kind_of(foreign) == "translator"
        tamper(foreign, network_def={"_target_": "pipeline.networks.UNetSegmentor", "filters": "no number"})
        assert kind_of(foreign) == "translator"

    def test_the_kind_by_a_class_s_name_is_that_of_the_class(self):
        classes = {name: getattr(inference, name) for name in inference.__all__}
        assert {name: found.kind for name, found in classes.items() if hasattr(found, "kind")} == KINDS

    @pytest.mark.parametrize(
        "predictor",
        [
            *(None, "@network_def", {"_target_": "os.system"}, {"_target_": 3}),
            *({"_target_": "pipeline.inference.Product"}, {"_target_": "elsewhere.Translator"}),
        ],
    )
    def test_a_config_that_names_no_kind_is_refused(self, foreign, predictor):
        tamper(foreign, predictor=predictor)
        with pytest.raises(UsageError, match=r"`predictor` is .*, expected a class of pipeline\.inference"):
            kind_of(foreign)

    def test_what_is_no_predictor_is_refused(self, foreign):
        tamper(foreign, predictor="@network_def")
        with pytest.raises(UsageError, match="`predictor` is a JohnsonGenerator, expected one of"):
            load_predictor(foreign, device="cpu")
