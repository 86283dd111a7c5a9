"""A bundle's networks without this package: TorchScript, ONNX, and a folder that MONAI's own command runs."""

import importlib.util
import io
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.bundles import COMMANDS, Bundle, kind_of, predictors, refuse_links
from pipeline.bundles.bundle import MAIN
from pipeline.errors import UsageError, first_line
from pipeline.files import require_empty, sha256, write_json, written_aside
from pipeline.inference.exported_config import NEEDED, inference_config
from pipeline.inference.load import load_predictor, provenance
from pipeline.inference.sampler import Sampler
from pipeline.networks.dcgan import CLASSES
from pipeline.preprocessing.grid import Grid

# Of the range of a network's values, at least 1.
TOLERANCE = 1e-5
EXTRA = ("onnx", "onnxscript", "onnxruntime")
RECORD = "export.json"
# How metadata begin to say what a channel is that holds nothing but 0 and 1.
BINARY = ("hole", "mask", "lesion mask", "pathology mask")
COPIED = ("LICENSE", "docs/README.md", "docs/*.png", "docs/data_license.txt")


@dataclass(frozen=True)
class Exported:
    """One file, and how far what it puts out is from the bundle's own network.

    Attributes:
        path: from the folder.
        shapes: of the inputs that were compared.
        difference: the largest, over all of them.
    """

    path: str
    shapes: tuple[tuple[int, ...], ...]
    difference: float


@dataclass(frozen=True)
class _Part:
    """A network to export.

    Attributes:
        name: of its files, without suffix.
        kind: of predictor that runs it.
        network: with its weights, in use (`eval`).
        about: its inputs and outputs, in the words of MONAI's metadata.
        shapes: of inputs that it takes, another one each.
    """

    name: str
    kind: str
    network: nn.Module
    about: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]


def export(bundle: Bundle, folder: Path, onnx: bool = True, trust: bool = False) -> list[Exported]:
    """Write the networks that a bundle's predictors run, each compared with the original at several sizes.

    The folder is a MONAI bundle that needs MONAI and no code of ours: `models/model.ts` (TorchScript) and
    `models/model.onnx` (batch and size are dynamic), `configs/inference.json`, which applies the main network to
    images on its grid, metadata, model card and licences. `export.json` records versions, hashes and the comparison.

    Args:
        bundle: with weights.
        folder: to write; must not exist or be empty.
        onnx: write ONNX too.
        trust: run the code in its inference config.

    Raises:
        UsageError: if the bundle has no network or no weights, a network cannot be exported or makes something else
            afterwards, a package is missing, or the folder holds something.
    """
    require_empty(folder, remedy="choose another folder")
    if onnx:
        _require_extra()
    refuse_links(bundle)
    parts = _parts(bundle, trust)
    with written_aside(folder) as aside:
        (aside / "models").mkdir(parents=True)
        (aside / "configs").mkdir()
        about = _metadata(bundle, parts)
        exported = [
            made
            for part in parts
            for made in (_torchscript(part, aside, about), *([_onnx(part, aside)] if onnx else []))
        ]
        write_json(aside / "configs" / "metadata.json", about)
        main = parts[0]
        write_json(
            aside / "configs" / "inference.json",
            inference_config(main.kind, main.about, main.shapes[0], f"models/{main.name}.ts"),
        )
        for path in (path for pattern in COPIED for path in bundle.root.glob(pattern)):
            kept = aside / path.relative_to(bundle.root)
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, kept)
        _record(bundle, aside, exported)
    return exported


def _require_extra() -> None:
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"ONNX: {', '.join(missing)} is not installed; pip install 'phs-pipeline[export]', or give --no-onnx"
        )


def _parts(bundle: Bundle, trust: bool) -> list[_Part]:
    """The networks of a bundle's predictors, the main one first; of one with a network a modality, each."""
    metadata = bundle.metadata
    found: list[_Part] = []
    for kind in sorted(predictors(bundle), key=lambda kind: kind != kind_of(bundle)):
        predictor, _ = load_predictor(bundle, kind, "cpu", trust=trust)
        for config_id, network in predictor.networks.items():
            key = "network_data_format" if config_id == MAIN else f"{config_id}_data_format"
            about = metadata.get(key, {})
            name = "model" if config_id == MAIN else config_id.removesuffix("_def")
            if name in {part.name for part in found}:  # two predictors may run one network
                continue
            members = dict(network.items()) if isinstance(network, nn.ModuleDict) else {"": network}
            shapes = _shapes(bundle, about, predictor)
            found += [
                _Part("-".join(filter(None, (name, member))), kind, module.eval(), about, shapes)
                for member, module in members.items()
            ]
    if not found:
        raise UsageError(
            f"{bundle.name}: has no network, expected one to export; `phs-pipeline {COMMANDS[kind_of(bundle)]} -b "
            f"{bundle.name}` needs none"
        )
    return found


def _shapes(bundle: Bundle, about: Mapping[str, Any], predictor: Any) -> tuple[tuple[int, ...], ...]:
    """Shapes of inputs, of several batches and sizes: canvases of a predictor's grid and larger, or latents."""
    path = bundle.config("metadata")
    inputs = about.get("inputs", {})
    if set(inputs) != {"image"}:
        raise UsageError(
            f"{path}: the network takes {', '.join(inputs) or 'nothing that it names'}, expected one input, image; a "
            "network of several cannot be exported"
        )
    if isinstance(predictor, Sampler):
        if predictor.condition == "mask":
            raise UsageError(
                f"{path}: the generator takes a mask beside noise, expected one input; it cannot be exported"
            )
        return tuple((batch, _length(predictor)) for batch in (2, 1, 3))
    grid = predictor.runner.grid
    if not isinstance(grid, Grid):
        raise UsageError(f"{path}: the network takes whole volumes, expected slices; it cannot be exported")
    height, width = grid.size
    larger = ((2, height, width), (1, height + grid.stride, width), (3, height, width + 2 * grid.stride))
    return tuple((batch, inputs["image"]["num_channels"], *size) for batch, *size in larger)


def _length(sampler: Sampler) -> int:
    """Numbers that a generator takes: its noise, and behind it one for each class."""
    return sampler.latent + (len(CLASSES) if sampler.condition == "class" else 0)


def _torchscript(part: _Part, folder: Path, about: Mapping[str, Any]) -> Exported:
    path = f"models/{part.name}.ts"
    try:
        script = torch.jit.script(part.network)
        whole = io.BytesIO()
        monai.data.save_net_with_metadata(script, whole, include_config_vals=False, meta_values=about)
        _without_sources(whole, folder / path)
    except (RuntimeError, OSError) as error:
        raise _impossible(part, "TorchScript", error) from error
    loaded = torch.jit.load(str(folder / path))
    return _compared(part, path, loaded)


def _without_sources(archive: io.BytesIO, path: Path) -> None:
    """Write a TorchScript archive without the parts that name the source's paths on this machine."""
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(path, "w") as kept:
        for part in whole.infolist():
            if not part.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(part.filename), whole.read(part))


def _onnx(part: _Part, folder: Path) -> Exported:
    import onnxruntime

    path = f"models/{part.name}.onnx"
    axes = {2: "height", 3: "width"} if len(part.shapes[0]) == 4 else {}
    # Of packages that the exporter does without; torch sets the level anew when it is imported.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        program: Any = torch.onnx.export(
            part.network,
            (torch.rand(part.shapes[0]),),
            input_names=["image"],
            output_names=["pred"],
            dynamic_shapes=({0: "batch", **axes},),
            dynamo=True,
            verbose=False,
        )
        # Where each step stands in the source, with the paths of this machine.
        for node in program.model.graph:
            node.metadata_props.clear()
        program.save(str(folder / path))
    except Exception as error:  # whatever the exporter raises for a network that it does not know
        raise _impossible(part, "ONNX", error) from error
    session = onnxruntime.InferenceSession(str(folder / path), providers=["CPUExecutionProvider"])
    return _compared(part, path, lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]))


def _impossible(part: _Part, what: str, error: Exception) -> UsageError:
    remedy = "give --no-onnx" if what == "ONNX" else "use the bundle itself, with phs-pipeline or monai.bundle"
    return UsageError(
        f"{part.name}: a {type(part.network).__name__} cannot be written as {what} ({first_line(error)}); {remedy}"
    )


@torch.inference_mode()
def _compared(part: _Part, path: str, exported: Any) -> Exported:
    """How far an exported network is from the original, on random images in [0, 1] or latents of N(0, I).

    A channel that metadata call a hole or a mask is 0 or 1, as it is in use.
    """
    meanings = part.about["inputs"]["image"].get("channel_def", {})
    binary = [int(channel) for channel, meaning in meanings.items() if str(meaning).startswith(BINARY)]
    draw = torch.Generator().manual_seed(0)
    largest = 0.0
    for shape in part.shapes:
        image = torch.rand(shape, generator=draw) if len(shape) > 2 else torch.randn(shape, generator=draw)
        for channel in binary:
            image[:, channel] = (image[:, channel] > 0.98).to(image.dtype)
        wanted: Tensor = part.network(image)
        made: Tensor = exported(image)
        if made.shape != wanted.shape:
            raise UsageError(f"{path}: puts out {tuple(made.shape)} for {shape}, expected {tuple(wanted.shape)}")
        difference = float((made - wanted).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise UsageError(
                f"{path}: differs by {difference:.2g} for an input of {shape}, expected what the network itself makes; "
                "a network that draws at random cannot be exported"
            )
        largest = max(largest, difference)
    return Exported(path, part.shapes, largest)


def _metadata(bundle: Bundle, parts: Sequence[_Part]) -> dict[str, Any]:
    """The bundle's metadata without what they say of other networks, and without this package among what is needed."""
    metadata = bundle.metadata
    kept = {key: value for key, value in metadata.items() if not key.endswith("_data_format")}
    needed = metadata.get("required_packages_version", {})
    return {
        **kept,
        "name": bundle.name,
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {name: needed[name] for name in NEEDED if name in needed},
        "supported_apps": {},
        "network_data_format": parts[0].about,
    }


def _record(bundle: Bundle, folder: Path, exported: Sequence[Exported]) -> None:
    files = {
        made.path: {
            "Sha256": sha256(folder / made.path),
            "ComparedShapes": [list(shape) for shape in made.shapes],
            "LargestDifference": made.difference,
        }
        for made in exported
    }
    write_json(folder / RECORD, {**provenance(bundle), "Files": files})
