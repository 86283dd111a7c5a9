"""Building what an inference config describes, without executing any code of it."""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundles.bundle import Bundle, read_config
from pipeline.bundles.code import PREDICTORS, foreign_part, strings
from pipeline.bundles.values import check_values
from pipeline.errors import PipelineError, UsageError, first_line

if TYPE_CHECKING:
    from monai.bundle import ComponentLocator

UNLESS = "with your rights unless you give --trust-bundle, because you trust who wrote it"
# Of channels, blocks and other sizes of a network.
LARGEST = 4096
MOST = {"layers": 20_000, "parameters": 1_000_000_000}
# What gives a tensor its first values.
DRAWS = frozenset({"normal_", "uniform_", "fill_", "zero_"})
# The command that each kind of predictor is for.
COMMANDS = {
    "translator": "synthesize",
    "filler": "fill",
    "segmenter": "segment",
    "scorer": "predict",
    "modality translator": "translate",
    "restorer": "restore",
    "sampler": "sample",
}
# The kind of each predictor by its class, which says so too: a list of bundles is told without importing torch.
KINDS = {
    "AnomalySegmenter": "segmenter",
    "AnomalyScorer": "scorer",
    "Translator": "translator",
    "FoundFiller": "translator",
    "Filler": "filler",
    "HarmonicFiller": "filler",
    "ResidualFiller": "filler",
    "Segmenter": "segmenter",
    "Scorer": "scorer",
    "ModalityTranslator": "modality translator",
    "Restorer": "restorer",
    "Sampler": "sampler",
}


def kind_of(bundle: Bundle) -> str:
    """The kind of predictor that a bundle's inference config names, one of `COMMANDS`; nothing is imported or built.

    Raises:
        UsageError: if it names none.
    """
    path = bundle.config("inference")
    predictor = read_config(path).get("predictor")
    kind = _kind(predictor)
    if kind is None:
        target = predictor.get("_target_") if isinstance(predictor, dict) else None
        raise UsageError(f"{path}: `predictor` is {target!r}, expected a class of pipeline.inference; restore the file")
    return kind


def predictors(bundle: Bundle) -> dict[str, str]:
    """Config id of a bundle's predictor of each kind of ours: the main one's, and those of others beside it."""
    config = read_config(bundle.config("inference"))
    found: dict[str, str] = {}
    for config_id in ("predictor", *config):
        kind = _kind(config.get(config_id))
        if kind is not None:
            found.setdefault(kind, config_id)
    return found


def _kind(part: Any) -> str | None:
    target = part.get("_target_") if isinstance(part, dict) else None
    return KINDS.get(target.rpartition(".")[2]) if isinstance(target, str) and target.startswith(PREDICTORS) else None


def build(
    bundle: Bundle, ids: tuple[str, ...], trust: bool = False, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Build parts of a bundle's inference config, without evaluating expressions unless `trust` says so.

    Args:
        bundle: whose config.
        ids: of the parts.
        trust: run the code in it.
        given: values to take instead of the config's.

    Raises:
        UsageError: if a part contains an expression or names a class that is none of ours or of MONAI's that are
            allowed, or a value in it is refused.
    """
    from monai.bundle import ConfigParser

    path = bundle.config("inference")
    config = read_config(path) | dict(given or {})
    wanted = {key: config[key] for key in config if key in _needed(config, ids, path)}
    if not trust:
        for key, value in wanted.items():
            for config_id, text in foreign_part(value, key):
                raise UsageError(
                    f"{path}: {config_id}: found {text[:160]!r}, expected plain values and classes of pipeline or "
                    f"MONAI that need nothing else; code from a bundle is not run {UNLESS}"
                )
    check_sizes(config, [key for key in wanted if key.endswith("_def")], path)
    parser = ConfigParser(config if trust else wanted)
    if not trust:  # else modules of the config's may come to MONAI's
        parser.locator = _locator()
    try:
        check_values(wanted)
        if trust and "imports" in config:
            parser.get_parsed_content("imports")
        return {key: parser.get_parsed_content(key) for key in ids}
    except PipelineError:
        raise
    except Exception as error:  # whatever a constructor raises for the values in the file
        reason = first_line(error.__cause__ or error)
        raise UsageError(f"{path}: the config does not describe a predictor we can build ({reason})") from error


@functools.cache
def _locator() -> "ComponentLocator":
    """MONAI's table of its classes by their short names, which each parser else makes anew in a tenth of a second."""
    from monai.bundle import ComponentLocator

    return ComponentLocator()


def check_sizes(config: Mapping[str, Any], networks: Iterable[str], path: Path) -> None:
    """Refuse a network that would take minutes or all memory to build.

    Args:
        config: that describes it.
        networks: their ids.
        path: of the config, for the message.

    Raises:
        UsageError: if a size is beyond `LARGEST`, or a network has more layers or parameters than `MOST`.
    """
    import torch
    from monai.bundle import ConfigParser

    for network in networks:
        needed = _needed(config, (network,), path)
        for key in needed:
            for number in _whole_numbers(config[key]):
                if not abs(number) <= LARGEST:
                    raise UsageError(f"{path}: {key}: found {number}, expected a size of at most {LARGEST}")
        if any(text.startswith("$") for key in needed for text in strings(config[key])):
            continue
        parser = ConfigParser({key: config[key] for key in needed})
        parser.locator = _locator()
        # On this device tensors have a size and no memory; building it in earnest says what is wrong with it.
        with _counted() as counts, contextlib.suppress(Exception), torch.device("meta"), _undrawn():
            parser.get_parsed_content(network)
        for what, most in MOST.items():
            if counts[what] > most:
                raise UsageError(
                    f"{path}: {network}: found a network of {counts[what]} {what}, expected at most {most}"
                )


def _undrawn() -> contextlib.AbstractContextManager[Any]:
    """Leave out the first values of tensors, which a device without memory draws in Python, for seconds."""
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if args and (getattr(func, "__module__", "") == "torch.nn.init" or func.__name__ in DRAWS):
                return args[0]
            return func(*args, **(kwargs or {}))

    return Undrawn()


@contextlib.contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Count layers and parameters of what the block builds, and stop it where they are too many."""
    from torch.nn.modules import module

    counts: Counter[str] = Counter()

    def count(what: str, number: int) -> None:
        counts[what] += number
        if counts[what] > MOST[what]:
            raise OverflowError(what)

    hooks = (
        module.register_module_module_registration_hook(lambda *_: count("layers", 1)),
        module.register_module_parameter_registration_hook(
            lambda _module, _name, parameter: count("parameters", 0 if parameter is None else parameter.numel())
        ),
    )
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(item)
    elif isinstance(value, int):
        yield value


def _needed(config: Mapping[str, Any], ids: tuple[str, ...], path: Any) -> set[str]:
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
        waiting += [text[1:].split("::")[0] for text in strings(config[key]) if text.startswith("@")]
    return needed
