"""`dataset.json` of nnU-Net and of the Medical Segmentation Decathlon: its channels, and which labels are lesion."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohorts.tree import read_utf8
from pipeline.errors import UsageError

LESION = re.compile(
    r"lesion|tumou?r|cancer|carcino|metasta|edema|oedema|enhanc|necro|infarct|stroke|wmh|hyperintens|plaque|cyst|nodule"
    r"|h(?:a)?emorrh|glio|patholog|abnormal|whole_?\s?tumou?r|core",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Description:
    """What a `dataset.json` says.

    Attributes:
        channels: names of the sequences, in the order of their numbers; empty if it does not say.
        lesion_labels: mask values whose names are of lesions; None if all are, or it does not say; empty if none is.
        notes: what was assumed from the names.
    """

    channels: list[str]
    lesion_labels: tuple[int, ...] | None
    notes: tuple[str, ...] = ()

    def channel(self, modality: str | None, path: Path) -> int:
        """The number of a channel by its name, in upper or lower case, or by its number; the first when None.

        Raises:
            UsageError: if there is no such channel.
        """
        if modality is None:
            return 0
        names = [name.casefold() for name in self.channels]
        if modality.casefold() in names:
            return names.index(modality.casefold())
        if modality.isdecimal() and int(modality) < max(1, len(names)):
            return int(modality)
        known = ", ".join(self.channels) or "none by name"
        raise UsageError(f"{path}: has no channel {modality!r}, found {known}; choose one of them")


def read_description(path: Path) -> Description:
    """Read a `dataset.json`; an absent one says nothing.

    Raises:
        UsageError: if it is malformed.
    """
    if not path.is_file():
        return Description([], None)
    try:
        content = json.loads(read_utf8(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is malformed ({error}), expected JSON; mend it") from error
    return describe(path.name, content if isinstance(content, dict) else {})


def describe(source: str, content: Mapping[str, Any]) -> Description:
    """What the object in a `dataset.json` says."""
    names = content.get("channel_names") or content.get("modality") or {}
    channels = [str(names[key]) for key in sorted(names, key=str)] if isinstance(names, dict) else []
    labels = _labels(content.get("labels"))
    lesions = {name: values for name, values in labels.items() if LESION.search(name)}
    if not labels or lesions.keys() == labels.keys():
        return Description(channels, None)
    taken = tuple(sorted({value for values in lesions.values() for value in values}))
    if not taken:
        return Description(channels, ())
    said = ", ".join(f"{name!r} ({', '.join(map(str, values))})" for name, values in lesions.items())
    return Description(channels, taken, (f"{source}: of its labels, {said} was taken as lesion",))


def _labels(found: Any) -> dict[str, tuple[int, ...]]:
    """Values by name, background left out: the Decathlon maps values to names, nnU-Net names to values or regions."""
    labels: dict[str, tuple[int, ...]] = {}
    for key, value in found.items() if isinstance(found, dict) else ():
        if str(key).isdecimal():
            name = str(value)
            values: tuple[int, ...] = (int(key),)
        else:
            name = str(key)
            values = tuple(int(v) for v in (value if isinstance(value, list) else [value]) if str(v).isdecimal())
        if values and values != (0,) and name.casefold() not in {"background", "ignore"}:
            labels[name] = values
    return labels
