"""The presets of the bundle `anogan`: each trains a detector that marks and scores scans, through the commands."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.bundles import find_bundle
from pipeline.cli.main import main
from pipeline.inference import load_predictor
from pipeline.launch import train
from pipeline.networks import JointDiscriminator, Reconstruction, SearchedReconstruction

pytestmark = pytest.mark.slow

PRESETS = ("iterative", "bigan", "autoencoder", "vae")
TINY: dict[str, Any] = {
    "spacing_mm": 12.0,
    "size": [16, 16],
    "code_size": 3,
    "filters": 2,
    "encoder_filters": 2,
    "discriminator_filters": 2,
    "search_steps": 2,
    "batch_size": 8,
    "epochs": 2,
    "validate_every": 2,
    "device_name": "cpu",
}


@pytest.fixture(scope="module", params=PRESETS)
def run(
    request: pytest.FixtureRequest, phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A preset's name, and its finished run."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    train(find_bundle("anogan"), phantom_cohort, folder, ["laptop", request.param], TINY)
    return request.param, folder


def test_a_preset_s_run_has_its_networks_and_a_threshold_from_the_validation_slices(run: tuple[str, Path]) -> None:
    preset, folder = run
    predictor, _ = load_predictor(find_bundle(str(folder)), "segmenter", "cpu")
    network = predictor.detector
    assert type(network) is (SearchedReconstruction if preset == "iterative" else Reconstruction)
    assert isinstance(network.critic, JointDiscriminator) == (preset == "bigan")
    assert (network.critic is None) == (preset in ("autoencoder", "vae"))
    assert preset == "iterative" or network.encoder.variational == (preset == "vae")
    assert predictor.threshold > 0


def test_its_mask_map_and_score_are_written_beside_the_scan(
    run: tuple[str, Path], phantom_scans: Path, tmp_path: Path
) -> None:
    scan = phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz"
    for command in ("segment", "predict"):
        with pytest.raises(SystemExit) as done:
            main([command, str(scan), "-b", str(run[1]), "-o", str(tmp_path / command), "--device", "cpu"])
        assert done.value.code == 0
    found, anomaly = (
        np.asarray(nib.load(tmp_path / "segment" / f"sub-0_{name}.nii.gz").dataobj)
        for name in ("label-anomaly_desc-FLAIR_mask", "desc-anomalymap_FLAIR")
    )
    sidecar = json.loads((tmp_path / "segment" / "sub-0_label-anomaly_desc-FLAIR_mask.json").read_text())
    np.testing.assert_array_equal(found > 0, anomaly >= np.float32(sidecar["Threshold"]))
    score = json.loads((tmp_path / "predict" / "sub-0_desc-anomalyscore_FLAIR_number.json").read_text())
    assert score["Numbers"]["anomalyscore"]["Value"] > 0
