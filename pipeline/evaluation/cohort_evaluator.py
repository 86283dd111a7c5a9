"""The same evaluation as MONAI's bundle commands see it: an object with a `run()`."""

from pathlib import Path
from typing import Any

from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.judge import ITERATIONS
from pipeline.files import sha256
from pipeline.inference import Translator, load_weights


class CohortEvaluator:
    """Scores the weights of a bundle on a preprocessed cohort.

    Args:
        synthesizer: the bundle's network, grid and window.
        weights: bare state dict of its network; loaded when the run starts.
        dataset_dir: the preprocessed cohort.
        report_dir: where the report goes; one that is there is written over, as MONAI's evaluations do.
        name: of the method, in tables.
        split: `training`, `validation` or `test`.
        judge_iterations: training iterations of the independent segmentor.
    """

    def __init__(
        self,
        synthesizer: Translator,
        weights: Path | str,
        dataset_dir: Path | str,
        report_dir: Path | str,
        name: str,
        split: str = "test",
        judge_iterations: int = ITERATIONS,
    ) -> None:
        self.synthesizer = synthesizer
        self.weights = Path(weights)
        self.dataset_dir = Path(dataset_dir)
        self.report_dir = Path(report_dir)
        self.name = name
        self.split = split
        self.judge_iterations = judge_iterations

    def run(self) -> dict[str, Any]:
        """Load the weights, evaluate, and return the summary."""
        load_weights(self.synthesizer.runner.network, self.weights)
        provenance = {"Bundle": self.name, "WeightsSha256": sha256(self.weights)}
        return evaluate(
            self.synthesizer,
            self.dataset_dir,
            self.report_dir,
            self.name,
            provenance,
            split=self.split,
            judge_iterations=self.judge_iterations,
            overwrite=True,
        )
