"""A folder in the MONAI bundle layout, and where such folders are.

A run of `phs-pipeline train` is itself a bundle: `configs/`, `models/model.pt`, `docs/`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import small_text

SETTINGS = ("train", "inference", "evaluate", "multi_gpu_train", "metadata")
MAIN = "network_def"


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
        """Bare state dict of `network_def`, the main export."""
        return self.weights_of(MAIN)

    def weights_of(self, config_id: str) -> Path:
        """Bare state dict of an export by its id in the configs, for example `cycle_def`."""
        name = "model" if config_id == MAIN else config_id.removesuffix("_def")
        return self.root / "models" / f"{name}.pt"

    def config(self, name: str) -> Path:
        """A config file, for example `train`."""
        return self.root / "configs" / f"{name}.json"

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of `metadata.json`."""
        return read_config(self.config("metadata"))

    @property
    def trainable(self) -> bool:
        """Whether there is anything to train: a fill that solves an equation has no weights."""
        return self.config("train").is_file()

    @property
    def presets(self) -> list[str]:
        """Names of the settings that can be laid over the defaults, for example `laptop`."""
        return sorted(path.stem for path in (self.root / "configs").glob("*.json") if path.stem not in SETTINGS)


def bundles_folder() -> Path:
    """The folder of the bundles: in an installed wheel inside the package, in a checkout beside it."""
    package = Path(__file__).parent.parent
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
        return Bundle(root, str(bundle.metadata.get("name", root.absolute().name)))
    raise UsageError(
        f"{name_or_path}: no bundle of that name and no folder with configs/inference.json; known bundles: "
        f"{', '.join(sorted(known)) or 'none'}, or give the folder of a training run"
    )


def find_parts(name_or_path: str) -> list[Bundle]:
    """The bundle of that name or path, or those of `SEGMENTER+FILLER`, which work one after the other.

    Raises:
        UsageError: as `find_bundle`.
    """
    pieces = name_or_path.split("+")
    if len(pieces) == 1 or _is_bundle(name_or_path):
        return [find_bundle(name_or_path)]
    # A path may hold a + of its own.
    pairs = [("+".join(pieces[:place]), "+".join(pieces[place:])) for place in range(1, len(pieces))]
    pair = next((pair for pair in pairs if all(map(_is_bundle, pair))), pairs[-1])
    return [find_bundle(part) for part in pair]


def _is_bundle(name_or_path: str) -> bool:
    known = {bundle.name for bundle in list_bundles()}
    return name_or_path in known or (Path(name_or_path) / "configs" / "inference.json").is_file()


def refuse_links(bundle: Bundle) -> None:
    """Refuse links that lead out of a bundle whose files are to be copied: they may lead to anybody's.

    Raises:
        UsageError: if there is one.
    """
    links = [path for part in ("configs", "docs", "LICENSE") for path in _with_all_below(bundle.root / part)]
    for path in links:
        if path.is_symlink() and not path.resolve().is_relative_to(bundle.root.resolve()):
            raise UsageError(f"{path}: is a link that leads out of the bundle, expected its files; put the file there")


def _with_all_below(path: Path) -> list[Path]:
    return [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]


def read_config(path: Path) -> dict[str, Any]:
    """A JSON config.

    Raises:
        UsageError: if it cannot be read as a JSON object.
    """
    try:
        content = json.loads(small_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: no readable JSON config ({error}); restore the bundle's files") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: found {type(content).__name__}, expected a JSON object; restore the bundle's files")
    return content
