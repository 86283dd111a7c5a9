"""The same synthesis as MONAI's bundle commands see it: a dataset of scans and an evaluator that writes their twins."""

import logging
from pathlib import Path
from typing import Any

import torch
from monai.engines import Workflow
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import ScanError, UsageError
from pipeline.files import sha256
from pipeline.inference.run import synthesize_scans
from pipeline.inference.translator import Translator
from pipeline.scans import is_nifti
from pipeline.scans.sources import open_sources
from pipeline.training.checkpoint import all_finite, load_tensors

logger = logging.getLogger(__name__)


class ScanDataset(Dataset[dict[str, str]]):
    """The NIfTI files of a folder, by path; the evaluator reads them.

    Args:
        folder: searched with its subfolders.

    Raises:
        UsageError: if there is none.
    """

    def __init__(self, folder: Path | str) -> None:
        self.scans = sorted(path for path in Path(folder).rglob("*.nii*") if is_nifti(path))
        if not self.scans:
            raise UsageError(f"{folder}: holds no NIfTI file (.nii or .nii.gz); check the path")

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, place: int) -> dict[str, str]:
        """The path of one scan as `image`."""
        return {"image": str(self.scans[place])}


class SynthesisEvaluator(Workflow):
    """MONAI workflow whose iteration writes the twin of one scan.

    Args:
        device: where to compute.
        dataset: scans to work on.
        synthesizer: the model.
        weights: bare state dict of its network; loaded when the run starts.
        output_dir: where the twins go.
    """

    def __init__(
        self,
        device: torch.device,
        dataset: ScanDataset,
        synthesizer: Translator,
        weights: Path | str,
        output_dir: Path | str,
    ) -> None:
        loader = DataLoader(dataset, batch_size=1, collate_fn=lambda items: items[0])
        super().__init__(device=device, max_epochs=1, data_loader=loader, decollate=False)
        self.synthesizer = synthesizer
        self.weights = Path(weights)
        self.output_dir = Path(output_dir)

    def run(self) -> None:
        """Load the weights and work through the dataset.

        Raises:
            ScanError: if some scans failed, after the others are done.
        """
        load_weights(self.synthesizer.network, self.weights)
        self.failed: dict[Path, str] = {}
        super().run()
        if self.failed:
            raise ScanError(f"{len(self.failed)} scan(s) failed: " + "; ".join(self.failed.values()))

    def _iteration(self, engine: Any, batchdata: dict[str, str]) -> dict[str, Any]:  # noqa: ARG002
        provenance = {"WeightsSha256": sha256(self.weights)}
        with open_sources([Path(batchdata["image"])]) as sources:
            outcome = synthesize_scans(sources, self.synthesizer, provenance, self.output_dir, _report)
        self.failed |= {source.path: str(record.error) for source, record in outcome.of("failed").items()}
        return {"written": [str(path) for record in outcome.of("written").values() for path in record.files]}


def _report(name: str, what: str) -> None:
    logger.info("%s: %s", name, what)


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Load a bare state dict.

    Raises:
        UsageError: if the file is missing, damaged, not safe to load, or belongs to another network.
    """
    state = load_tensors(path)
    try:
        network.load_state_dict(state)
        finite = all_finite(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"{path}: the weights belong to another network ({reason[:160]}); use the bundle or run they were "
            "trained in"
        ) from error
    if not finite:
        raise UsageError(f"{path}: found weights that are NaN or infinite, expected numbers; train anew")
