"""The settings of the bundle `duiit` are the paper's; it learns from two sources at once, numbers and classes."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from torch.optim import Adam

from pipeline.bundles import find_bundle, read_config
from pipeline.inference import Inputs, load_predictor
from pipeline.launch import train
from pipeline.methods import DUIIT
from pipeline.objectives import LeastSquares
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.slab import WHOLE
from pipeline.scans import read_nifti
from pipeline.training.held_out import read_held_out

BUNDLE = find_bundle("duiit")
TINY: dict[str, Any] = {
    "filters": 4,
    "translator_filters": 4,
    "discriminator_filters": 4,
    "residual_blocks": 1,
    "size": [32, 32],
    "spacing_mm": 4.0,
    "epochs": 1,
    "device_name": "cpu",
    "deterministic": True,
}
MODALITIES = ("CT", "MR", "PET")


def parser(**settings: Any) -> ConfigParser:
    return ConfigParser(read_config(BUNDLE.config("train")) | settings)


@pytest.fixture(scope="module")
def method() -> DUIIT:
    found: DUIIT = parser().get_parsed_content("method")
    return found


def test_weights_objective_and_guidance_are_the_paper_s(method):
    assert (method.lambda_, method.lambda_cyc, method.lambda_gan) == (0.001, 10, 2)
    loss = method.prediction_loss
    assert (loss.task, loss.reduction, loss.deviation) == ("regression", "sum", 1)
    assert type(method.objective) is LeastSquares
    assert method.guided


def test_networks_and_buffers_are_the_paper_s(method):
    assert [len(getattr(method.P, f"layer{n}")) for n in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert method.P.fc.in_features == 2048  # ResNet-50
    for generators in (method.G, method.F):
        assert [len(generator.blocks) for generator in generators.values()] == [9]
        assert generators["MR"].encoder[0].out_channels == 64
    assert method.D_t.layers[0].out_channels == method.D_s["MR"].layers[0].out_channels == 64
    assert {tuple(pools["MR"].images.shape) for pools in (method.target_pools, method.source_pools)} == {
        (50, 1, 256, 256)
    }


def test_rates_are_the_paper_s_and_decay_linearly_from_epoch_100():
    config = parser()
    optimizers, schedulers = (config.get_parsed_content(key) for key in ("optimizers", "schedulers"))
    joint, discriminators = optimizers["translators_and_predictor"], optimizers["discriminators"]
    assert all(type(optimizer) is Adam for optimizer in optimizers.values())
    assert [group["lr"] for group in joint.param_groups] == [2e-4, 1e-3]
    assert [tuple(group["betas"]) for group in joint.param_groups] == [(0.5, 0.999), (0.9, 0.999)]
    assert (discriminators.defaults["lr"], tuple(discriminators.defaults["betas"])) == (2e-4, (0.5, 0.999))
    for scheduler in schedulers.values():
        (factor,) = {function(100) for function in scheduler.lr_lambdas}
        assert factor == 1
        assert [scheduler.lr_lambdas[0](epoch) for epoch in (0, 99, 150, 200)] == [1, 1, 0.5, 0]


def test_what_departs_from_the_paper_is_off():
    config = parser()
    assert (config["average_decay"], config["amp"], config["accumulate"], config["fraction"]) == (None, None, 1, 1.0)
    assert (config["epochs"], config["batch_size"]) == (200, 1)


def test_the_weight_of_the_laptop_preset_is_the_printed_one_for_ages_that_deviate_by_15_years():
    laptop = read_config(BUNDLE.config("laptop"))
    assert laptop["lambda"] == pytest.approx(0.001 * laptop["batch_size"] * 15**2)
    assert (laptop["reduction"], laptop["loss_deviation"]) == ("mean", "@target_deviation")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients with one modality each, of whom two with CT are for validation and two for test."""
    root = tmp_path_factory.mktemp("scans")
    rows = ["subject,image,split,age"]
    for number in range(10):
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in (32, 32, 4)), indexing="ij"))
        image = ((grid**2).sum(axis=0) < 0.8) * (300 + 40 * number + 50 * grid[0])
        nib.save(nib.Nifti1Image(image.astype(np.int16), np.diag([4.0, 4, 8, 1])), root / f"p{number}.nii")
        split = "training" if number < 6 else ("validation", "test")[number % 2]
        rows.append(f"p{number},p{number}.nii,{split},{30 + 4 * number}")
    (root / "scans.csv").write_text("\n".join(rows))
    preprocess(root / "scans.csv", root / "cohort", Settings(slab=WHOLE, target="age"), workers=1)
    path = root / "cohort" / "cohort.json"
    content = json.loads(path.read_text())
    for number, subject in enumerate(content["subjects"]):
        subject["channels"] = {MODALITIES[number % 3 if number < 6 else 0]: subject["images"]}
    path.write_text(json.dumps(content))
    return root / "cohort"


@pytest.mark.slow
def test_two_sources_teach_one_predictor_and_the_run_predicts_and_translates_both(cohort, tmp_path):
    train(BUNDLE, cohort, tmp_path / "run", ["laptop"], {**TINY, "sources": ["MR", "PET"], "epochs": 2})
    run = find_bundle(str(tmp_path / "run"))
    inference = read_config(run.config("inference"))
    assert (inference["channels"], inference["sources"]) == (["CT"], ["MR", "PET"])
    assert (inference["target_mean"], inference["target_deviation"]) == (36, 6)  # of CT: 30 and 42
    scan = read_nifti(cohort.parent / "p1.nii")
    predictor, _ = load_predictor(run, "scorer", "cpu")
    known = read_held_out(run.root)
    assert (known.split, known.patients, known.scans) == ("validation", 2, 2)
    result = predictor(Inputs(scan))
    assert [(figure.name, figure.value) for figure in result.figures[1:]] == [
        ("HeldOutError", known.mean_absolute_error)
    ]
    made = {}
    translator, _ = load_predictor(run, "modality translator", "cpu")
    for source in ("MR", "PET"):
        translator.choose(source)
        made[source] = translator(Inputs(scan)).main
        assert made[source].title == "translated CT"
    assert not np.array_equal(made["MR"].voxels, made["PET"].voxels)


@pytest.mark.slow
def test_classes_are_learned_where_the_targets_are_names(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "cohort")
    path = tmp_path / "cohort" / "cohort.json"
    content = json.loads(path.read_text())
    for subject in content["subjects"]:
        subject["target"] = "old" if subject["target"] > 40 else "young"
    path.write_text(json.dumps(content))
    train(BUNDLE, tmp_path / "cohort", tmp_path / "run", ["laptop"], TINY)
    run = find_bundle(str(tmp_path / "run"))
    pred = run.metadata["network_data_format"]["outputs"]["pred"]
    assert (pred["type"], pred["num_channels"]) == ("classification", 2)
    predictor, _ = load_predictor(run, "scorer", "cpu")
    products = predictor(Inputs(read_nifti(cohort.parent / "p6.nii"))).products
    assert [product.name for product in products] == ["old", "young"]
    assert sum(product.value for product in products) == pytest.approx(1)
    assert read_held_out(run.root).accuracy in (0, 0.5, 1)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["multi_task", "dann"])
def test_baselines_without_translation_are_trained_by_presets(preset, cohort, tmp_path):
    train(BUNDLE, cohort, tmp_path / "run", ["laptop", preset], {**TINY, "sources": ["MR", "PET"]})
    run = find_bundle(str(tmp_path / "run"))
    assert sorted(path.name for path in (run.root / "models").glob("*.pt")) == ["checkpoint.pt", "model.pt"]
    predictor, _ = load_predictor(run, "scorer", "cpu")
    (answer,) = predictor(Inputs(read_nifti(cohort.parent / "p1.nii"))).products
    assert np.isfinite(answer.value)


def test_the_discriminator_of_the_target_modality_is_shared_by_all_sources():
    made: DUIIT = parser(sources=["MR", "PET"]).get_parsed_content("method")
    assert made.sources == ("MR", "PET")
    assert made.networks["target_discriminator"] is made.D_t
    assert len({id(p) for p in made.D_s.parameters()}) == 2 * len(list(made.D_t.parameters()))
