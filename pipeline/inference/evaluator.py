"""The same inference as MONAI's bundle commands see it: a dataset of scans, and an evaluator that writes products."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.engines import Workflow
from torch.utils.data import DataLoader, Dataset

from pipeline.bundles import COMMANDS, Bundle, find_bundle
from pipeline.errors import ScanError, UsageError
from pipeline.inference.load import Predictor, check_kind, load_bundle_weights, provenance
from pipeline.inference.outputs import Form, PageMaker
from pipeline.inference.run import Request, predict_scans
from pipeline.inference.sampler import Sampler
from pipeline.inference.samples import Draw, draw_samples
from pipeline.scans import is_nifti
from pipeline.scans.sources import open_sources

logger = logging.getLogger(__name__)


class ScanDataset(Dataset[dict[str, str]]):
    """The NIfTI files of a folder, by path; the evaluator reads them.

    Args:
        folder: searched with its subfolders.
        masks: folder of their lesion masks, for predictors that take one: of the same names, in the same subfolders.

    Raises:
        UsageError: if there is no scan, or one has no mask.
    """

    def __init__(self, folder: Path | str, masks: Path | str | None = None) -> None:
        self.folder = Path(folder)
        self.masks = None if masks is None else Path(masks)
        self.scans = sorted(path for path in Path(folder).rglob("*.nii*") if is_nifti(path))
        if not self.scans:
            raise UsageError(f"{folder}: holds no NIfTI file (.nii or .nii.gz); check the path")
        for scan in self.scans:
            if (mask := self._mask(scan)) is not None and not mask.is_file():
                raise UsageError(f"{mask}: found no file, expected the lesion mask of {scan}; name it so")

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, str]:
        """The path of one scan as `image`, and of its lesion mask as `mask` where there are masks."""
        scan = self.scans[index]
        mask = self._mask(scan)
        return {"image": str(scan), **({} if mask is None else {"mask": str(mask)})}

    def _mask(self, scan: Path) -> Path | None:
        return None if self.masks is None else self.masks / scan.relative_to(self.folder)


class PredictionEvaluator(Workflow):
    """MONAI workflow whose iteration writes the products of one scan.

    Args:
        predictor: of the bundle; its weights are loaded when the run starts.
        dataset: scans to work on.
        bundle_root: the bundle's folder, for its weights, its metadata and its name.
        output_dir: where the products go.
        page: makes the page of each scan; None makes none.
        weights: of the main network; None takes the bundle's.

    Raises:
        UsageError: if the predictor takes no scans.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset: ScanDataset,
        bundle_root: Path | str,
        output_dir: Path | str,
        page: PageMaker | None = None,
        weights: Path | str | None = None,
    ) -> None:
        if predictor.kind == "sampler":
            raise UsageError(
                f"{bundle_root}: is a sampler, which takes no scans, expected another predictor; use `phs-pipeline "
                f"{COMMANDS[predictor.kind]}`"
            )
        loader = DataLoader(dataset, batch_size=1, collate_fn=lambda items: items[0])
        super().__init__(device=predictor.device, max_epochs=1, data_loader=loader, decollate=False)
        self.predictor = predictor
        self.bundle_root = Path(bundle_root)
        self.output_dir = Path(output_dir)
        self.weights = Path(weights) if weights else None
        self.request = Request(form=Form(page=page))

    def run(self) -> None:
        """Load the weights and work through the dataset.

        Raises:
            ScanError: if some scans failed, after the others are done.
        """
        self.bundle: Bundle = find_bundle(str(self.bundle_root))
        check_kind(self.bundle, self.predictor, None)
        load_bundle_weights(self.bundle, self.predictor, self.weights)
        self.failed: dict[Path, str] = {}
        super().run()
        if self.failed:
            raise ScanError(f"{len(self.failed)} scan(s) failed: " + "; ".join(self.failed.values()))

    def _iteration(self, engine: Any, batchdata: dict[str, str]) -> dict[str, Any]:  # noqa: ARG002
        with open_sources([Path(batchdata["image"])]) as sources:
            masks = dict.fromkeys(sources, Path(batchdata["mask"])) if "mask" in batchdata else {}
            outcome = predict_scans(
                sources,
                self.predictor,
                provenance(self.bundle, self.weights),
                self.output_dir,
                _report,
                replace(self.request, masks=masks),
                self.bundle.metadata,
            )
        self.failed |= {source.path: str(record.error) for source, record in outcome.of("failed").items()}
        return {"written": [str(path) for record in outcome.of("written").values() for path in record.files]}


class SampleEvaluator:
    """What MONAI's bundle command runs of a sampler, as `phs-pipeline sample` does.

    Args:
        predictor: of the bundle; its weights are loaded when the run starts.
        dataset: what is asked of it, in place of scans.
        bundle_root: the bundle's folder, for its weights, its metadata and its name.
        output_dir: where the images go.
        weights: of the network; None takes the bundle's.
    """

    def __init__(
        self,
        predictor: Sampler,
        dataset: Draw,
        bundle_root: Path | str,
        output_dir: Path | str,
        weights: Path | str | None = None,
    ) -> None:
        self.predictor, self.dataset = predictor, dataset
        self.bundle_root, self.output_dir = Path(bundle_root), Path(output_dir)
        self.weights = Path(weights) if weights else None

    def run(self) -> None:
        """Load the weights, draw and write."""
        bundle = find_bundle(str(self.bundle_root))
        check_kind(bundle, self.predictor, None)
        load_bundle_weights(bundle, self.predictor, self.weights)
        about = provenance(bundle, self.weights)
        draw_samples(self.output_dir, self.predictor, self.dataset, about, bundle.metadata["references"])


def _report(name: str, what: str) -> None:
    logger.info("%s: %s", name, what)
