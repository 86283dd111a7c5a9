"""The model zoo's own checks (`ci/verify_bundle.py` of Project-MONAI/model-zoo), without its network."""

import json
import math
from pathlib import Path

import pytest
import torch
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out

from pipeline import __version__
from pipeline.bundles import Bundle, list_bundles

SCHEMA = Path(__file__).parent / "zoo" / "meta_schema.json"
WEIGHTED = [pytest.param(bundle, id=bundle.name) for bundle in list_bundles() if bundle.weights.is_file()]
# What the schema describes and does not ask for, and what a reader of the zoo's pages is shown.
TEXTS = ("data_source", "data_type", "image_classes", "pred_classes", "intended_use")


def test_metadata_pass_the_zoo_s_schema(bundle: Bundle) -> None:
    """By MONAI's own command; a schema that lies there already is not fetched."""
    verify_metadata(meta_file=str(bundle.config("metadata")), filepath=str(SCHEMA))


def test_metadata_that_lack_what_the_schema_asks_for_do_not_pass(tmp_path: Path) -> None:
    metadata = list_bundles()[0].metadata
    del metadata["authors"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="'authors' is a required property"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(SCHEMA))


def test_metadata_say_all_that_the_zoo_shows(bundle: Bundle) -> None:
    metadata = bundle.metadata
    assert metadata["schema"].endswith("/meta_schema_20240725.json")
    assert all(isinstance(metadata[key], str) and metadata[key] for key in TEXTS)
    assert metadata["supported_apps"] == {"phs-pipeline": __version__}
    # MONAI takes it for the old name of `required_packages_version`, and for its content where both are there.
    assert "optional_packages_version" not in metadata


def test_the_scores_are_those_of_the_model_card_and_only_of_weights_that_are_there(bundle: Bundle) -> None:
    scores = bundle.metadata["eval_metrics"]
    assert bool(scores) == bundle.weights.is_file()
    card = (bundle.root / "docs" / "README.md").read_text().partition("## Performance")[2]
    for name, score in scores.items():
        assert math.isfinite(score)
        assert any(f" {score:{digits}} " in card for digits in ("", ".3f", ".4f")), name


def test_the_directory_holds_what_the_zoo_looks_for(bundle: Bundle) -> None:
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json"):
        assert (bundle.root / name).is_file()
    # The zoo wants weights; what has none says why.
    assert bundle.weights.is_file() != ("without_weights" in bundle.metadata)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", WEIGHTED)
def test_the_network_that_is_shipped_has_the_shapes_of_metadata(bundle: Bundle) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle.config("metadata")),
        config_file=str(bundle.config("inference")),
        bundle_root=str(bundle.root),
        device="cpu",
    )


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("bundle", WEIGHTED)
def test_the_weights_that_are_shipped_become_torchscript(bundle: Bundle, tmp_path: Path) -> None:
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "verify_model.ts"),
        ckpt_file=str(bundle.weights),
        meta_file=str(bundle.config("metadata")),
        config_file=str(bundle.config("inference")),
        bundle_root=str(bundle.root),
    )
    channels = bundle.metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    made = torch.jit.load(tmp_path / "verify_model.ts")(torch.rand(1, channels, 32, 32))
    assert made.isfinite().all()
