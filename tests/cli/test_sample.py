"""`sample` as a user meets it: marked slices, a picture and a sidecar, from a generator of MONAI."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.files import sha256
from pipeline.reports.index_page import index_page

Call = Callable[..., Any]
GENERATOR = {"latent_shape": [8], "start_shape": [4, 4, 6], "channels": [4, 1], "strides": [2, 2], "num_res_units": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 16×24 pixels of 2 mm; its weights are random."""
    from monai.networks.nets import Generator

    folder = tmp_path_factory.mktemp("bundles") / "tiny_generator"
    predictor = {"latent": 8, "spacing_mm": 2.0, "batch_size": 2}
    config = {
        "device": "cpu",
        "network_def": {"_target_": "monai.networks.nets.Generator", **GENERATOR},
        "predictor": {
            "_target_": "pipeline.inference.Sampler",
            "network": "@network_def",
            "device": "@device",
            **predictor,
        },
    }
    metadata = {
        "name": "tiny_generator",
        "version": "0.1.0",
        "references": ["A. Author. A generator. 2020"],
        "network_data_format": {"outputs": {"pred": {"type": "image"}}},
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    for name, content in (("inference", config), ("metadata", metadata)):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    torch.save(Generator(**GENERATOR).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def changed(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """The bundle with other entries in one of its configs."""

    def change(name: str, **entries: Any) -> Path:
        folder = shutil.copytree(run, tmp_path / "changed")
        path = folder / "configs" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))
        return folder

    return change


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def voxels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("sample-*.nii.gz"))]


def test_each_image_is_a_slice_beside_a_picture_and_a_sidecar(call: Call, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = call("sample", "-b", run, "-n", 5, "--seed", 3, "-o", out, "--device", "cpu")
    assert code == 0
    assert "5 written" in said
    assert "for research, not for diagnosis. Please cite: A. Author. A generator. 2020" in said
    assert names(out) == [*(f"sample-000{number}.nii.gz" for number in range(1, 6)), "samples.png", "sampling.json"]
    image = nib.load(out / "sample-0001.nii.gz")
    assert image.shape == (16, 24, 1)
    np.testing.assert_array_equal(image.affine, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert b"SYNTHETIC" in image.header["descrip"].item()
    for each in voxels(out):
        assert each.dtype == np.float32
        assert 0 <= each.min() < each.max() <= 1
    assert Image.open(out / "samples.png").size[0] == 3 * 176


def test_the_sidecar_says_by_what_they_were_made(call: Call, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("sample", "-b", run, "-n", 2, "--seed", 3, "-o", out, "--device", "cpu").code == 0
    sidecar = json.loads((out / "sampling.json").read_text())
    assert sidecar["SyntheticData"] is True
    assert sidecar["Warning"] == "SYNTHETIC images for research - NOT FOR DIAGNOSIS"
    assert sidecar["GeneratedBy"][0]["Name"] == "phs-pipeline"
    assert sidecar["Bundle"] == "tiny_generator"
    assert sidecar["WeightsSha256"] == sha256(run / "models" / "model.pt")
    request = sidecar["Request"]
    assert (request["Seed"], request["Count"], request["Latent"], request["SpacingMm"]) == (3, 2, 8, 2.0)
    assert sidecar["Outputs"] == {path.name: sha256(path) for path in out.iterdir() if path.name != "sampling.json"}


def test_verify_knows_the_folder_and_each_file_and_finds_a_change(call: Call, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("sample", "-b", run, "-n", 2, "-o", out, "--device", "cpu").code == 0
    code, said, _ = call("verify", out)
    assert code == 0
    assert "source: no scan" in said
    assert "model: tiny_generator 0.1.0" in said
    assert "Seed 0, Count 2" in said
    assert call("verify", *out.iterdir()).code == 0
    shutil.copyfile(out / "sample-0001.nii.gz", out / "sample-0002.nii.gz")
    (out / "samples.png").write_bytes(b"another picture")
    assert call("verify", out / "samples.png").code == 1
    assert call("verify", out).code == 1


def test_an_index_of_the_folder_does_not_take_them_for_products_of_a_scan(
    call: Call, run: Path, tmp_path: Path
) -> None:
    empty = index_page(tmp_path / "absent")
    assert call("sample", "-b", run, "-n", 2, "-o", tmp_path / "out", "--device", "cpu").code == 0
    assert index_page(tmp_path / "out") == empty


def test_a_sample_is_refused_as_a_scan(call: Call, run: Path, trained: Path, tmp_path: Path) -> None:
    assert call("sample", "-b", run, "-n", 1, "-o", tmp_path / "out", "--device", "cpu").code == 0
    given = ("-b", trained, "-o", tmp_path / "twins", "--device", "cpu")
    code, _, said = call("synthesize", tmp_path / "out" / "sample-0001.nii.gz", *given)
    assert code == 1
    assert "is synthetic already" in said


def test_the_seed_decides(call: Call, run: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        given = ("-n", 3, "--seed", seed, "-o", tmp_path / name, "--device", "cpu")
        assert call("sample", "-b", run, *given).code == 0
    one, same, other = (voxels(tmp_path / name) for name in ("one", "same", "other"))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_folder_that_is_not_empty_is_refused_unless_it_may_be_overwritten(
    call: Call, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ("sample", "-b", run, "-o", out, "--device", "cpu")
    assert call(*given, "-n", 4).code == 0
    (out / "sample-0009.nii.gz").write_bytes(b"the user's own")
    before = names(out)
    code, _, said = call(*given, "-n", 2)
    assert code == 2
    assert "exists and is not empty; choose another folder, or give --overwrite" in said
    assert names(out) == before
    assert call(*given, "-n", 2, "--overwrite").code == 0
    # Those of the larger run are gone, and what is not ours stays.
    files = ["sample-0001.nii.gz", "sample-0002.nii.gz", "sample-0009.nii.gz", "samples.png", "sampling.json"]
    assert names(out) == files
    assert call("verify", out).code == 0


@pytest.mark.parametrize(("bundle", "command"), [("gvs", "synthesize"), ("harmonic", "fill")])
def test_a_bundle_of_another_kind_says_which_command_it_is_for(
    call: Call, tmp_path: Path, bundle: str, command: str
) -> None:
    code, _, said = call("sample", "-b", bundle, "-o", tmp_path / "out")
    assert code == 2
    assert f"for `phs-pipeline {command}`, expected a sampler" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "kind"), [("synthesize", "translator"), ("segment", "segmenter"), ("predict", "scorer")]
)
def test_other_commands_send_its_bundle_here(
    call: Call, run: Path, write: Callable[..., Path], tmp_path: Path, command: str, kind: str
) -> None:
    scan = write("scan.nii.gz", np.arange(512, dtype=np.int16).reshape(8, 8, 8))
    code, _, said = call(command, scan, "-b", run, "-o", tmp_path / "out", "--device", "cpu")
    assert code == 2
    assert f"tiny_generator: is a sampler, for `phs-pipeline sample`, expected a {kind}" in said


def test_it_cannot_be_evaluated_on_a_cohort(call: Call, run: Path, phantom_cohort: Path, tmp_path: Path) -> None:
    given = ("--data", phantom_cohort, "-o", tmp_path / "report", "--device", "cpu")
    code, _, said = call("evaluate", "-b", run, *given)
    assert code == 2
    assert "this bundle holds a sampler, expected a" in said


def test_values_of_the_config_are_checked(call: Call, run: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    predictor = json.loads((run / "configs" / "inference.json").read_text())["predictor"]
    folder = changed("inference", predictor=predictor | {"spacing_mm": -1})
    code, _, said = call("sample", "-b", folder, "-o", tmp_path / "out", "--device", "cpu")
    assert code == 2
    assert "spacing_mm: found -1, expected millimetres from 0.01 to 100" in said
    assert not (tmp_path / "out").exists()


def test_metadata_that_say_something_else_are_refused(call: Call, changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed("metadata", network_data_format={"outputs": {"pred": {"type": "segmentation"}}})
    code, _, said = call("sample", "-b", folder, "-o", tmp_path / "out", "--device", "cpu")
    assert code == 2
    assert "puts out 'segmentation', but the sampler of inference.json expects image" in said


# Generators that are conditioned, or make lesion masks, too


@pytest.fixture
def of_dcgan(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """The bundle with DCGAN's generator of 16×16 pixels, whose weights are random."""
    from pipeline.networks import DCGANGenerator

    def build(**options: Any) -> Path:
        folder = shutil.copytree(run, tmp_path / "dcgan")
        path = folder / "configs" / "inference.json"
        config = json.loads(path.read_text())
        network = {"latent": 8, "size": [16, 16], "filters": 2, **options}
        config["network_def"] = {"_target_": "pipeline.networks.DCGANGenerator", **network}
        grid = {"_target_": "pipeline.preprocessing.grid.Grid", "spacing_mm": 2.0, "size": [16, 16]}
        config["predictor"] |= {**options, "grid": grid}
        path.write_text(json.dumps(config))
        torch.manual_seed(0)
        torch.save(DCGANGenerator(**network).state_dict(), folder / "models" / "model.pt")
        return folder

    return build


def test_a_class_is_asked_for_and_recorded(call: Call, of_dcgan: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = of_dcgan(condition="class"), tmp_path / "out"
    given = ("sample", "-b", folder, "-n", 3, "--device", "cpu", "-o", out)
    assert call(*given).code == 0
    sidecar = json.loads((out / "sampling.json").read_text())
    assert sidecar["Classes"] == ["healthy", "pathological", "healthy"]
    in_turn = voxels(out)
    assert call(*given, "--class", "pathological", "--overwrite").code == 0
    sidecar = json.loads((out / "sampling.json").read_text())
    assert (sidecar["Request"]["Class"], sidecar["Request"]["Condition"]) == ("pathological", "class")
    same = [np.array_equal(one, other) for one, other in zip(in_turn, voxels(out), strict=True)]
    assert same == [False, True, False]
    assert call("verify", out).code == 0


def test_images_with_their_masks_are_written_beside_each_other(
    call: Call, of_dcgan: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert call("sample", "-b", of_dcgan(joint=True), "-n", 2, "-o", out, "--device", "cpu").code == 0
    pairs = [f"sample-000{number}{part}.nii.gz" for number in (1, 2) for part in ("", "_mask")]
    assert names(out) == [*pairs, "samples.png", "sampling.json"]
    mask = nib.load(out / "sample-0001_mask.nii.gz")
    assert b"SYNTHETIC" in mask.header["descrip"].item()
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    assert call("verify", *out.iterdir()).code == 0


def test_images_are_drawn_for_the_slices_of_a_mask(call: Call, of_dcgan: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = of_dcgan(condition="mask"), tmp_path / "out"
    lesion = np.zeros((16, 16, 4), np.uint8)
    lesion[3:6, 4:9, 1] = lesion[8:12, 8:12, 2] = 1
    nib.save(nib.Nifti1Image(lesion, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "lesion.nii.gz")
    given = ("sample", "-b", folder, "-n", 3, "--device", "cpu", "-o", out)
    code, _, said = call(*given)
    assert code == 2
    assert "masks: found none, expected some for a sampler of the condition mask; give some" in said
    assert call(*given, "--mask", tmp_path / "lesion.nii.gz").code == 0
    written = [np.asarray(nib.load(path).dataobj)[..., 0] for path in sorted(out.glob("*_mask.nii.gz"))]
    for found, expected in zip(written, (1, 2, 1), strict=True):
        np.testing.assert_array_equal(found, lesion[..., expected])
    request = json.loads((out / "sampling.json").read_text())["Request"]
    assert request["MasksSha256"] == [sha256(tmp_path / "lesion.nii.gz")]


def test_a_mask_for_a_generator_that_takes_none_is_refused(call: Call, run: Path, tmp_path: Path) -> None:
    (tmp_path / "lesion.nii.gz").write_bytes(b"")
    code, _, said = call("sample", "-b", run, "--mask", tmp_path / "lesion.nii.gz", "-o", tmp_path / "out")
    assert code == 2
    assert "found a mask, expected none for a sampler of the condition none" in said
