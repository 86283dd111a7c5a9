"""Bundles and runs: where they are, what they hold, and the network in them.

A run of `phs-pipeline train` is itself a bundle: `configs/`, `models/model.pt`, `docs/`. Networks are built from the
`network_def` of `inference.json` without evaluating any expression and from this project's and MONAI's classes only,
so a bundle from elsewhere cannot execute code here. Training executes what `train.json` says: without being asked, only
what a bundle of ours says at the same place (`foreign_code`).
"""

import json
import pydoc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import sha256

NETWORKS = ("pipeline.networks.", "monai.networks.nets.")
UNLESS = "with your rights unless you give --trust-bundle, because you trust who wrote it"
PARTS = (
    "pipeline.preprocessing.grid.Grid",
    "pipeline.preprocessing.slab.Slab",
    "pipeline.preprocessing.window.WindowRule",
)


@dataclass(frozen=True)
class Bundle:
    """A folder in the MONAI bundle layout.

    Args:
        root: the folder.
        name: of the bundle; of a run, the bundle it was trained from.
    """

    root: Path
    name: str

    @property
    def weights(self) -> Path:
        """Bare state dict of `network_def`."""
        return self.root / "models" / "model.pt"

    def config(self, name: str) -> Path:
        """A config file, for example `train`."""
        return self.root / "configs" / f"{name}.json"

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of `metadata.json`."""
        return read_config(self.config("metadata"))

    @property
    def presets(self) -> list[str]:
        """Names of the settings that can be laid over the defaults, for example `laptop`."""
        known = {"train", "inference", "evaluate", "multi_gpu_train", "metadata"}
        return sorted(path.stem for path in (self.root / "configs").glob("*.json") if path.stem not in known)


def bundles_folder() -> Path:
    """The folder of the bundles: in an installed wheel inside the package, in a checkout beside it."""
    package = Path(__file__).parent
    installed = package / "_bundles"
    return installed if installed.is_dir() else package.parent / "bundles"


def list_bundles() -> list[Bundle]:
    """The bundles that come with the project."""
    roots = sorted(path.parent.parent for path in bundles_folder().glob("*/configs/metadata.json"))
    return [Bundle(root, root.name) for root in roots]


def find_bundle(name_or_path: str) -> Bundle:
    """A bundle by name, or a bundle or run by path.

    Raises:
        UsageError: if there is none; it lists the known ones.
    """
    known = {bundle.name: bundle for bundle in list_bundles()}
    if name_or_path in known:
        return known[name_or_path]
    root = Path(name_or_path)
    if (root / "configs" / "inference.json").is_file():
        bundle = Bundle(root, root.name)
        return Bundle(root, str(bundle.metadata.get("name", root.name)))
    raise UsageError(
        f"{name_or_path}: no bundle of that name and no folder with configs/inference.json; known bundles: "
        f"{', '.join(sorted(known)) or 'none'}, or give the folder of a training run"
    )


def read_config(path: Path) -> dict[str, Any]:
    """A JSON config.

    Raises:
        UsageError: if it cannot be read as a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no readable JSON config ({error}); restore the bundle's files") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: found {type(content).__name__}, expected a JSON object; restore the bundle's files")
    return content


def is_plain(value: Any) -> bool:
    """Whether a config's value is a setting: no part to build, no reference, no expression."""
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return not isinstance(value, dict) and not (isinstance(value, str) and value.startswith(("$", "@", "%")))


def foreign_code(bundle: Bundle) -> dict[str, str]:
    """What a training with a bundle's configs would execute and no bundle of ours executes at the same place.

    Beside expressions, a config executes what it names as `_target_`, and what a macro (`%`) takes from other files.
    Metadata are parsed with it and can be referred to.

    Returns:
        Code by config id, without what the most similar of our bundles has; empty for our bundles and for runs of
        theirs, whatever plain settings were changed.

    Raises:
        UsageError: if a config cannot be read.
    """
    code = _code(read_config(bundle.config("train")))
    ours = [_code(read_config(known.config("train"))) for known in list_bundles()]
    foreign = ({place: text for place, text in code.items() if known.get(place) != text} for known in ours)
    return min(foreign, key=len, default=code) | _code(bundle.metadata, "metadata")


def _code(value: Any, place: str = "") -> dict[str, str]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found: dict[str, str] = {}
        for key, item in items:
            inner = f"{place}::{key}" if place else str(key)
            # Whatever stands there is looked up or obeyed, text or not.
            found |= {inner: str(item)} if key in ("_target_", "_mode_") else _code(item, inner)
        return found
    return {place: value} if isinstance(value, str) and value.startswith(("$", "%")) else {}


def load_synthesizer(
    bundle: Bundle, device: str = "auto", batch_size: int | None = None, trust: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The trained model of a bundle or run.

    Args:
        bundle: with weights.
        device: as for `pick_device`.
        batch_size: slices at once; None takes the config's.
        trust: run the code in its inference config; weights are loaded safely all the same.

    Returns:
        A `pipeline.inference.Translator`, and the provenance for sidecars: bundle, version, hashes of weights and
        config.

    Raises:
        UsageError: if the bundle has no weights, they do not fit, or its config asks for more than a network.
    """
    if not bundle.weights.is_file():
        raise UsageError(
            f"{bundle.root}: the bundle {bundle.name!r} has no weights yet ({bundle.weights.name} is missing); "
            f"train it with `phs-pipeline train {bundle.name} --data COHORT -o RUN` and give the run with -b RUN"
        )
    parts = build(bundle, ("network_def", "grid", "window", "slab", "batch_size"), trust)

    from pipeline.devices import pick_device
    from pipeline.inference import Translator, load_weights

    load_weights(parts["network_def"], bundle.weights)
    synthesizer = Translator(
        network=parts["network_def"],
        grid=parts["grid"],
        window=parts["window"],
        slab=parts["slab"],
        device=pick_device(device),
        batch_size=batch_size or parts["batch_size"],
    )
    provenance = {
        "Bundle": bundle.name,
        "BundleVersion": bundle.metadata.get("version"),
        "WeightsSha256": sha256(bundle.weights),
        "ConfigSha256": sha256(bundle.config("inference")),
    }
    return synthesizer, provenance


def load_cycle(bundle: Bundle, trust: bool = False) -> Any:
    """The way back of a run whose method has one: a module from (pseudo-healthy, pathological) images; else None.

    Raises:
        UsageError: as `load_synthesizer`.
    """
    weights = bundle.weights.with_name("cycle.pt")
    if "cycle_def" not in read_config(bundle.config("inference")) or not weights.is_file():
        return None
    cycle = build(bundle, ("cycle_def",), trust)["cycle_def"]

    from pipeline.inference import load_weights

    load_weights(cycle, weights)
    return cycle


def build(bundle: Bundle, ids: tuple[str, ...], trust: bool = False) -> dict[str, Any]:
    """Build parts of a bundle's inference config, without evaluating expressions unless `trust` says so.

    Raises:
        UsageError: if a part contains an expression or names a class that is not a network, grid or window.
    """
    from monai.bundle import ConfigParser

    path = bundle.config("inference")
    config = read_config(path)
    wanted = {key: config[key] for key in config if key in _needed(config, ids, path)}
    if not trust:
        for key, value in wanted.items():
            _refuse_code(value, f"{path}: {key}")
    parser = ConfigParser(config if trust else wanted)
    try:
        if trust and "imports" in config:
            parser.get_parsed_content("imports")
        return {key: parser.get_parsed_content(key) for key in ids}
    except Exception as error:  # whatever a constructor raises for the values in the file
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path}: the config does not describe a network we can build ({reason})") from error


def _needed(config: dict[str, Any], ids: tuple[str, ...], path: Path) -> set[str]:
    """The ids, and all that they refer to."""
    needed: set[str] = set()
    waiting = list(ids)
    while waiting:
        key = waiting.pop()
        if key in needed:
            continue
        if key not in config:
            raise UsageError(f"{path}: has no {key!r}, expected it in a bundle of ours; restore the bundle's files")
        needed.add(key)
        waiting += [text[1:].split("::")[0] for text in _strings(config[key]) if text.startswith("@")]
    return needed


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def _refuse_code(value: Any, where: str) -> None:
    if isinstance(value, dict):
        target = value.get("_target_")
        if "_mode_" in value or (target is not None and not _is_trusted(str(target))):
            raise UsageError(
                f"{where}: names {target!r}, expected a network of pipeline or MONAI; code from a bundle is not run "
                f"{UNLESS}"
            )
        for item in value.values():
            _refuse_code(item, where)
    elif isinstance(value, list):
        for item in value:
            _refuse_code(item, where)
    elif isinstance(value, str) and value.startswith(("$", "%")):
        raise UsageError(
            f"{where}: contains the expression {value!r}, expected plain values; code from a bundle is not run {UNLESS}"
        )


def _is_trusted(target: str) -> bool:
    """Whether it names a network class, a grid or a window rule."""
    if target in PARTS:
        return True
    if not target.startswith(NETWORKS):
        return False
    from torch import nn

    # The prefix is not enough: pipeline.networks.johnson.torch.hub.load starts with it too.
    found = pydoc.locate(target)
    return isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(NETWORKS)
