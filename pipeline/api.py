"""Five calls for notebooks and other programs: `load_predictor`, `synthesize`, `fill`, `evaluate`, `read_cohort`.

They do what the commands of the same names do, with arrays and images in memory instead of files; what is refused and
warned of is the same. `from pipeline import synthesize` imports this module when it is first asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import JUDGE_ITERATIONS
from pipeline.bundles import find_parts
from pipeline.errors import UsageError
from pipeline.evaluation import Settings
from pipeline.evaluation.own import own_networks
from pipeline.inference import Inputs, load_parts
from pipeline.inference.load import Loaded
from pipeline.inference.outputs import stored_as
from pipeline.inference.products import Product, Result
from pipeline.inference.run import DomainCheck, refuse_marked, refuse_synthetic
from pipeline.launch import check_unseen
from pipeline.preprocessing.cohort_format import LEVELS, Subject, read_mask, read_part
from pipeline.preprocessing.cohort_format import read_cohort as read_record
from pipeline.reports.cohort_evaluation import evaluate_and_report
from pipeline.scans import Scan, as_nifti, from_image, read_nifti
from pipeline.scans.sources import open_sources

__all__ = ["CohortScan", "Made", "evaluate", "fill", "load_predictor", "read_cohort", "synthesize"]

Volume: TypeAlias = str | Path | nib.Nifti1Image | NDArray[Any]
"""A scan: a path (NIfTI, DICOM, …), an image of nibabel, or an array (X, Y, Z) beside an affine."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many are done, and how many there are."""

IN_MEMORY = Path("scan in memory")
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Made:
    """What was made of one scan.

    Attributes:
        image: the main product, on the scan's grid: an array where the scan was one, else an image of nibabel whose
            header says that it is synthetic.
        products: all of them by name in the same form, for example `pseudohealthy`, `anomaly` (input − twin, in the
            scan's units) and the mask of what was changed; a mask of the name of an image is `NAME_mask`.
        figures: numbers about the result by name, for example `ChangedMl`.
        notes: what was assumed and done.
        warnings: why the result needs a look, and in what the scan is unlike those of the training.
        provenance: bundle, version, hashes of weights and config; that it is synthetic, and what to cite.
        result: the products as predictors give them, with their meaning and units.
    """

    image: Any
    products: Mapping[str, Any]
    figures: Mapping[str, float | None]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]
    result: Result


def load_predictor(bundle: str | Path, device: str = "auto", trust: bool = False, precision: str = "float32") -> Loaded:
    """A bundle or run with its weights, for many calls.

    Args:
        bundle: a name, the folder of a run, or `SEGMENTER+FILLER`, for example `lesion+fill`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        trust: run the code in its inference config.
        precision: of its networks, `float32`, or `bfloat16` where the processor or GPU has it.

    Raises:
        UsageError: if there is none, it has no weights, or the device does not compute in this precision.

    Example:
        >>> load_predictor("harmonic", device="cpu").predictor.kind
        'filler'
    """
    return load_parts(find_parts(str(bundle)), None, device, trust, precision)


def synthesize(
    scans: Volume | Sequence[Volume],
    predictor: Loaded | str | Path = "lesion+fill",
    *,
    affine: ArrayLike | None = None,
    masks: Volume | Sequence[Volume] | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> Any:
    """The pseudo-healthy twin of a scan, or of each of several.

    Args:
        scans: one, or a list.
        predictor: of `load_predictor`, or what it takes.
        affine: of arrays, voxels to millimetres (RAS+), 4×4.
        masks: a lesion mask for each scan on its grid: only the lesion and its surroundings are changed.
        device: where to compute, of a predictor that is not loaded yet.
        force: make a scan that is unlike those of the training all the same.
        progress: called with (scans done, scans in all).

    Returns:
        A `Made`, or a list of them where `scans` is a list.

    Raises:
        UsageError: if the predictor makes no twins, or scans and masks do not go together.
        ScanError: if a scan cannot be used.
    """
    return _each("translator", scans, masks, predictor, affine, device, force, progress)


def fill(
    scans: Volume | Sequence[Volume],
    masks: Volume | Sequence[Volume],
    predictor: Loaded | str | Path = "fill",
    *,
    affine: ArrayLike | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Healthy tissue inside a lesion mask; every voxel outside keeps its exact value.

    Args:
        scans: one, or a list.
        masks: a lesion mask for each, on its grid.
        predictor: as for `synthesize`, as all that follows.
        affine: see there.
        device: see there.
        force: see there.
        progress: see there.

    Returns:
        As for `synthesize`.

    Raises:
        UsageError: if the predictor fills nothing, or scans and masks do not go together.
        ScanError: if a scan or a mask cannot be used.

    Example:
        >>> scan = np.full((8, 8, 8), 100, np.int16); scan[2:6, 2:6, 2:6] += np.arange(4, dtype=np.int16)
        >>> mask = np.zeros(scan.shape, np.uint8); mask[3:5, 3:5, 3:5] = 1
        >>> made = fill(scan, mask, "harmonic", affine=np.eye(4), device="cpu")
        >>> made.image.shape, bool((made.image[mask == 0] == scan[mask == 0]).all())
        ((8, 8, 8), True)
    """
    return _each("filler", scans, masks, predictor, affine, device, force, progress)


def evaluate(
    predictor: Loaded | str | Path,
    cohort: str | Path,
    report: str | Path,
    *,
    split: str = "test",
    name: str | None = None,
    judge: str | None = "default",
    judge_iterations: int = JUDGE_ITERATIONS,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a predictor on a preprocessed cohort beside controls, and write the report.

    Args:
        predictor: of `load_predictor`, or what it takes.
        cohort: folder made by `phs-pipeline preprocess`.
        report: folder to write.
        split: `test`, `validation` or `training`.
        name: of the method in tables; the bundle's if None.
        judge: size of the segmentor that judges healthiness, `default` or `paper`; None leaves healthiness out.
        judge_iterations: of its training.
        device: where to compute, of a predictor that is not loaded yet.
        overwrite: write into a folder that holds something.
        progress: called with (volumes done, volumes in all).

    Returns:
        The content of the report's `summary.json`: `methods` holds the scores, `metrics` says what they are.

    Raises:
        UsageError: if the split has nothing to evaluate on, the run was trained on its patients, or the folder holds
            something.
    """
    loaded = _loaded(predictor, device)
    for bundle in loaded.bundles:
        check_unseen(bundle, Path(cohort), split)
    settings = Settings(name or loaded.name, loaded.provenance, split, judge_iterations, judge)
    own = own_networks(loaded.bundles[0]) if len(loaded.bundles) == 1 else {}
    return evaluate_and_report(loaded.predictor, Path(cohort), Path(report), settings, overwrite, own, progress).summary


@dataclass(frozen=True)
class CohortScan:
    """One scan of a preprocessed cohort; its arrays are read when they are asked for.

    Attributes:
        folder: of the cohort.
        about: what `cohort.json` says of it: patient, session, split, labels of slices, spacing, window, target.
    """

    folder: Path
    about: Subject

    @property
    def image(self) -> NDArray[np.float32]:
        """Axial slices in [0, 1], shape (slices, C, right, anterior), a channel for each sequence."""
        parts = [read_part(self.folder, self.about, file) for file in self.about.channels.values()]
        return np.stack(parts, axis=1).astype(np.float32) / np.float32(LEVELS)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Where the lesion is, shape (slices, right, anterior); None where nobody annotated it."""
        if self.about.masks is None:
            return None
        mask: NDArray[np.bool_] = read_mask(self.folder, self.about) > 0
        return mask


def read_cohort(folder: str | Path, split: str | None = None) -> list[CohortScan]:
    """The scans of a cohort that `phs-pipeline preprocess` made.

    Args:
        folder: of the cohort.
        split: `training`, `validation` or `test`; None takes all.

    Raises:
        UsageError: if it is no cohort, or has no such split.
    """
    cohort = read_record(Path(folder))
    if split not in (None, *SPLITS):
        raise UsageError(f"split: found {split!r}, expected one of {', '.join(SPLITS)}")
    return [CohortScan(Path(folder), subject) for subject in cohort.subjects if split in (None, subject.split)]


def _loaded(predictor: Loaded | str | Path, device: str, kind: str | None = None) -> Loaded:
    if not isinstance(predictor, Loaded):
        return load_parts(find_parts(str(predictor)), kind, device)
    if kind is not None and predictor.predictor.kind != kind:
        raise UsageError(f"{predictor.name}: is a {predictor.predictor.kind}, expected a {kind}; load another bundle")
    return predictor


def _each(
    kind: str,
    scans: Volume | Sequence[Volume],
    masks: Volume | Sequence[Volume] | None,
    predictor: Loaded | str | Path,
    affine: ArrayLike | None,
    device: str,
    force: bool,
    progress: Progress | None,
) -> Any:
    several = isinstance(scans, list | tuple)
    volumes: list[Any] = list(scans) if isinstance(scans, list | tuple) else [scans]
    drawn: list[Any] = list(masks) if isinstance(masks, list | tuple) else [masks]
    if masks is None:
        drawn = [None] * len(volumes)
    if len(drawn) != len(volumes):
        raise UsageError(f"masks: found {len(drawn)} for {len(volumes)} scans, expected one for each")
    loaded = _loaded(predictor, device, kind)
    made = []
    for done, (volume, mask) in enumerate(zip(volumes, drawn, strict=True), start=1):
        made.append(_one(loaded, volume, mask, affine, force))
        if progress:
            progress(done, len(volumes))
    return made if several else made[0]


def _one(loaded: Loaded, volume: Volume, mask: Volume | None, affine: ArrayLike | None, force: bool) -> Made:
    scan = _scan(volume, affine)
    lesion = None if mask is None else _scan(mask, scan.affine, of_mask=True)
    check = DomainCheck(loaded.metadata, str(scan.origin), "force=True", force)
    # What was not trained takes any scan.
    checked = check if loaded.predictor.networks else None
    result: Result = loaded.predictor(Inputs(scan, mask=lesion, check=checked))
    as_array = isinstance(volume, np.ndarray)
    products: dict[str, Any] = {}
    for product in result.products:  # an image and a mask may have one name
        name = f"{product.name}_{product.kind}" if product.name in products else product.name
        products[name] = _given_back(product, scan, as_array)
    about = {"SyntheticData": True, "Citations": loaded.metadata.get("references", [])}
    return Made(
        image=products[result.main.name],
        products=products,
        figures={figure.name: figure.value for figure in result.figures},
        notes=tuple(result.notes),
        warnings=(*check.warnings, *result.warnings),
        provenance={**loaded.provenance, **about},
        result=result,
    )


def _given_back(product: Product, scan: Scan, as_array: bool) -> Any:
    """A product in the form that the scan was given in."""
    if product.kind == "number":
        return product.value
    if as_array:
        return product.voxels
    return as_nifti(product.voxels, stored_as(product, scan), difference=product.kind == "difference")


def _scan(volume: Volume, affine: ArrayLike | None, of_mask: bool = False) -> Scan:
    """What was given, as a scan.

    Raises:
        UsageError: if it is of another type, or an array comes without affine.
        ScanError: if it cannot be used.
    """
    if isinstance(volume, str | Path):
        return _read(Path(volume), of_mask)
    if isinstance(volume, np.ndarray):
        if affine is None:
            raise UsageError(
                "affine: found none, expected that of the array, voxels to millimetres, 4×4; give affine=…"
            )
        volume = nib.Nifti1Image(_storable(volume), np.asarray(affine, dtype=float))
        volume.header.set_xyzt_units("mm")
    elif not isinstance(volume, nib.Nifti1Image):
        raise UsageError(
            f"scan: found a {type(volume).__name__}, expected a path, a NIfTI image of nibabel, or an array; convert it"
        )
    scan = from_image(volume, IN_MEMORY, constant_ok=of_mask)
    if not of_mask:
        refuse_marked(scan)
    return scan


def _storable(voxels: NDArray[Any]) -> NDArray[Any]:
    """Voxels in a type that NIfTI has for scans."""
    if voxels.dtype == bool:
        return voxels.astype(np.uint8)
    if voxels.dtype in (np.int64, np.uint64) and voxels.size and abs(voxels).max() < 2**31:
        return voxels.astype(np.int32)
    return voxels.astype(np.float32) if voxels.dtype == np.float16 else voxels


def _read(path: Path, of_mask: bool) -> Scan:
    if of_mask:
        return read_nifti(path, constant_ok=True)
    with open_sources((path,)) as sources:
        if len(sources) != 1:
            raise UsageError(f"{path}: found {len(sources)} scans, expected one; give them one by one in a list")
        scan = sources[0].read()
        refuse_synthetic(sources[0], scan)
    return scan
