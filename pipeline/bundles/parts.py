"""Building what an inference config describes, without executing any code of it."""

from collections.abc import Mapping
from typing import Any

from pipeline.bundles.bundle import Bundle, read_config
from pipeline.bundles.code import foreign_part, strings
from pipeline.errors import PipelineError, UsageError

UNLESS = "with your rights unless you give --trust-bundle, because you trust who wrote it"
# The command that each kind of predictor is for.
COMMANDS = {
    "translator": "synthesize",
    "filler": "fill",
    "segmenter": "segment",
    "scorer": "predict",
    "sampler": "sample",
}


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
    parser = ConfigParser(config if trust else wanted)
    try:
        if trust and "imports" in config:
            parser.get_parsed_content("imports")
        return {key: parser.get_parsed_content(key) for key in ids}
    except PipelineError:
        raise
    except Exception as error:  # whatever a constructor raises for the values in the file
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path}: the config does not describe a predictor we can build ({reason})") from error


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
