"""An evaluation on a cohort and its report, for the command line, studies, and MONAI's bundle commands."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import UsageError
from pipeline.evaluation import Evaluation, Settings, evaluate, evaluate_share
from pipeline.evaluation.judge import ITERATIONS
from pipeline.evaluation.shares import FOLDER as SHARES
from pipeline.evaluation.shares import has_shares, read_shares, remove_shares, write_share
from pipeline.evaluation.twins import FOLDER as TWINS
from pipeline.evaluation.twins import write_twins
from pipeline.files import require_empty, sha256
from pipeline.inference import load_weights
from pipeline.reports.evaluation_report import write_report


def evaluate_and_report(
    predictor: Any,
    cohort: Path,
    report_dir: Path,
    settings: Settings,
    overwrite: bool = False,
    own_networks: Mapping[str, nn.Module] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a predictor, and write the report with the images behind it.

    Args:
        predictor: see `pipeline.evaluation.evaluate`, as for all that follows.
        cohort: folder made by `phs-pipeline preprocess`.
        report_dir: receives slices.csv, patients.csv, summary.json, report.md, and where there are images cases.png
            and `twins/`.
        settings: what to evaluate on, and how.
        overwrite: write into a folder that holds something, and measure again what it holds shares of.
        own_networks: of a translator.
        progress: called with (volumes done, volumes in all).

    Raises:
        UsageError: if the report's folder is not empty, but for the shares of this evaluation, which the report is then
            made of; or if nothing can be evaluated.
    """
    report_dir = Path(report_dir)
    keep = partial(write_twins, report_dir / TWINS)
    shares = None
    if not overwrite and has_shares(report_dir):
        _require_shares_alone(report_dir)
        shares = partial(read_shares, report_dir)
        if settings.a_dice is not None:
            raise UsageError(f"{report_dir}: holds shares, which have no A-Dice; leave it out, or give --overwrite")
    else:
        require_empty(report_dir, overwrite)
    evaluation = evaluate(predictor, cohort, settings, own_networks, keep, progress, shares)
    write_report(report_dir, evaluation)
    remove_shares(report_dir)
    return evaluation


def evaluate_part(
    predictor: Any,
    cohort: Path,
    report_dir: Path,
    settings: Settings,
    part: tuple[int, int],
    own_networks: Mapping[str, nn.Module] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Evaluate a predictor on a share of the volumes; `evaluate_and_report` then makes the report of all shares.

    Args:
        predictor: see `pipeline.evaluation.evaluate_share`, as for all that follows.
        cohort: folder made by `phs-pipeline preprocess`.
        report_dir: of the report; receives the share, and `twins/`.
        settings: what to evaluate on, and how.
        part: (k, n) for every n-th volume, from the k-th.
        own_networks: of a translator.
        progress: called with (volumes done, volumes of this share).

    Returns:
        How many volumes were measured.

    Raises:
        UsageError: if the report's folder holds something else than shares, or nothing can be evaluated.
    """
    report_dir = Path(report_dir)
    _require_shares_alone(report_dir)
    keep = partial(write_twins, report_dir / TWINS)
    share = evaluate_share(predictor, cohort, settings, part, own_networks, keep, progress)
    write_share(report_dir, part, share)
    return len(share.slices.subjects)


def _require_shares_alone(report_dir: Path) -> None:
    """A report's folder may hold shares, with their twins."""
    if report_dir.is_dir() and {path.name for path in report_dir.iterdir()} <= {SHARES, TWINS}:
        return
    require_empty(report_dir, remedy="choose another folder for the shares")


class CohortEvaluator:
    """The same evaluation as MONAI's bundle commands see it: an object with a `run()`.

    Args:
        predictor: of the bundle.
        weights: bare state dict of its network; loaded when the run starts.
        dataset_dir: the preprocessed cohort.
        report_dir: where the report goes; one that is there is written over, as MONAI's evaluations do.
        name: of the method, in tables.
        split: `training`, `validation` or `test`.
        judge_iterations: training iterations of the independent segmentor.
    """

    def __init__(
        self,
        predictor: Any,
        weights: Path | str,
        dataset_dir: Path | str,
        report_dir: Path | str,
        name: str,
        split: str = "test",
        judge_iterations: int = ITERATIONS,
    ) -> None:
        self.predictor = predictor
        self.weights = Path(weights)
        self.dataset_dir = Path(dataset_dir)
        self.report_dir = Path(report_dir)
        self.name = name
        self.split = split
        self.judge_iterations = judge_iterations

    def run(self) -> dict[str, Any]:
        """Load the weights, evaluate, write the report, and return the summary."""
        load_weights(self.predictor.networks["network_def"], self.weights)
        provenance = {"Bundle": self.name, "WeightsSha256": sha256(self.weights)}
        settings = Settings(self.name, provenance, self.split, self.judge_iterations)
        return evaluate_and_report(self.predictor, self.dataset_dir, self.report_dir, settings, True).summary
