"""The settings of the bundle `genseg` are the paper's, its presets the paper's other tasks; and it learns digits."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch.optim import Adam

from pipeline.bundles import find_bundle, read_config
from pipeline.errors import UsageError
from pipeline.inference import Inputs, load_export, load_predictor
from pipeline.launch import train
from pipeline.methods import Autoencoding, GenSeg
from pipeline.networks import GenSegDecoder, GenSegResidualDecoder, PresenceToAbsence
from pipeline.networks.genseg import Convolution
from pipeline.objectives import Hinge
from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.slab import WHOLE
from pipeline.scans import read_nifti

BUNDLE = find_bundle("genseg")
TINY: dict[str, Any] = {
    "filters": [4, 4, 4, 4],
    "common_filters": 6,
    "unique_filters": 2,
    "discriminator_filters": [4, 4, 4, 4],
    "epochs": 1,
    "device_name": "cpu",
    "deterministic": True,
}


def parser(*presets: str) -> ConfigParser:
    settings = read_config(BUNDLE.config("train"))
    for preset in presets:
        settings |= read_config(BUNDLE.config(preset))
    return ConfigParser(settings)


@pytest.fixture(scope="module")
def method() -> GenSeg:
    found: GenSeg = parser().get_parsed_content("method")
    return found


def test_weights_and_objective_are_the_paper_s(method):
    weights = (method.lambda_seg, method.lambda_rec, method.lambda_lat, method.lambda_cyc, method.lambda_adv)
    assert weights == (0.01, 50, 1, 50, 3)
    assert type(method.objective) is Hinge
    assert not method.judge_x_AA


def test_batch_epochs_grid_and_labels_are_those_of_cluttered_mnist_48():
    config = parser()
    assert (config["epochs"], config["batch_size"]) == (300, 20)
    assert (config["size"], config["spacing_mm"]) == ([48, 48], 1.0)
    assert (config["labelled"], config["labelled_by"]) == (0.01, "examples")


def test_the_networks_are_those_of_tables_2_to_4_and_8(method):
    f, g_com, g_res = method.encoder, method.common_decoder, method.residual_decoder
    assert [block.convolution.out_channels for block in f.blocks] == [64, 128, 256, 512]
    assert f.code_filters == [384, 128]
    for decoder, code in ((g_com, 384), (g_res, 512)):
        assert decoder.first.in_channels == code
        assert [block.convolution.out_channels for block in decoder.blocks] == [128, 64, 32]
        assert {block.skips for block in decoder.blocks} == {"compress"}
    assert method.segmentor.decoder is g_res
    assert g_res.perceptron is not None
    for D in (method.D_A, method.D_P):
        found = [layer.out_channels for layer in D.scales[0] if isinstance(layer, Convolution)]
        assert found == [128, 128, 256, 512, 1]
    convolutions = [m for net in method.networks.values() for m in net.modules() if isinstance(m, Convolution)]
    assert all(layer.spectral for layer in convolutions)


def test_the_optimiser_is_amsgrad_with_a_rate_for_discriminators_and_one_for_the_rest():
    optimizers = parser().get_parsed_content("optimizers")
    assert {name: optimizer.defaults["lr"] for name, optimizer in optimizers.items()} == {
        "discriminators": 1e-3,
        "translators": 1e-4,
    }
    for optimizer in optimizers.values():
        assert type(optimizer) is Adam
        assert optimizer.defaults["amsgrad"]
        assert tuple(optimizer.defaults["betas"]) == (0.5, 0.999)


def test_what_departs_from_the_paper_is_off():
    config = parser()
    assert (config["average_decay"], config["amp"], config["accumulate"], config["fraction"]) == (None, None, 1, 1.0)


def test_the_preset_mnist128_has_the_networks_of_tables_5_to_7():
    built = parser("mnist128")
    made: GenSeg = built.get_parsed_content("method")
    assert built["size"] == [128, 128]
    assert made.encoder.first.out_channels == 16
    assert [block.convolution.out_channels for block in made.encoder.blocks] == [32, 64, 128, 256, 512]
    assert [block.convolution.out_channels for block in made.residual_decoder.blocks] == [128, 64, 32, 16]


def test_the_preset_separate_decoder_segments_with_a_decoder_like_the_common_one_that_is_trained_too():
    built = parser("separate_decoder")
    made: GenSeg = built.get_parsed_content("method")
    assert type(made.segmentor.decoder) is GenSegDecoder
    assert type(made.residual_decoder) is GenSegResidualDecoder
    assert made.segmentor.decoder.first.in_channels == 512
    held = {
        id(p) for group in built.get_parsed_content("optimizers")["translators"].param_groups for p in group["params"]
    }
    for network in (made.segmentor.decoder, made.residual_decoder, made.common_decoder, made.encoder):
        assert {id(p) for p in network.parameters()} <= held


def test_the_preset_brats_has_the_networks_of_tables_5_to_7_and_9_on_padded_half_slices():
    built = parser("brats")
    made: GenSeg = built.get_parsed_content("method")
    assert (built["size"], built["spacing_mm"], built["epochs"], built["batch_size"]) == ([128, 256], 1.0, 500, 20)
    assert [block.convolution.out_channels for block in made.encoder.blocks] == [32, 64, 128, 256, 512]
    assert made.residual_decoder.perceptron is None
    assert all(block.segmentation_norm is not None for block in made.residual_decoder.blocks)
    for D in (made.D_A, made.D_P):
        found = [layer.out_channels for layer in D.scales[0] if isinstance(layer, Convolution)]
        assert found == [64, 64, 128, 256, 512, 1]
    rule = built.get_parsed_content("half_slice_rule")
    assert (rule.least_brain, rule.least_lesion) == (0.25, 0.01)


@pytest.mark.parametrize(("preset", "warp_mm"), [("brats", 5.0), ("scans", 5.0), ("laptop", None), ("mnist128", None)])
def test_scans_are_taken_in_half_slices_and_augmented_and_digits_are_not(preset, warp_mm):
    built = parser(preset)
    grid, augmentation = (built.get_parsed_content(name) for name in ("grid", "augmentation"))
    assert grid.halves is (warp_mm is not None)
    assert (augmentation and augmentation.warp_px * grid.spacing_mm) == warp_mm


@pytest.mark.parametrize("preset", ["segmentation_only", "autoencoding"])
def test_the_baselines_share_encoder_and_decoders_and_train_all_that_they_have(preset):
    built = parser(preset)
    made: Autoencoding = built.get_parsed_content("method")
    assert type(made) is Autoencoding
    assert (made.lambda_seg, made.lambda_rec) == (1, 1)
    networks = [made.segmentor.encoder, made.segmentor.decoder]
    assert made.segmentor.encoder.code_filters == [384, 128]
    assert {block.skips for block in made.segmentor.decoder.blocks} == {"compress"}
    if preset == "autoencoding":
        assert made.reconstruction_decoder is not None
        assert {block.skips for block in made.reconstruction_decoder.blocks} == {"none"}
        networks.append(made.reconstruction_decoder)
    else:
        assert made.reconstruction_decoder is None
    for decoder in networks[1:]:
        assert type(decoder) is GenSegDecoder
        assert decoder.first.in_channels == 512
        assert [block.convolution.out_channels for block in decoder.blocks] == [128, 64, 32]
    (optimizer,) = built.get_parsed_content("optimizers").values()
    assert optimizer.defaults["amsgrad"]
    assert optimizer.defaults["lr"] == 1e-4
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for network in networks for p in network.parameters()}


def test_segmentation_only_sees_labelled_slices_as_often_as_other_trainings_see_any():
    assert parser("segmentation_only")["labelled_share"] == 1
    assert parser()["labelled_share"] is None


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["laptop", "separate_decoder"])
def test_digits_are_learned_from_labelled_nines_and_the_run_segments_and_translates(preset, digits, tmp_path):
    train(BUNDLE, digits, tmp_path / "run", [preset], {**TINY, "labelled": 0.05, "labelled_target": 9})
    run = find_bundle(str(tmp_path / "run"))
    predictor, _ = load_predictor(run, "segmenter", "cpu")
    assert (type(predictor.runner.network.decoder) is GenSegDecoder) == (preset == "separate_decoder")
    picture = torch.rand(1, 1, 48, 48)
    absence, presence = load_export(run, "absence").eval(), load_export(run, "presence").eval()
    assert type(absence) is PresenceToAbsence
    assert absence(picture).shape == presence(picture).shape == (1, 1, 48, 48)
    assert not np.allclose(presence(picture).detach(), presence(picture).detach())


def data_format(run: Path) -> dict[str, Any]:
    """What a run's metadata say of its network."""
    found: dict[str, Any] = find_bundle(str(run)).metadata["network_data_format"]
    return found


COARSE = {"spacing_mm": 4.0, "size": [32, 64], "half_slice_rule::least_brain": 0.1, "labelled": 0.5, "amp": None}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms of three sequences that show the first in other units, with two kinds of lesion."""
    root = tmp_path_factory.mktemp("scans")
    rows = ["subject,FLAIR,T1w,T2w,mask,split,lesion"]
    for number, split in enumerate(("training", "training", "validation", "test")):
        kind = ("bright", "dark")[number % 2]
        phantom = brain_phantom(number, shape=(44, 52, 12), spacing_mm=(4.0, 4.0, 10.0), lesions=kind)
        brain = phantom.healthy > 0
        volumes = {
            "FLAIR": phantom.image,
            "T1w": np.where(brain, 1500 - phantom.image, 0),
            "T2w": 2 * phantom.image,
            "mask": phantom.lesion,
        }
        for name, voxels in volumes.items():
            nib.save(nib.Nifti1Image(voxels.astype(np.float32), phantom.affine), root / f"p{number}_{name}.nii.gz")
        rows.append(f"p{number}," + ",".join(f"p{number}_{name}.nii.gz" for name in volumes) + f",{split},{kind}")
    (root / "scans.csv").write_text("\n".join(rows))
    settings = Settings(slab=WHOLE, channels=("FLAIR", "T1w", "T2w"), target="lesion")
    preprocess(root / "scans.csv", root / "cohort", settings, workers=1)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "sequences"), [({}, ("FLAIR", "T1w", "T2w")), ({"channels": ["T1w"]}, ("T1w",))])
def test_half_slices_of_several_sequences_are_learned_and_whole_scans_segmented(chosen, sequences, scans, tmp_path):
    train(BUNDLE, scans / "cohort", tmp_path / "run", ["scans"], {**TINY, **COARSE, **chosen})
    predictor, _ = load_predictor(find_bundle(str(tmp_path / "run")), "segmenter", "cpu")
    assert predictor.channels == sequences
    assert data_format(tmp_path / "run")["inputs"]["image"]["num_channels"] == len(sequences)
    assert predictor.runner.network.encoder.first.in_channels == len(sequences)
    first, *others = (read_nifti(scans / f"p3_{name}.nii.gz") for name in sequences)
    result = predictor(Inputs(first, channels=dict(zip(sequences[1:], others, strict=True))))
    assert result.main.voxels.shape == first.shape
    assert result.products[1].voxels[result.region].min() > 0, "both halves were looked at"


@pytest.mark.slow
def test_each_of_several_pathologies_gets_a_mask_of_its_own_by_the_names_of_the_cohort(scans, tmp_path):
    chosen = {"channels": ["FLAIR"], "labelled": 1.0}
    train(BUNDLE, scans / "cohort", tmp_path / "run", ["scans", "pathologies"], {**TINY, **COARSE, **chosen})
    run = find_bundle(str(tmp_path / "run"))
    predictor, _ = load_predictor(run, "segmenter", "cpu")
    result = predictor(Inputs(read_nifti(scans / "p3_FLAIR.nii.gz")))
    assert [(product.name, product.kind) for product in result.products] == [
        ("bright", "mask"), ("dark", "mask"), ("brightprobability", "map"), ("darkprobability", "map"),
    ]  # fmt: skip
    assert data_format(tmp_path / "run")["outputs"]["pred"]["channel_def"] == {
        "0": "logit of bright",
        "1": "logit of dark",
    }
    assert load_export(run, "presence").eval()(torch.rand(1, 1, 32, 64)).shape == (1, 1, 32, 64)
    with (tmp_path / "run" / "curves.csv").open() as file:
        assert "dice" in file.readline()


@pytest.mark.slow
def test_pathologies_that_the_cohort_does_not_tell_are_refused(digits, tmp_path):
    with pytest.raises(UsageError, match="the cohort does not tell which pathology a patient has"):
        train(BUNDLE, digits, tmp_path / "run", ["pathologies"], TINY)
