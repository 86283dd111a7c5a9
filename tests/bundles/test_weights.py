"""What is promised of the weights that bundles ship."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.bundles import Bundle, list_bundles
from pipeline.inference import Inputs, load_predictor
from pipeline.scans import read_nifti

SHIPPED = [bundle for bundle in list_bundles() if bundle.weights.is_file()]


def test_the_two_that_synthesize_starts_with_ship_weights() -> None:
    assert {bundle.name for bundle in SHIPPED} >= {"gvs", "phs_gan_paired"}


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda bundle: bundle.name)
def test_weights_are_small_fit_the_bundle_and_are_called_preliminary(bundle: Bundle) -> None:
    assert bundle.weights.stat().st_size < 25e6
    predictor, provenance = load_predictor(bundle, device="cpu")
    assert provenance["Bundle"] == bundle.name
    card = (bundle.root / "docs" / "README.md").read_text(encoding="utf-8")
    assert "preliminary" in card.lower()
    assert provenance["WeightsSha256"][:12] in card, "the card's numbers belong to these weights"
    licence = (bundle.root / "docs" / "data_license.txt").read_text(encoding="utf-8")
    assert "CC BY-NC-SA" in licence
    # On the network's own grid: no scan is asked for a network that was trained on another.
    assert f"…; {predictor.runner.grid.spacing_mm:g} mm grid" in card


@pytest.mark.parametrize(
    "name", [bundle.name for bundle in list_bundles() if bundle.trainable and bundle not in SHIPPED]
)
def test_a_bundle_without_weights_says_so_and_names_the_command(name: str) -> None:
    (bundle,) = (bundle for bundle in list_bundles() if bundle.name == name)
    card = (bundle.root / "docs" / "README.md").read_text(encoding="utf-8")
    assert "no weights" in card.lower() or "none shipped" in card.lower()
    assert f"phs-pipeline train {name} --data DIR -o RUN" in card


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda bundle: bundle.name)
def test_a_bundle_ships_weights_or_says_in_one_line_why_not(bundle: Bundle) -> None:
    why = bundle.metadata.get("without_weights")
    assert bundle.weights.is_file() == (why is None)
    if why is not None:
        assert why.startswith("none: ")
        assert "\n" not in why
        assert f"| weights | {why} |" in (bundle.root / "docs" / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.data
def test_gvs_darkens_the_bright_lesion_of_a_held_out_patient(shared_data: Path) -> None:
    (bundle,) = (bundle for bundle in SHIPPED if bundle.name == "gvs")
    translator, _ = load_predictor(bundle, "translator", "cpu")
    folder = shared_data / "brats2013" / "Brats13_0006"
    scan = read_nifti(folder / "Brats13_0006_flair.nii.gz")
    lesion = read_nifti(folder / "Brats13_0006_seg.nii.gz").stored > 0
    twin = translator(Inputs(scan))
    window = twin.window.width
    change = (twin.main.voxels.astype(np.float32) - scan.stored.astype(np.float32)) * scan.slope / window
    assert change[lesion & twin.region].mean() < -0.1
    assert np.abs(change[~lesion & twin.region]).mean() < 0.03
