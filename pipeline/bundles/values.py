"""The plain values of a config, held against what the classes that it names say they take."""

import inspect
import json
import pydoc
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.bundles.code import is_plain

STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
MOST_REFERENCES = 100


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse plain values of another type than the classes of ours that take them declare, NaN and infinity.

    Ranges and words are told by the classes themselves. What is an expression, or is built, is not looked at.

    Raises:
        ValueError: at the first such value, by its config id.
    """
    for config_id, target, argument, value in _arguments(config, config, ""):
        declared = _declared(target)
        problem = _problem(declared[argument], value) if argument in declared else None
        if problem:
            raise ValueError(f"{config_id}: found {str(value)[:80]!r}, which {problem}")


def _problem(declared: Any, value: Any) -> str | None:
    """What a value should be; None where it is. Words that are none of a few are told by the class."""
    try:
        TypeAdapter(declared, config=STRICT).validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        told = first["type"] == "literal_error" and isinstance(value, str)
        return None if told else first["msg"].removeprefix("Input ")
    return None


def _arguments(config: Mapping[str, Any], value: Any, config_id: str) -> Iterator[tuple[str, str, str, Any]]:
    """Config id, class, name and value of each plain argument of a class of ours; references are followed."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return
    target = value.get("_target_")
    for key, item in value.items():
        inner = f"{config_id}::{key}" if config_id else str(key)
        found = followed(config, item)
        if isinstance(target, str) and target.startswith("pipeline.") and is_plain(found):
            yield inner, target, key, found
        yield from _arguments(config, item, inner)


def followed(config: Mapping[str, Any], value: Any) -> Any:
    """What a reference leads to; the reference itself where it leads nowhere."""
    for _ in range(MOST_REFERENCES):
        if not (isinstance(value, str) and value.startswith("@")):
            break
        found: Any = config
        for step in value[1:].split("::"):
            found = found.get(step, value) if isinstance(found, dict) else value
        if found == value:
            break
        value = found
    return value


def _declared(target: str) -> Mapping[str, Any]:
    """The types of a class's arguments that it declares."""
    found = pydoc.locate(target)
    if not inspect.isclass(found):
        return {}
    return typing.get_type_hints(found.__init__)
