"""The bundle `restoration`: each preset plays with whom it should, and a network of several slices is described so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from pipeline.bundles import Bundle, find_bundle, read_config
from pipeline.errors import ScanError
from pipeline.inference import Inputs, Restorer, load_predictor
from pipeline.launch import train
from pipeline.preprocessing.degradation import Noise, ThickSlices, Undersampling
from pipeline.scans import read_nifti

BUNDLE = find_bundle("restoration")


@pytest.mark.parametrize(
    ("preset", "players", "degradation"),
    [
        ("laptop", ["discriminator", "generator"], Noise),
        ("l1", ["generator"], Noise),
        ("wasserstein", ["features", "discriminator", "generator"], Noise),
        ("k_space", ["discriminator", "generator"], Undersampling),
        ("super_resolution", ["discriminator", "generator"], ThickSlices),
    ],
)
def test_a_preset_chooses_the_loss_or_the_degradation(
    preset: str, players: list[str], degradation: type, small: Callable[[Bundle], dict[str, Any]]
) -> None:
    config = {**read_config(BUNDLE.config("train")), **read_config(BUNDLE.config(preset)), **small(BUNDLE)}
    parser = ConfigParser(config)
    method = parser.get_parsed_content("method")
    assert [player.name for player in method.players] == players
    for part in ("optimizers", "schedulers"):
        assert list(parser.get_parsed_content(part)) == players
    assert type(parser.get_parsed_content("degradation")) is degradation


@pytest.mark.slow
def test_a_network_of_neighbouring_slices_learns_perception_first_and_refuses_thick_slices(
    phantom_cohort: Path, phantom_scans: Path, small: Callable[[Bundle], dict[str, Any]], tmp_path: Path
) -> None:
    settings = {**small(BUNDLE), "thickest_mm": 10.0, "group": 3, "neighbours": 1, "critic_steps": 1}
    train(BUNDLE, phantom_cohort, tmp_path / "run", ["laptop", "super_resolution", "wasserstein"], settings)
    run = find_bundle(str(tmp_path / "run"))
    image = run.metadata["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == 3
    assert list(image["channel_def"].values()) == [
        f"image{offset}, windowed to [0, 1]" for offset in (", -1 slices", "", ", +1 slices")
    ]
    header = (tmp_path / "run" / "curves.csv").read_text().splitlines()[0].split(",")
    terms = {"features/autoencoder", "discriminator/gan_penalty", "generator/features", "validation/psnr"}
    assert terms <= set(header)
    assert "generator/l1" not in header
    restorer, _ = load_predictor(run, "restorer", device="cpu")
    assert isinstance(restorer, Restorer)
    assert (restorer.thickest_mm, restorer.runner.neighbours) == (10.0, 1)
    assert restorer.degradation == ThickSlices(group=3, thickest_mm=10.0)
    scan = read_nifti(phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz")
    assert restorer(Inputs(scan)).main.voxels.shape == scan.shape
    restorer.thickest_mm = 2.0
    with pytest.raises(ScanError, match="slices of 10 mm, expected at most 2 mm"):
        restorer(Inputs(scan))
