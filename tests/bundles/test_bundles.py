"""What MONAI's model zoo checks of a bundle, offline, and that MONAI's commands do what `phs-pipeline` does.

Every bundle of every kind passes; a new one is tested without new code, and a new kind by an entry in `MADE`.
"""

import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_net_in_out
from monai.data import load_net_with_metadata
from torch import nn

import pipeline
from pipeline import __version__
from pipeline.bundles import COMMANDS, Bundle, build, find_bundle, is_plain, kind_of, list_bundles, read_config
from pipeline.cli.main import main
from pipeline.errors import UsageError
from pipeline.inference import Inputs, Result, Sampler, load_export, load_predictor, load_weights
from pipeline.inference.load import check_kind
from pipeline.launch import train
from pipeline.methods.dann import GradientReversal
from pipeline.objectives import OBJECTIVES
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.slab import WHOLE
from pipeline.reports.cohort_evaluation import CohortEvaluator
from pipeline.scans import read_nifti
from pipeline.training import PlayerTrainer
from pipeline.training.checkpoint import load_tensors

pytestmark = pytest.mark.slow

# Stricter than the schema of the zoo (test_zoo.py): what is written in each field, not only that it is there.
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
        "authors": {"const": "phs-pipeline developers"},
        "copyright": {"const": "Copyright phs-pipeline developers"},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": DATA_FORMAT,
    },
    "patternProperties": {"_data_format$": DATA_FORMAT},
}
Small = Callable[[Bundle], dict[str, Any]]
TRAINABLE = [bundle for bundle in list_bundles() if bundle.trainable]
NETWORKS = [
    pytest.param(bundle, name, id=f"{bundle.name}-{name}")
    for bundle in TRAINABLE
    for name in read_config(bundle.config("train"))
    if name.endswith("_def")
]
ADVERSARIAL = [bundle for bundle in TRAINABLE if "objective" in read_config(bundle.config("train"))]
# Settings that a training and the use of its result each choose for themselves.
OF_ITS_OWN = {"imports", "output_dir", "batch_size", "dataset_dir", "run", "initialize", "finalize"}
# What a bundle's name means beside: a command, and the difference that it makes.
OTHER_MEANINGS = ('"filler": "fill"', 'Product("fill", "difference"')
# Names that are words of the frame's own, which cannot be told apart.
WORDS = {"lesion"}
# Parts of a config that say the same in every bundle of a training, or of a kind.
FRAME = {
    "train": ("bundle_root", "output_dir", "device", "grid", "initialize", "run", "finalize"),
    "inference": ("bundle_root", "output_dir", "device", "window", "page", "run", "finalize"),
}
# Of these, what has to do with scans, which a sampler does not take.
OF_SCANS = {"window", "page"}


def check_image(result: Result) -> None:
    scan, made = result.scan, result.main.voxels
    assert made.shape == scan.shape
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(made[~result.region], scan.stored[~result.region])


def check_mask(result: Result) -> None:
    mask, probability = result.main.voxels, result.first("map").voxels
    assert mask.shape == probability.shape == result.scan.shape
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    assert probability.min() >= 0
    assert probability.max() <= 1
    assert not probability[~result.region].any()


def check_number(result: Result) -> None:
    assert math.isfinite(result.main.value)
    assert result.main.units
    numbers, others = ([figure for figure in result.figures if figure.leading == leading] for leading in (True, False))
    assert [figure.value for figure in numbers] == [product.value for product in result.products]
    of_class = result.main.meaning.startswith("Probability of")
    assert [figure.name for figure in others] == ["HeldOutAccuracy" if of_class else "HeldOutError"]
    assert math.isfinite(others[0].value)


# What is promised of a main product, whatever network made it.
MADE = {"image": check_image, "mask": check_mask, "number": check_number}


def check_samples(sampler: Sampler) -> None:
    images = sampler.sample(3, seed=0)
    assert images.shape[0] == 3
    assert 0 <= images.min() <= images.max() <= 1
    assert len(np.unique(images, axis=0)) == 3


def takes_scans(bundle: Bundle) -> bool:
    return kind_of(bundle) != "sampler"


def settings_of(bundle: Bundle, *presets: str) -> dict[str, Any]:
    """The training config with presets laid over it."""
    merged = read_config(bundle.config("train"))
    for preset in presets:
        merged |= read_config(bundle.config(preset))
    return merged


def data_format(bundle: Bundle, network: str) -> dict[str, Any]:
    """What metadata says of a network of the training config."""
    found: dict[str, Any] = bundle.metadata[
        "network_data_format" if network == "network_def" else f"{network}_data_format"
    ]
    return found


def of_cohort(bundle: Bundle, cohort: Path) -> dict[str, Any]:
    """Settings of the target that a bundle learns, from the training scans that it is to score."""
    settings = read_config(bundle.config("train"))
    if "target_mean" not in settings:
        return {}
    scored = read_cohort(cohort).having([settings["target_modality"]] if "target_modality" in settings else [])
    targets = [subject.target for subject in scored if subject.split == "training"]
    return {
        "target_mean": round(statistics.fmean(targets), 6),
        "target_deviation": round(statistics.pstdev(targets), 6),
    }


def lesion_of(phantom_scans: Path) -> Path:
    """The lesion mask of the first phantom, for what fills one."""
    return phantom_scans / "derivatives/manual/sub-0/anat/sub-0_label-lesion_mask.nii.gz"


def laid_out(folder: Path, scan: Path, mask: Path | None) -> dict[str, str]:
    """A scan, and its mask if it has one, in folders as MONAI's commands are told them."""
    given = {"scans": scan} if mask is None else {"scans": scan, "masks": mask}
    for name, source in given.items():
        (folder / name).mkdir()
        (folder / name / scan.name).symlink_to(source)
    names = {"scans": "dataset_dir", "masks": "mask_dir"}
    return {names[name]: str(folder / name) for name in given}


def first_channels(network: nn.Module) -> int:
    """Channels that a network's first convolution takes."""
    return next((layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), 0)


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize(
    "name", ["LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "docs/data_license.txt"]
)
def test_the_files_that_the_zoo_requires_are_there(bundle, name):
    assert (bundle.root / name).read_text().strip()


@pytest.mark.parametrize("name", ["train.json", "evaluate.json", "multi_gpu_train.json", "laptop.json", "logging.conf"])
def test_the_files_of_a_training_are_there_where_there_is_one(bundle, name):
    expected = bundle.trainable and (name != "evaluate.json" or takes_scans(bundle))
    assert (bundle.root / "configs" / name).is_file() == expected


def test_a_run_on_whole_volumes_learns_from_all_their_slices_and_works_on_the_whole_scan(
    run: Path, phantom_cohort: Path
) -> None:
    """`phantom_cohort` is preprocessed whole, all 12 slices of each scan."""
    assert {len(subject.labels) for subject in read_cohort(phantom_cohort).subjects} == {12}
    inference = read_config(run / "configs" / "inference.json")
    if "slab_mm" in inference:
        assert (inference["slab_slices"], inference["slab_mm"]) == (None, None)
    predictor, _ = load_predictor(find_bundle(str(run)), device="cpu")
    assert getattr(predictor, "slab", None) in (None, WHOLE)


@pytest.fixture(scope="module")
def predictor(bundle, small):
    """The main one, as it is without weights."""
    return build(bundle, ("predictor",), given={**small(bundle), "device": "cpu"})["predictor"]


def test_the_kind_that_the_config_names_is_the_one_that_is_built_and_that_metadata_say(bundle, predictor):
    assert predictor.kind == kind_of(bundle)
    assert bundle.metadata["network_data_format"]["outputs"]["pred"]["type"] in predictor.output_types
    assert bool(predictor.networks) == bundle.trainable


@pytest.mark.parametrize("kind", sorted(COMMANDS))
def test_a_command_that_is_for_another_kind_says_which_command_is(bundle, kind, predictor):
    if kind == kind_of(bundle):
        check_kind(bundle, predictor, kind)
    else:
        with pytest.raises(UsageError, match=f"is a {predictor.kind}, for `phs-pipeline {COMMANDS[predictor.kind]}`"):
            check_kind(bundle, predictor, kind)


@pytest.mark.parametrize("config", FRAME)
def test_common_keys_of_the_configs_agree(config):
    """Whoever knows one bundle's config knows where to look in all; what a method adds stands beside it."""
    bundles = [bundle for bundle in list_bundles() if bundle.config(config).is_file()]
    contents = {bundle.name: read_config(bundle.config(config)) for bundle in bundles}
    for key in FRAME[config]:
        found = {
            bundle.name: contents[bundle.name][key] for bundle in bundles if takes_scans(bundle) or key not in OF_SCANS
        }
        first = next(iter(found.values()))
        if isinstance(first, dict):  # what a method adds, as the halves of genseg's grid, stands beside it here too
            first = min(found.values(), key=len)
            found = {name: {each: value.get(each) for each in first} for name, value in found.items()}
        assert {name: value for name, value in found.items() if value != first} == {}, key


def test_no_line_of_the_frame_knows_a_bundle_that_is_not_a_default_of_a_command():
    package = Path(pipeline.__file__).parent
    source = {path: path.read_text() for path in sorted(package.rglob("*.py")) if "_bundles" not in path.parts}
    for other in OTHER_MEANINGS:
        source = {path: text.replace(other, "") for path, text in source.items()}
    for bundle in (bundle for bundle in list_bundles() if bundle.name not in WORDS):
        named = {path.relative_to(package).parts[0] for path, text in source.items() if f'"{bundle.name}"' in text}
        # The calls for notebooks have the defaults, and the names, of the commands.
        assert named <= {"cli", "studies", "api.py", "__init__.py"}, bundle.name


def test_no_file_needs_large_file_storage(bundle):
    assert all(path.stat().st_size < 25_000_000 for path in bundle.root.rglob("*"))


def test_the_license_is_apache_2(bundle):
    text = (bundle.root / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_metadata_follows_the_schema(bundle):
    jsonschema.validate(bundle.metadata, SCHEMA)
    assert bundle.metadata["name"] == bundle.name
    assert "not for diagnosis" in bundle.metadata["intended_use"].lower()


def test_the_changelog_knows_the_version(bundle):
    metadata = bundle.metadata
    assert metadata["version"] in metadata["changelog"]
    assert metadata["required_packages_version"]["phs-pipeline"] == __version__


def test_the_model_card_states_what_the_zoo_and_a_reader_look_for(bundle):
    card = (bundle.root / "docs" / "README.md").read_text()
    for heading in ("# Model overview", "## Data", "## Training", "## Performance", "## Limitations", "## References"):
        assert heading in card
    assert "not for diagnosis" in card.lower()


def test_the_model_card_shows_and_links_what_lies_beside_it_wherever_the_bundle_is_copied(bundle):
    card = (bundle.root / "docs" / "README.md").read_text()
    links = {link for link in re.findall(r"\]\(([^)#\s]+)\)", card) if not re.match(r"https?://|mailto:", link)}
    assert links <= {path.name for path in (bundle.root / "docs").iterdir()}


def test_the_model_card_names_every_departure_of_a_preset(bundle):
    card = (bundle.root / "docs" / "README.md").read_text()
    for preset in bundle.presets:
        for setting in read_config(bundle.config(preset)):
            assert f"`{setting}`" in card


def test_every_setting_of_a_preset_is_one_of_the_training(bundle):
    for preset in bundle.presets:
        assert set(read_config(bundle.config(preset))) <= set(read_config(bundle.config("train")))


def test_training_and_inference_build_the_same_network(trainable):
    training, inference = (read_config(trainable.config(name)) for name in ("train", "inference"))
    shared = set(training) & set(inference) - OF_ITS_OWN
    assert {"network_def", "grid", "spacing_mm", "size", "filters"} <= shared
    # Weights that a bundle ships may have been trained with other settings than the paper's; its parts are the same.
    compared = {key for key in shared if not (trainable.weights.is_file() and is_plain(training[key]))}
    assert {key: training[key] for key in compared} == {key: inference[key] for key in compared}


def test_the_parts_of_inference_refer_to_settings_of_the_training(trainable):
    """So that a run's inference config gets each of them from what the run was trained with."""
    training, inference = (read_config(trainable.config(name)) for name in ("train", "inference"))

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            return {name for item in value.values() for name in references(item)}
        return {value[1:]} if isinstance(value, str) and value.startswith("@") else set()

    parts = [inference[key] for key in ("network_def", "cycle_def", "grid") if key in inference]
    needed = {name for part in parts for name in references(part)}
    assert needed <= set(training) & set(inference)


@pytest.mark.parametrize("config", ["train", "inference"])
@pytest.mark.parametrize("n", [1, 2])
def test_the_network_takes_and_gives_what_metadata_says(trainable, config, n, small):
    known = read_config(trainable.config(config))
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(trainable.config("metadata")),
        config_file=str(trainable.config(config)),
        device="cpu",
        n=n,
        **{name: value for name, value in small(trainable).items() if name in known},
    )


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(("bundle", "network"), NETWORKS)
def test_each_network_that_trains_takes_and_gives_what_metadata_says(bundle, network, n, small):
    about = data_format(bundle, network)
    parser = ConfigParser({**read_config(bundle.config("train")), **small(bundle)})
    shapes: list[tuple[Any, Any]] = []
    built = parser.get_parsed_content(network)
    built.register_forward_hook(lambda _, given, made: shapes.append((given[0].shape, made.shape)))
    verify_net_in_out(
        net_id=network,
        meta_file=str(bundle.config("metadata")),
        config_file=str(bundle.config("train")),
        device="cpu",
        n=n,
        **{"_meta_::network_data_format": about, network: built},
    )
    # MONAI compares channels and types; the pixels are left to compare.
    ((given, made),) = shapes
    image, pred = (about[side][name]["spatial_shape"] for side, name in (("inputs", "image"), ("outputs", "pred")))
    assert len(given) == 2 + len(image)
    assert len(made) == 2 + len(pred)
    for pattern, pixels in zip(pred, made[2:], strict=True):
        assert pattern == "*" or pixels == dict(zip(image, given[2:], strict=True))[pattern]


@pytest.mark.parametrize(("bundle", "network"), NETWORKS)
def test_a_network_s_values_fill_the_range_that_metadata_says(bundle, network, small):
    """Whatever the bundle's own settings and presets make of its output; no range is said of what has no bounds."""
    about = data_format(bundle, network)
    image = about["inputs"]["image"]
    found, own = [], 0
    for presets in ((), *((preset,) for preset in bundle.presets)):
        parser = ConfigParser({**settings_of(bundle, *presets), **small(bundle)})
        built = parser.get_parsed_content(network).eval()
        own = own or first_channels(built)  # a preset may show the network more slices
        shown = image["num_channels"] + first_channels(built) - own
        *_, (_, weight), (_, bias) = built.named_parameters()
        nn.init.zeros_(weight)
        for end in image["value_range"] or [0, 1]:
            for push in (-1000.0, 1000.0):
                nn.init.constant_(bias, push)
                pixels = [32] * len(image["spatial_shape"])
                channels = getattr(built, "latent", shown)  # a class stands behind the noise
                found.append(built(torch.full((1, channels, *pixels), float(end))).detach())
    made = torch.stack([value.flatten()[0] for value in found])
    bounds = [float(made.min()), float(made.max())]
    if bounds[1] > 900:
        assert about["outputs"]["pred"]["value_range"] == []
    else:
        assert about["outputs"]["pred"]["value_range"] == pytest.approx(bounds, abs=1e-6)


def test_each_optimiser_holds_the_parameters_of_its_players_networks(trainable, small):
    parser = ConfigParser({**read_config(trainable.config("train")), **small(trainable)})
    method, optimizers, schedulers = (parser.get_parsed_content(key) for key in ("method", "optimizers", "schedulers"))
    assert set(optimizers) == set(schedulers) == {player.name for player in method.players}
    for player in method.players:
        owned = [id(p) for name in player.networks for p in method.networks[name].parameters()]
        assert [id(p) for group in optimizers[player.name].param_groups for p in group["params"]] == owned
        assert schedulers[player.name].optimizer is optimizers[player.name]
    # What the users get is what metadata calls the network.
    assert next(iter(method.exports.values())) is parser.get_parsed_content("network_def")


@pytest.mark.parametrize(
    ("kind", "files"), [("train", ["train"]), ("train", ["train", "laptop"]), ("infer", ["inference"])]
)
def test_the_workflow_has_all_properties_that_monai_asks_for(
    trainable: Bundle,
    kind: str,
    files: Sequence[str],
    cohort_for: Callable[[Bundle], Path],
    phantom_scans: Path,
    small: Small,
    tmp_path: Path,
):
    known = read_config(trainable.config(files[0]))
    scans = laid_out(tmp_path, phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz", lesion_of(phantom_scans))
    masks = {"mask_dir": scans["mask_dir"]} if "mask_dir" in known else {}
    workflow = ConfigWorkflow(
        config_file=[str(trainable.config(name)) for name in files],
        meta_file=str(trainable.config("metadata")),
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(cohort_for(trainable)) if kind == "train" else scans["dataset_dir"],
        **masks,
        **{name: value for name, value in small(trainable).items() if name in known},
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_evaluation_scores_this_bundle_s_network(trainable, run):
    if not takes_scans(trainable):
        assert not (run / "configs" / "evaluate.json").exists()
        return
    parser = ConfigParser()
    parser.read_config([str(run / "configs" / f"{name}.json") for name in ("train", "evaluate")])
    parser["bundle_root"] = str(run)
    evaluator = parser.get_parsed_content("evaluator")
    assert isinstance(evaluator, CohortEvaluator)
    assert evaluator.name == trainable.name
    assert evaluator.predictor.kind == kind_of(trainable)
    load_weights(evaluator.predictor.networks["network_def"], evaluator.weights)


def test_each_process_of_a_distributed_training_draws_for_itself(trainable, monkeypatch):
    """Healthy slices, masks and pooled images beside each process's share of the batch are not the same ones."""
    monkeypatch.setattr("pipeline.training.rank", lambda: 3)
    parser = ConfigParser(
        {**read_config(trainable.config("train")), **read_config(trainable.config("multi_gpu_train"))}
    )
    (seeding,) = [n for n, step in enumerate(parser["initialize"]) if "set_determinism" in step]
    parser["seed"] = 40
    parser.get_parsed_content(f"initialize::{seeding}")
    assert torch.initial_seed() == 43


def test_a_run_can_be_loaded_and_gives_what_its_kind_promises_of_a_scan(run, phantom_scans):
    predictor, provenance = load_predictor(find_bundle(str(run)), device="cpu")
    assert provenance["Bundle"] == run.name
    if predictor.kind == "sampler":
        check_samples(predictor)
        return
    mask = read_nifti(lesion_of(phantom_scans)) if predictor.kind == "filler" else None
    result = predictor(Inputs(read_nifti(phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz"), mask=mask))
    assert (result.main.name, result.main.kind) == predictor.main
    MADE[result.main.kind](result)


def test_what_needs_no_training_gives_what_its_kind_promises_of_a_scan(bundle, phantom_scans):
    if bundle.trainable:
        with pytest.raises(UsageError, match="has no weights yet") if not bundle.weights.is_file() else nullcontext():
            load_predictor(bundle, device="cpu")
        return
    predictor, provenance = load_predictor(bundle, device="cpu")
    source = phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz"
    result = predictor(Inputs(read_nifti(source), mask=read_nifti(lesion_of(phantom_scans))))
    assert (result.main.name, result.main.kind) == predictor.main
    MADE[result.main.kind](result)
    assert provenance["WeightsSha256"] is None


def test_all_networks_of_a_run_have_trained(trainable, run, small):
    parser = ConfigParser({**settings_of(trainable, "laptop"), **small(trainable)})
    torch.manual_seed(0)
    method = parser.get_parsed_content("method")
    trained = load_tensors(run / "models" / "checkpoint.pt")["networks"]
    assert set(trained) == set(method.networks)
    for player in method.players:
        for name in player.networks:
            assert set(trained[name]) == set(method.networks[name].state_dict())
    content = (run / "curves.csv").read_text().splitlines()
    assert len(content) == 3
    for player in method.players:
        assert player.name in content[0].split(",")


@pytest.mark.parametrize(("name", "images"), [("cycle", 2), ("segmentor", 1)])
def test_what_an_evaluation_looks_at_is_saved_beside_the_weights_and_inference_can_build_it(
    trainable, run, name, images
):
    described = f"{name}_def" in read_config(run / "configs" / "inference.json")
    assert (run / "models" / f"{name}.pt").is_file() == described
    if described:
        export = load_export(find_bundle(str(run)), name)
        assert export(*torch.rand(images, 1, 1, 64, 64)).shape == (1, 1, 64, 64)


def test_a_killed_training_resumes_to_the_same_bits(trainable, run, small, cohort_for, tmp_path, monkeypatch):
    uninterrupted = load_tensors(run / "models" / "checkpoint.pt")
    iteration = PlayerTrainer._iteration
    killed_at = uninterrupted["iteration"] // 2 + 2  # within the second epoch

    def dying(self: PlayerTrainer, engine: Any, batch: Any) -> Any:
        if engine.state.iteration == killed_at:
            raise KeyboardInterrupt
        return iteration(self, engine, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PlayerTrainer, "_iteration", dying)
        with pytest.raises(KeyboardInterrupt):
            train(trainable, cohort_for(trainable), tmp_path / "run", ["laptop"], small(trainable))
    assert load_tensors(tmp_path / "run" / "models" / "checkpoint.pt")["epoch"] == 1
    train(trainable, cohort_for(trainable), tmp_path / "run", overrides={"device_name": "cpu"}, resume=True)
    resumed = load_tensors(tmp_path / "run" / "models" / "checkpoint.pt")
    assert resumed["epoch"] == uninterrupted["epoch"] == 2
    for part in ("networks", "averages", "optimizers", "schedulers", "random"):
        assert same(resumed[part], uninterrupted[part]), part


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("bundle", ADVERSARIAL, ids=lambda bundle: bundle.name)
def test_every_objective_trains_every_adversarial_bundle(bundle, objective, small, cohort_for):
    parser = ConfigParser(
        {
            **settings_of(bundle, "laptop"),
            **small(bundle),
            "dataset_dir": str(cohort_for(bundle)),
            "objective": objective,
            "epochs": 1,
            "fraction": 0.5,
        }
    )
    parser["train::handlers"] = []
    torch.manual_seed(0)
    trainer = parser.get_parsed_content("train::trainer")
    method = trainer.method
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in method.networks.items()}
    outputs: dict[str, float] = {}
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.update(engine.state.output))
    trainer.run()
    assert type(method.objective) is OBJECTIVES[objective]
    assert {player.name for player in method.players} <= set(outputs)
    for name, network in method.networks.items():
        assert all(value.isfinite().all() for value in network.state_dict().values())
        assert not same(network.state_dict(), before[name]), name
    assert any(name.endswith("_penalty") for name in outputs) == (objective == "wasserstein_gp")
    judges = {n for player in method.players if player.after_step for n in player.networks}
    clipped = {n for n in judges if max(float(p.detach().abs().max()) for p in method.networks[n].parameters()) <= 0.01}
    assert clipped == (judges if objective == "wasserstein" else set())


@pytest.mark.parametrize(("name", "presets"), [("domain_adaptation", ["laptop"]), ("duiit", ["laptop", "dann"])])
def test_the_weight_of_the_reversed_gradient_has_risen_when_the_training_ends(name, presets, small, cohort_for):
    bundle = find_bundle(name)
    settings = {**settings_of(bundle, *presets), **small(bundle), "dataset_dir": str(cohort_for(bundle))}
    parser = ConfigParser(
        {**settings, "adaptation_steps": settings_of(bundle).get("adaptation_steps"), "accumulate": 2}
    )
    parser["train::handlers"] = []
    trainer = parser.get_parsed_content("train::trainer")
    (reversal,) = (
        part
        for network in trainer.method.networks.values()
        for part in network.modules()
        if isinstance(part, GradientReversal)
    )
    trainer.run()
    assert int(reversal.step) == reversal.steps
    assert reversal.strength == pytest.approx(reversal.weight, rel=1e-3)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_trained_weights_export_to_torchscript_and_give_the_same_answer(trainable, run, small, tmp_path):
    exported = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(run / "models" / "model.pt"),
        meta_file=str(run / "configs" / "metadata.json"),
        config_file=str(run / "configs" / "inference.json"),
    )
    scripted, about, extra = load_net_with_metadata(str(exported), more_extra_files=["inference.json"])
    predictor, _ = load_predictor(find_bundle(str(run)), device="cpu")
    taken = about["network_data_format"]["inputs"]["image"]
    image = torch.rand(2, taken["num_channels"], *(64, 48)[: len(taken["spatial_shape"])])
    torch.testing.assert_close(scripted(image), predictor.networks["network_def"](image))
    assert about["name"] == trainable.name
    assert json.loads(extra["inference.json"])["filters"] == small(trainable)["filters"]


def check_both_doors(
    bundle: Bundle, scan: Path, monai_run: Callable[..., None], folder: Path, mask: Path | None
) -> None:
    """MONAI's command and ours write the same files for a scan: the same voxels and the same sidecar."""
    places = laid_out(folder, scan, mask) if takes_scans(bundle) else {}
    monai_run(
        *("--config_file", str(bundle.config("inference")), "--meta_file", str(bundle.config("metadata"))),
        *("--bundle_root", str(bundle.root)),
        *(part for name, place in places.items() for part in (f"--{name}", place)),
        *("--output_dir", str(folder / "out"), "--device_name", "cpu"),
    )
    command = [COMMANDS[kind_of(bundle)], *([str(folder / "scans" / scan.name)] if places else [])]
    given = [] if mask is None else ["--mask", str(folder / "masks" / scan.name)]
    with pytest.raises(SystemExit) as done:
        main([*command, *given, "-b", str(bundle.root), "-o", str(folder / "mine"), "--device", "cpu"])
    assert done.value.code == 0
    theirs, ours = ({path.name: path for path in (folder / out).iterdir()} for out in ("out", "mine"))
    assert theirs.keys() == ours.keys() - {"scores.csv"}
    assert any(path.suffix == ".json" for path in ours.values())
    for name, path in theirs.items():
        if path.suffix == ".json":  # bundle, version, warnings, page: both doors write the same sidecar
            assert json.loads(path.read_text()) == json.loads(ours[name].read_text())
        elif path.suffix == ".gz":
            assert np.array_equal(np.asarray(nib.load(path).dataobj), np.asarray(nib.load(ours[name]).dataobj))


def test_monais_commands_do_to_the_bit_what_phs_pipeline_does(
    trainable, run, small, cohort_for, phantom_scans, monai_run, training_arguments, tmp_path
):
    # What phs-pipeline takes from the cohort, MONAI's command is told.
    cohort = cohort_for(trainable)
    asked = {**small(trainable), **of_cohort(trainable, cohort)}
    monai_run(*training_arguments(trainable, cohort, tmp_path / "run", asked))
    trained, mine = (load_tensors(folder / "models" / "model.pt") for folder in (tmp_path / "run", run))
    assert same(trained, mine)
    assert (tmp_path / "run" / "curves.csv").read_text() == (run / "curves.csv").read_text()
    assert not (trainable.root / "run").exists()
    mask = lesion_of(phantom_scans) if kind_of(trainable) == "filler" else None
    scan = phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz"
    check_both_doors(find_bundle(str(run)), scan, monai_run, tmp_path, mask)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", [b for b in list_bundles() if not b.trainable], ids=lambda bundle: bundle.name)
def test_what_needs_no_training_does_the_same_through_both_doors(bundle, phantom_scans, monai_run, tmp_path):
    scan = phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz"
    check_both_doors(bundle, scan, monai_run, tmp_path, lesion_of(phantom_scans))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cyclegan", "phs_gan_unpaired"])
def test_two_processes_train_image_pools_and_two_discriminators(
    name, small, phantom_cohort, monai_run, training_arguments, tmp_path
):
    bundle = find_bundle(name)
    arguments = training_arguments(bundle, phantom_cohort, tmp_path / "run", small(bundle), ("multi_gpu_train",))
    monai_run(*arguments, processes=2)
    content = load_tensors(tmp_path / "run" / "models" / "checkpoint.pt")
    assert content["epoch"] == 2
    assert all(value.isfinite().all() for network in content["networks"].values() for value in network.values())
    assert len((tmp_path / "run" / "curves.csv").read_text().splitlines()) == 3
