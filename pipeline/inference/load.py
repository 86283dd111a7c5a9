"""From a bundle to a predictor with its weights: one way for the command line, evaluation and MONAI's commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pipeline.bundles import COMMANDS, Bundle, build, predictors, read_config
from pipeline.bundles.bundle import MAIN
from pipeline.devices import FLOAT32, check_precision, pick_device
from pipeline.errors import ScanError, UsageError
from pipeline.files import sha256
from pipeline.inference.found_filler import FoundFiller
from pipeline.inference.inputs import Inputs
from pipeline.inference.network import NetworkPredictor
from pipeline.inference.products import ProductKind, Result
from pipeline.inference.sampler import Sampler
from pipeline.inference.scorer import Scorer
from pipeline.preprocessing.domain_format import check_domain
from pipeline.training.checkpoint import all_finite, load_tensors
from pipeline.training.held_out import read_held_out


class Predictor(Protocol):
    """Scans in, products on the scan's own grid out."""

    kind: str
    """One of `pipeline.bundles.COMMANDS`."""

    output_types: frozenset[str]
    """What `network_data_format.outputs.pred.type` of its bundle's metadata may say."""

    @property
    def main(self) -> tuple[str, ProductKind]:
        """Name and kind of the main product."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the sequences that it takes, the one whose grid the results lie on first."""
        ...

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """By the id in the configs, whose weights they take."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        ...

    def __call__(self, inputs: Inputs) -> Result:
        """Make the products."""
        ...


def load_predictor(
    bundle: Bundle,
    kind: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    trust: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """The predictor of a bundle or run, with its weights.

    Args:
        bundle: with weights, unless its predictor has none.
        kind: of predictor that the caller can use; None takes any.
        device: as for `pick_device`.
        batch_size: slices at once; None takes the config's.
        trust: run the code in its inference config; weights are loaded safely all the same.

    Returns:
        A `Predictor`, and the provenance for sidecars: bundle, version, hashes of weights and config.

    Raises:
        UsageError: if the bundle makes something else, has no weights, they do not fit, its metadata say that it makes
            something else than its predictor does, or its config asks for more than a predictor.
    """
    given: dict[str, Any] = {"device": str(pick_device(device))}
    if batch_size is not None:
        given["batch_size"] = batch_size
    config_id = predictors(bundle).get(kind, "predictor") if kind else "predictor"
    predictor = build(bundle, (config_id,), trust, given)[config_id]
    check_kind(bundle, predictor, kind)
    load_bundle_weights(bundle, predictor)
    if isinstance(predictor, NetworkPredictor):
        try:
            predictor.try_out()
        except ScanError as error:
            raise UsageError(f"{bundle.config('inference')}: {error}") from error
    return predictor, provenance(bundle)


@dataclass(frozen=True)
class Loaded:
    """A predictor with its weights, and where it comes from.

    Attributes:
        name: of the bundle, or of both.
        predictor: a `Predictor`.
        provenance: for sidecars.
        metadata: of the bundle; of two, that of the first, which sees the scan first, with the references of both.
        bundles: which they were loaded from.
    """

    name: str
    predictor: Any
    provenance: dict[str, Any]
    metadata: dict[str, Any]
    bundles: tuple[Bundle, ...]


def load_parts(
    bundles: Sequence[Bundle], kind: str | None, device: str = "auto", trust: bool = False, precision: str = FLOAT32
) -> Loaded:
    """The predictor of one bundle, or of a segmenter's and a filler's: a translator that fills what is found.

    Args:
        bundles: one or two.
        kind: as for `load_predictor`.
        device: as for `pick_device`.
        trust: as for `load_predictor`.
        precision: of the networks, as for `GridNetwork`; the provenance tells any but `float32`.

    Raises:
        UsageError: as `load_predictor`, or if the device does not compute in this precision.
    """
    if len(bundles) == 1:
        (bundle,) = bundles
        predictor, told = load_predictor(bundle, kind, device, trust=trust)
        return _computing_in(precision, Loaded(bundle.name, predictor, told, bundle.metadata, (bundle,)), predictor)
    name = "+".join(bundle.name for bundle in bundles)
    if kind not in (None, FoundFiller.kind):
        raise UsageError(
            f"{name}: is a {FoundFiller.kind}, for `phs-pipeline {COMMANDS[FoundFiller.kind]}`, expected a {kind}; use "
            "that command, or give one bundle with -b"
        )
    device = str(pick_device(device))  # told once
    (segmenter, first), (filler, second) = (
        load_predictor(bundle, part, device, trust=trust)
        for bundle, part in zip(bundles, ("segmenter", "filler"), strict=True)
    )
    metadata = bundles[0].metadata
    references = [*metadata["references"], *bundles[1].metadata["references"]]
    both = {key: f"{first[key]}+{second[key]}" for key in first}
    metadata = {**metadata, "references": list(dict.fromkeys(references))}
    loaded = Loaded(name, FoundFiller(segmenter, filler), both, metadata, tuple(bundles))
    return _computing_in(precision, loaded, segmenter, filler)


def _computing_in(precision: str, loaded: Loaded, *parts: Any) -> Loaded:
    """The same predictor, the networks of whose parts compute in this precision."""
    check_precision(precision, loaded.predictor.device)
    if precision == FLOAT32:
        return loaded
    networks = [part for part in parts if isinstance(part, NetworkPredictor)]
    if not networks:
        raise UsageError(
            f"precision {precision}: found no network of {loaded.name} to compute in it, expected one; leave it out"
        )
    for part in networks:
        part.runner.precision = precision
    return replace(loaded, provenance={**loaded.provenance, "Precision": precision})


def load_bundle_weights(bundle: Bundle, predictor: Predictor | Sampler, main: Path | None = None) -> None:
    """Load the weights of all networks of a predictor, and what error to expect of a scorer with these.

    Args:
        bundle: whose weights.
        predictor: of the bundle.
        main: other weights for its main network.

    Raises:
        UsageError: if some are missing or do not fit.
    """
    for config_id, network in predictor.networks.items():
        _load_export(bundle, config_id, network, main if config_id == MAIN else None)
    own = main is None or (bundle.weights.is_file() and main.samefile(bundle.weights))
    if isinstance(predictor, Scorer) and own:
        predictor.held_out = read_held_out(bundle.root)


def load_export(bundle: Bundle, name: str, trust: bool = False) -> Any:
    """An export of a run beside the main one, for example `cycle`; None where the method has none of that name.

    Raises:
        UsageError: as `load_predictor`.
    """
    config_id = f"{name}_def"
    if config_id not in read_config(bundle.config("inference")) or not bundle.weights_of(config_id).is_file():
        return None
    module = build(bundle, (config_id,), trust)[config_id]
    _load_export(bundle, config_id, module)
    return module


def provenance(bundle: Bundle, main: Path | None = None) -> dict[str, Any]:
    """Which bundle and weights, for sidecars and reports; `main` are other weights than the bundle's."""
    weights = main or bundle.weights
    return {
        "Bundle": bundle.name,
        "BundleVersion": bundle.metadata.get("version"),
        "WeightsSha256": sha256(weights) if weights.is_file() else None,
        "ConfigSha256": sha256(bundle.config("inference")),
    }


def check_kind(bundle: Bundle, predictor: Any, kind: str | None) -> None:
    """Refuse a predictor of another kind than was asked for, or than its bundle says.

    Raises:
        UsageError: see above.
    """
    if getattr(predictor, "kind", None) not in COMMANDS:
        raise UsageError(
            f"{bundle.config('inference')}: `predictor` is a {type(predictor).__name__}, expected one of "
            f"pipeline.inference; restore the bundle's files"
        )
    metadata = bundle.metadata
    references = metadata.get("references")
    if not (isinstance(references, list) and references and all(isinstance(each, str) for each in references)):
        raise UsageError(f"{bundle.config('metadata')}: names no references, expected the papers to cite; add them")
    check_domain(metadata)
    says = _output_type(metadata, next(iter(predictor.networks), MAIN))
    if not isinstance(says, str) or says not in predictor.output_types:
        raise UsageError(
            f"{bundle.config('metadata')}: says that the network puts out {says!r}, but the {predictor.kind} of "
            f"inference.json expects {' or '.join(sorted(predictor.output_types))}; make the two agree"
        )
    for network in predictor.networks.values():
        makes = getattr(network, "output_type", says)
        if makes not in predictor.output_types:
            raise UsageError(
                f"{bundle.config('inference')}: a {type(network).__name__} puts out {makes!r}, expected "
                f"{' or '.join(sorted(predictor.output_types))} for a {predictor.kind}; name a predictor that fits"
            )
    if kind is not None and predictor.kind != kind:
        raise UsageError(
            f"{bundle.name}: is a {predictor.kind}, for `phs-pipeline {COMMANDS[predictor.kind]}`, expected a {kind}; "
            "use that command, or give another bundle with -b"
        )


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a bare state dict.

    Raises:
        UsageError: if the file is missing, damaged, not safe to load, or belongs to another network.
    """
    state = load_tensors(path)
    try:
        network.load_state_dict(state)
        finite = all_finite(state)
        # PyTorch copies whole numbers as if their scale were 1.
        whole = [
            name
            for name, own in network.state_dict().items()
            if own.is_floating_point() and not state[name].is_floating_point()
        ]
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"{path}: the weights belong to another network ({reason[:160]}); use the bundle or run they were "
            "trained in"
        ) from error
    if not finite:
        raise UsageError(f"{path}: found weights that are NaN or infinite, expected numbers; train anew")
    if whole:
        raise UsageError(
            f"{path}: found {str(state[whole[0]].dtype).removeprefix('torch.')} for {whole[0]}, expected floating "
            "point; give the weights as they were before they were quantised"
        )


def _load_export(bundle: Bundle, config_id: str, network: nn.Module, other: Path | None = None) -> None:
    path = other or bundle.weights_of(config_id)
    if not path.is_file():
        raise UsageError(
            f"{bundle.root}: the bundle {bundle.name!r} has no weights yet ({path.name} is missing); "
            f"train it with `phs-pipeline train {bundle.name} --data COHORT -o RUN` and give the run with -b RUN"
        )
    load_weights(network, path)


def _output_type(metadata: Mapping[str, Any], config_id: str) -> Any:
    found: Any = metadata
    about = "network_data_format" if config_id == MAIN else f"{config_id}_data_format"
    for key in (about, "outputs", "pred", "type"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
