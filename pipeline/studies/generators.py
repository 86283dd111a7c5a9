"""Generators for shares of the training patients: none learns from more labels than the segmentors that it serves."""

import logging
from pathlib import Path

from pipeline.bundles import Bundle, read_config
from pipeline.errors import UsageError
from pipeline.files import read_json, sha256
from pipeline.launch import RECORD
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.studies.training import run_trained

logger = logging.getLogger(__name__)


def generator_for(run: Bundle, cohort: Path, folder: Path, fraction: float, seed: int, device: str) -> Bundle:
    """The generator for a segmentor that learns from a share of the training patients, drawn by a seed.

    A run serves the share that it was trained on itself; for another share, or other patients of the same, one is
    trained by its settings. A generator of another cohort knows none of this one's labels and serves all patients.

    Args:
        run: the trained generator.
        cohort: folder made by `preprocess`.
        folder: receives the runs.
        fraction: share of the training patients.
        seed: of their order, and of the training.
        device: where to train.

    Raises:
        UsageError: if another share is wanted of a generator that was not trained on this cohort.
    """
    if fraction == 1 and not _is_run_of(run, cohort):
        return run
    require_run_of(run, cohort)
    settings = read_config(run.config("train"))
    if fraction == settings["fraction"] and (fraction == 1 or seed == settings["seed"]):
        return run
    name = f"fraction={fraction:g}_seed={seed}"
    logger.info("generator %s", name)
    return run_trained(run, cohort, folder / name, (), {"fraction": fraction, "seed": seed, "device_name": device})


def require_run_of(run: Bundle, cohort: Path) -> None:
    """Refuse a generator by whose settings none can be trained for a share of the cohort.

    Raises:
        UsageError: if it was not trained on this cohort.
    """
    if not _is_run_of(run, cohort):
        raise UsageError(
            f"{run.root}: is no run on {cohort}, expected one, by whose settings generators for smaller --fractions "
            f"are trained; train it with `phs-pipeline train {run.name}` and give it with -b"
        )


def _is_run_of(run: Bundle, cohort: Path) -> bool:
    return bool(read_json(run.root / RECORD).get("cohort_sha256") == sha256(cohort / COHORT_FILE))
