"""What a config would execute, held against an allow-list.

MONAI's configs execute what they name as `_target_` and what stands behind `$`, take what a macro (`%`) points to from
other files, and obey `_mode_`. Without being asked, a config, whoever wrote it, may name the classes listed here with
plain values, and the expressions that stand in the configs of our own bundles; nothing else.
"""

import functools
import pydoc
import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.bundles.bundle import Bundle, list_bundles, read_config

# Networks of MONAI that are built from numbers alone. Others take addresses or files of pretrained weights.
MONAI_NETWORKS = frozenset(
    f"monai.networks.nets.{name}"
    for name in (
        *("AttentionUnet", "AutoEncoder", "BasicUNet", "BasicUNetPlusPlus", "Classifier", "Critic", "DenseNet"),
        *("DiffusionModelUNet", "Discriminator", "DynUNet", "EfficientNet", "FullyConnectedNet", "Generator"),
        *("HighResNet", "MultiScalePatchDiscriminator", "PatchDiscriminator", "Regressor", "ResNet", "SegResNet"),
        *("SegResNetVAE", "SENet", "SwinUNETR", "UNETR", "UNet", "VarAutoEncoder", "ViT", "VNet"),
    )
)
INFERERS = frozenset(
    f"{room}{name}"
    for room in ("", "monai.inferers.")
    for name in ("SimpleInferer", "SlidingWindowInferer", "SliceInferer")
)
# What our training configs name beside the project's own classes.
TRAINING = frozenset(
    (
        *("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.RMSprop", "torch.optim.SGD"),
        *(
            f"torch.optim.lr_scheduler.{name}"
            for name in ("ConstantLR", "CosineAnnealingLR", "LambdaLR", "LinearLR", "PolynomialLR", "SequentialLR")
        ),
        *("torch.utils.data.DataLoader", "torch.utils.data.DistributedSampler"),
    )
)
# Rooms whose public classes a config may name: they open no file that the user did not name.
OWN_PARTS = ("pipeline.networks.", "pipeline.preprocessing.grid.", "pipeline.preprocessing.slab.",
    "pipeline.preprocessing.window.", "pipeline.preprocessing.degradation.",
    "pipeline.inference.fill_error.")  # fmt: skip
PREDICTORS = ("pipeline.inference.",)
OWN_TRAINING = (
    *(*OWN_PARTS, *PREDICTORS),
    *("pipeline.methods.", "pipeline.training.", "pipeline.preprocessing.", "pipeline.objectives."),
    *("pipeline.phantoms.lesion_slices.", "pipeline.evaluation.", "pipeline.reports."),
)
# Of an argument: addresses and files are none of a config's business.
OUTSIDE = re.compile(r"pretrain|url|path|file|folder|download|cache|ckpt|checkpoint", re.IGNORECASE)


def is_plain(value: Any) -> bool:
    """Whether a config's value is a setting: no part to build, no reference, no expression."""
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return not isinstance(value, dict) and not (isinstance(value, str) and value.startswith(("$", "@", "%")))


def foreign_code(bundle: Bundle) -> dict[str, str]:
    """What a training with a bundle's configs would execute and none of our bundles' configs do.

    Metadata are parsed with the training config and can be referred to.

    Returns:
        Code by config id; empty for our bundles and for runs of theirs, whatever plain settings were changed.

    Raises:
        UsageError: if a config cannot be read.
    """
    return dict([*_foreign(read_config(bundle.config("train")), "train"), *_foreign(bundle.metadata, "metadata")])


def foreign_part(value: Any, config_id: str) -> Iterator[tuple[str, str]]:
    """What a part of an inference config would execute beyond building the classes of `may_build` from plain values."""
    yield from _foreign(value, config_id, may_build, expressions=frozenset())


def may_build(target: str) -> bool:
    """Whether it names a class that such a config may name: a network, a predictor, or a part of theirs."""
    return target in MONAI_NETWORKS or target in INFERERS or _is_class_of(target, OWN_PARTS) or _is_predictor(target)


def _may_train(target: str) -> bool:
    return may_build(target) or target in TRAINING or _is_class_of(target, OWN_TRAINING)


def _is_class_of(target: str, rooms: tuple[str, ...]) -> bool:
    if not target.startswith(rooms):
        return False
    # The prefix is not enough: pipeline.networks.johnson.torch.hub.load starts with it too.
    found = pydoc.locate(target)
    return isinstance(found, type) and found.__module__.startswith(tuple(room.rstrip(".") for room in rooms))


def _is_predictor(target: str) -> bool:
    """Whether it names a predictor of `pipeline.inference`."""
    return _is_class_of(target, PREDICTORS) and hasattr(pydoc.locate(target), "kind")


@functools.cache
def _our_expressions() -> frozenset[str]:
    configs = [path for bundle in list_bundles() for path in sorted((bundle.root / "configs").glob("*.json"))]
    return frozenset(text for path in configs for text in strings(read_config(path)) if text.startswith("$"))


def strings(value: Any) -> Iterator[str]:
    """All texts in a config's value, however deep."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def _foreign(
    value: Any,
    config_id: str,
    may_name: Callable[[str], bool] = _may_train,
    expressions: frozenset[str] | None = None,
) -> Iterator[tuple[str, str]]:
    known = _our_expressions() if expressions is None else expressions
    if isinstance(value, dict):
        target = value.get("_target_")
        if target is not None and not (isinstance(target, str) and may_name(target)):
            yield f"{config_id}::_target_", str(target)
        for key, item in value.items():
            inner = f"{config_id}::{key}"
            # MONAI reads both as steps of a path, so that what stands under such a key could be taken for another.
            if "::" in key or "#" in key:
                yield inner, "a key with :: or #"
            elif key == "_mode_" or (target is not None and _leads_outside(str(target), key, item)):
                yield inner, str(item)
            else:
                yield from _foreign(item, inner, may_name, known)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _foreign(item, f"{config_id}::{index}", may_name, known)
    elif isinstance(value, str) and (value.startswith("%") or (value.startswith("$") and value not in known)):
        yield config_id, value


def _leads_outside(target: str, argument: str, value: Any) -> bool:
    """Whether an argument of a foreign class names an address or a file; our own classes take the folders of a run."""
    if (
        target.startswith("pipeline.")
        or argument.startswith("_")
        or not isinstance(value, str)
        or value.startswith(("@", "$", "%"))
    ):
        return False
    return bool(OUTSIDE.search(argument)) or "/" in value or "\\" in value
