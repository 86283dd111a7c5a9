"""`export`: networks that other programs run, and MONAI's own command without this package."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data import load_net_with_metadata
from shape_checks import remove_shape_checks

import pipeline
from pipeline.bundles import Bundle, build, bundles_folder, find_bundle, predictors, read_config
from pipeline.cli.main import main
from pipeline.files import sha256
from pipeline.inference import load_predictor
from pipeline.networks import JohnsonGenerator

Call = Callable[..., Any]
# Networks by bundle: of one that makes images of images, of a scorer and a generator for each source modality, of one
# that takes many channels, whose ONNX takes 20 s to write, and of one that two predictors run.
NETWORKS = {
    "unet_segmentation": ("model",),
    "duiit": ("model", "translators-T1w"),
    "fill": ("model",),
    "anogan": ("model",),
}
WITHOUT_ONNX = ("fill", "anogan")
WITHOUT_US = """
import runpy, sys
sys.modules["pipeline"] = None  # whoever imports it gets an ImportError
sys.argv = ["monai.bundle", "run", *sys.argv[1:]]
runpy.run_module("monai.bundle", run_name="__main__")
"""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def small(bundle: Bundle) -> dict[str, Any]:
    """Its settings, of networks that are exported in seconds."""
    settings = read_config(bundle.config("inference")) | {"spacing_mm": 4.0, "size": [32, 48]}
    for name, value in settings.items():
        if name.endswith("filters"):
            settings[name] = [4] * len(value) if isinstance(value, list) else 4
        elif name.endswith("blocks"):
            settings[name] = 1
    return settings


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """A copy of a bundle, with what a preset says of inference, whose networks are small and have random weights."""

    def make(name: str, preset: str = "train") -> Bundle:
        ours = find_bundle(name)
        folder = tmp_path_factory.mktemp("weighted") / name
        shutil.copytree(bundles_folder() / name, folder, ignore=shutil.ignore_patterns("*.pt"))
        settings, chosen = small(ours), read_config(ours.config(preset))
        settings["network_def"] = chosen["network_def"]
        (folder / "configs" / "inference.json").write_text(json.dumps(settings))
        (folder / "models").mkdir(exist_ok=True)
        bundle = find_bundle(str(folder))
        torch.manual_seed(0)
        for config_id in predictors(bundle).values():
            predictor = build(bundle, (config_id,), given={"device": "cpu"})[config_id]
            for network_id, network in predictor.networks.items():
                for parameter in network.parameters():  # last layers that start at zero say nothing
                    torch.nn.init.normal_(parameter, std=0.1)
                if hasattr(network, "threshold"):
                    network.threshold.fill_(0.1)
                if hasattr(network, "grow"):
                    network.grow(2.5)  # a resolution is being faded in
                torch.save(network.state_dict(), bundle.weights_of(network_id))
        return bundle

    return make


@pytest.fixture(scope="module", params=NETWORKS)
def exported(
    request: pytest.FixtureRequest, weighted: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Path]:
    """A bundle, and the folder that the command made of it."""
    bundle = weighted(request.param)
    out = tmp_path_factory.mktemp("exported") / bundle.name
    without = ["--no-onnx"] if bundle.name in WITHOUT_ONNX else []
    with pytest.MonkeyPatch.context() as patch:
        remove_shape_checks(patch)
        with pytest.raises(SystemExit) as stop:
            main(["--quiet", "export", str(bundle.root), "-o", str(out), *without])
    assert stop.value.code == 0
    return bundle, out


def networks_of(bundle: Bundle) -> dict[str, torch.nn.Module]:
    """By the name of its exported files, as the bundle's predictors hold them."""
    found: dict[str, torch.nn.Module] = {}
    for kind in predictors(bundle):
        predictor, _ = load_predictor(bundle, kind, "cpu")
        for config_id, network in predictor.networks.items():
            name = "model" if config_id == "network_def" else config_id.removesuffix("_def")
            members = network.items() if isinstance(network, torch.nn.ModuleDict) else [("", network)]
            found |= {f"{name}-{member}" if member else name: module for member, module in members}
    return found


@pytest.mark.usefixtures("without_shape_checks")
@torch.inference_mode()
def test_each_file_gives_what_the_bundle_s_network_gives_at_any_batch_and_size(exported: tuple[Bundle, Path]) -> None:
    bundle, out = exported
    networks = networks_of(bundle)
    assert set(NETWORKS[bundle.name]) == set(networks)
    suffixes = (".ts",) if bundle.name in WITHOUT_ONNX else (".ts", ".onnx")
    assert {path.name for path in (out / "models").iterdir()} == {f"{n}{s}" for n in networks for s in suffixes}
    for name, network in networks.items():
        scripted, about, _ = load_net_with_metadata(str(out / "models" / f"{name}.ts"))
        channels = about["network_data_format"]["inputs"]["image"]["num_channels"]
        forms = [scripted]
        if bundle.name not in WITHOUT_ONNX:
            session = onnxruntime.InferenceSession(out / "models" / f"{name}.onnx", providers=["CPUExecutionProvider"])
            assert session.get_inputs()[0].shape == ["batch", channels, "height", "width"]
            forms.append(lambda image, run=session.run: torch.from_numpy(run(None, {"image": image.numpy()})[0]))
        for shape in ((1, 32, 32), (4, 64, 48), (2, 112, 96)):
            image = torch.rand(shape[0], channels, *shape[1:])
            wanted = network(image)
            for form in forms:
                made = form(image)
                torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5 * max(1.0, float(wanted.abs().max())))


def test_the_folder_says_what_it_holds_and_names_nothing_of_this_machine(exported: tuple[Bundle, Path]) -> None:
    bundle, out = exported
    record = json.loads((out / "export.json").read_text())
    assert record["WeightsSha256"] == sha256(bundle.weights)
    assert set(record["Files"]) == {f"models/{path.name}" for path in (out / "models").iterdir()}
    for path, made in record["Files"].items():
        assert made["Sha256"] == sha256(out / path)
        assert made["LargestDifference"] <= 1e-5
        assert len({tuple(shape) for shape in made["ComparedShapes"]}) == 3
        content = (out / path).read_bytes()
        assert str(Path(pipeline.__file__).parent).encode() not in content
        assert sys.prefix.encode() not in content
    metadata = json.loads((out / "configs" / "metadata.json").read_text())
    assert "phs-pipeline" not in metadata["required_packages_version"]
    assert metadata["network_data_format"] == bundle.metadata["network_data_format"]
    assert "pipeline." not in (out / "configs" / "inference.json").read_text()
    assert {path.name for path in (out / "docs").iterdir()} == {path.name for path in (bundle.root / "docs").iterdir()}
    assert (out / "docs" / "data_license.txt").read_text() == (bundle.root / "docs" / "data_license.txt").read_text()


def prepared(folder: Path, channels: int) -> np.ndarray:
    """Two volumes on a network's grid in its range, one of them written; shape (H, W, slices[, channels])."""
    folder.mkdir()
    volume = np.random.default_rng(0).random((32, 48, 3, channels), dtype=np.float32)
    nib.save(nib.Nifti1Image(volume if channels > 1 else volume[..., 0], np.diag([4, 4, 3, 1])), folder / "one.nii.gz")
    return volume


def check_answer(bundle: Bundle, volume: np.ndarray, folder: Path) -> None:
    """That what MONAI's command wrote is what the bundle's main network makes of the slices."""
    slices = torch.from_numpy(volume).permute(2, 3, 0, 1)
    with torch.inference_mode():
        wanted = networks_of(bundle)["model"](slices)
    if wanted.ndim == 2:
        name, value = (folder / "predictions.csv").read_text().strip().split(",")
        assert name.endswith("one.nii.gz")
        assert float(value) == pytest.approx(float(wanted.mean()), rel=1e-5)
    else:
        made = np.asarray(nib.load(folder / "one_pred.nii.gz").dataobj)
        np.testing.assert_allclose(made, wanted[:, 0].permute(1, 2, 0), atol=1e-5 * max(1, float(wanted.abs().max())))


@pytest.mark.usefixtures("without_shape_checks")
def test_its_config_is_a_workflow_of_monai_that_applies_the_network(
    exported: tuple[Bundle, Path], tmp_path: Path
) -> None:
    bundle, out = exported
    channels = bundle.metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    volume = prepared(tmp_path / "images", channels)
    workflow = ConfigWorkflow(
        config_file=str(out / "configs" / "inference.json"),
        meta_file=str(out / "configs" / "metadata.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(out),
        dataset_dir=str(tmp_path / "images"),
        output_dir=str(tmp_path / "out"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    check_answer(bundle, volume, tmp_path / "out")


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("preset", ["laplacian", "progressive"])
@torch.inference_mode()
def test_generators_of_several_resolutions_become_torchscript(
    call: Call, weighted: Callable[..., Bundle], tmp_path: Path, preset: str
) -> None:
    bundle, out = weighted("dcgan", preset), tmp_path / "out"
    without = ["--no-onnx"] if preset == "progressive" else []  # how far it has grown decides which layers are run
    assert call("export", bundle.root, "-o", out, *without).code == 0
    noise = torch.randn(5, 100)
    made = torch.jit.load(out / "models" / "model.ts")(noise)
    assert made.shape == (5, 1, 32, 48)
    assert len(made.unique()) > 100
    torch.testing.assert_close(made, networks_of(bundle)["model"](noise))


@pytest.mark.usefixtures("without_shape_checks")
@torch.inference_mode()
def test_a_generator_takes_any_number_of_draws_and_its_folder_draws_for_itself(
    call: Call, weighted: Callable[[str], Bundle], tmp_path: Path
) -> None:
    bundle, out = weighted("dcgan"), tmp_path / "out"
    assert call("export", bundle.root, "-o", out).code == 0
    session = onnxruntime.InferenceSession(out / "models" / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    noise = torch.randn(16, taken.shape[1], generator=torch.Generator().manual_seed(0))
    images = networks_of(bundle)["model"](noise)
    assert taken.shape[0] == "batch"
    np.testing.assert_allclose(session.run(None, {"image": noise.numpy()})[0], images, atol=1e-5)
    workflow = ConfigWorkflow(
        config_file=str(out / "configs" / "inference.json"),
        meta_file=str(out / "configs" / "metadata.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(out),
    )
    workflow.initialize()
    workflow.run()
    drawn = [np.asarray(nib.load(out / "eval" / f"{n}_pred.nii.gz").dataobj) for n in range(16)]
    np.testing.assert_allclose(np.squeeze(drawn), images[:, 0], atol=1e-5)


@pytest.mark.parametrize("exported", ["unet_segmentation"], indirect=True)
def test_monai_s_command_runs_it_where_this_package_cannot_be_imported(
    exported: tuple[Bundle, Path], tmp_path: Path
) -> None:
    bundle, out = exported
    volume = prepared(tmp_path / "images", 1)
    places = ("--dataset_dir", tmp_path / "images", "--output_dir", tmp_path / "out")
    command = [sys.executable, "-c", WITHOUT_US, "--config_file", out / "configs/inference.json", "--bundle_root", out]
    done = subprocess.run([*command, *places], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    check_answer(bundle, volume, tmp_path / "out")


@pytest.mark.parametrize(
    ("bundle", "told"),
    [
        ("harmonic", "harmonic: has no network, expected one to export; `phs-pipeline fill -b harmonic` needs none"),
        ("ant_gan", "has no weights yet"),
        ("no_such", "no bundle of that name"),
    ],
)
def test_what_has_nothing_to_export_is_refused(call: Call, tmp_path: Path, bundle: str, told: str) -> None:
    code, _, said = call("export", bundle, "-o", tmp_path / "out")
    assert code == 2
    assert told in said
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, _, said = call("export", "gvs", "-o", tmp_path)
    assert (code, [path.name for path in tmp_path.iterdir()]) == (2, ["mine.txt"])
    assert "exists and is not empty; choose another folder" in said


def drawing(self: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    return image + torch.rand_like(image)


def remembering(self: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    self.__dict__["seen"] = image
    return image


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("forward", "told"),
    [(drawing, "draws at random cannot be exported"), (remembering, "cannot be written as TorchScript")],
)
def test_a_network_that_is_another_outside_is_refused(
    call: Call,
    weighted: Callable[[str], Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forward: Any,
    told: str,
) -> None:
    bundle = weighted("gvs")
    monkeypatch.setattr(JohnsonGenerator, "forward", forward)
    code, _, said = call("export", bundle.root, "-o", tmp_path / "out", "--no-onnx")
    assert code == 2
    assert told in said
    assert not (tmp_path / "out").exists()


def test_without_the_packages_for_onnx_the_extra_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, said = call("export", "gvs", "-o", tmp_path / "out")
    assert code == 2
    assert "pip install 'phs-pipeline[export]', or give --no-onnx" in said
