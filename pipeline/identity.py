"""By what a result of ours is known: the sidecar beside it, which names this software as its maker.

A sidecar may come from anywhere: it is read up to a limit, and what it says is made safe before it is printed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import small_text

NAME = "phs-pipeline"
TEXT_LIMIT = 300
MODEL = ("Bundle", "BundleVersion", "WeightsSha256", "ConfigSha256")


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar of ours says.

    Args:
        content: all of it.
        outputs: files by their names relative to the sidecar's folder, and their SHA-256.
    """

    content: Mapping[str, Any]
    outputs: Mapping[str, Any]

    @property
    def source(self) -> tuple[str, str]:
        """Name and SHA-256 of the scan that the outputs were made from; empty where they are not recorded."""
        source = facts(self.content).get("Source")
        known = source if isinstance(source, dict) else {}
        return plain(known.get("Name", "")), plain(known.get("Sha256", ""))

    def account(self) -> list[str]:
        """From what, by what and with what settings the outputs were made, a line each."""
        name, digest = self.source
        source = f"source: {name or 'unknown'}, SHA-256 {digest or 'unknown'}"
        if facts(self.content).get("Source", "") is None:  # recorded, by a sampler
            source = "source: no scan"
        known = {key: plain(facts(self.content).get(key, "unknown")) for key in MODEL}
        version = plain(_ourselves(self.content)[0].get("Version", "unknown"))
        request = self.content.get("Request")
        settings = request if isinstance(request, dict) else {}
        chosen = [f"{plain(key)} {plain(settings[key])}" for key in settings if key not in ("Source", *MODEL)]
        return [
            source,
            f"model: {known['Bundle']} {known['BundleVersion']}, by {NAME} {version}",
            f"weights: SHA-256 {known['WeightsSha256']}; config: SHA-256 {known['ConfigSha256']}",
            f"settings: {', '.join(chosen) or 'unknown'}",
        ]


def read_sidecar(path: Path) -> Sidecar | None:
    """A sidecar of ours; None for any other file, however large or broken."""
    try:
        text = small_text(path)
        # Most JSON files in the world are not ours, and finding a word is faster than parsing.
        content = json.loads(text) if NAME in text else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    outputs = content.get("Outputs")
    return Sidecar(content, outputs) if made_by_us(content) and isinstance(outputs, dict) else None


def facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a sidecar together with those of what was asked for, where it keeps bundle, hashes and source."""
    request = content.get("Request")
    return {**(request if isinstance(request, dict) else {}), **content}


def plain(value: Any) -> str:
    """A value of a sidecar as text that is safe to print: one line, of limited length, no control characters."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "…"
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: TEXT_LIMIT + 1])
    return shown if len(shown) <= TEXT_LIMIT else f"{shown[:TEXT_LIMIT]}…"


def made_by_us(content: Mapping[str, Any]) -> bool:
    """Whether a sidecar, or the description of a BIDS dataset, names this software as its maker."""
    return bool(_ourselves(content))


def _ourselves(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    makers = content.get("GeneratedBy")
    listed = makers if isinstance(makers, list) else []
    return [maker for maker in listed if isinstance(maker, dict) and maker.get("Name") == NAME]
