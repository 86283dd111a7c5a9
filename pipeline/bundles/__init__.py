"""Bundles and runs: where they are, what they hold and make, and building that safely."""

from pipeline.bundles.bundle import (
    Bundle,
    bundles_folder,
    find_bundle,
    find_parts,
    list_bundles,
    read_config,
    refuse_links,
)
from pipeline.bundles.code import foreign_code, is_plain
from pipeline.bundles.parts import COMMANDS, build, check_sizes, kind_of, predictors
from pipeline.bundles.values import check_values, followed

__all__ = [
    "COMMANDS",
    "Bundle",
    "build",
    "bundles_folder",
    "check_sizes",
    "check_values",
    "find_bundle",
    "find_parts",
    "followed",
    "foreign_code",
    "is_plain",
    "kind_of",
    "list_bundles",
    "predictors",
    "read_config",
    "refuse_links",
]
