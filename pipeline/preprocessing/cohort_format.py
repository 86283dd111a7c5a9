"""A preprocessed cohort on disk, format 2: what `cohort.json` holds, checked when it is read; format 1 is still read.

A cohort's folder holds volumes of windowed slices (`images/`, one file a channel), lesion masks where there are any
(`masks/`), healthy truth where it is known (`truth/`), masks of what is neither lesion nor normal tissue (`ignore/`),
and `cohort.json`, whose types are in this file.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, get_args

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.errors import UsageError
from pipeline.files import TABLE_FILE, require_regular, small_text, written_aside
from pipeline.preprocessing.labels import Label
from pipeline.preprocessing.splits import Split
from pipeline.scans.nifti import unscaled

# Normalised volumes are stored as unsigned 16-bit integers with this slope: [0, 1] to 1.5e-5, half the size of float32.
LEVELS = 65535
COHORT_FILE = "cohort.json"
FORMAT = 2


def _inside(path: str) -> str:
    """Refuse what leads out of the cohort's folder, on any system that may read it."""
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    if not path or "\0" in path or windows.drive or windows.root or posix.is_absolute() or ".." in windows.parts:
        raise ValueError("expected a path inside the cohort's folder")
    return path


# Names become parts of file names.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=200)]
InnerPath = Annotated[str, AfterValidator(_inside)]
VoxelMm = Annotated[float, Field(ge=0.01, le=100)]


class _Record(BaseModel):
    # Format 1 has further keys.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class WindowSettings(_Record):
    """As `WindowRule` has them."""

    percentile: Annotated[float, Field(gt=0, le=100)]
    foreground_only: bool
    fixed: tuple[float, float] | None


class SlabSettings(_Record):
    """As `Slab` has them."""

    slices: Annotated[int, Field(gt=0)] | None
    thickness_mm: PositiveFloat | None


class CohortSettings(_Record):
    """Of the settings that the cohort was made with, those that later steps read."""

    window: WindowSettings
    slab: SlabSettings
    split: tuple[float, float, float] | None = None
    seed: int | None = None
    target: str | None = None


class SplitCounts(_Record):
    """Patients of a split, and its slices by label."""

    patients: NonNegativeInt
    healthy: NonNegativeInt
    pathological: NonNegativeInt
    excluded: NonNegativeInt
    unknown: NonNegativeInt = 0


class Counts(_Record):
    """By split."""

    training: SplitCounts
    validation: SplitCounts
    test: SplitCounts


class SourceFile(_Record):
    """A file that a volume was made from, by name and hash."""

    name: str
    sha256: str


class Prepared(_Record):
    """A scan that was preprocessed, not yet in a split.

    Attributes:
        subject: the scan's name, unique in the cohort.
        patient: the person; one person may have several scans.
        session: of the person, where it is known.
        images: the first channel's file, relative to the cohort; levels from 0 to `LEVELS`.
        channels: each channel's file by name, `images` first; all on one grid.
        masks: the lesion mask's file; None where no lesion was annotated.
        truth: the file of the image without the lesion, where that is known.
        ignore: the file of the mask of what is neither lesion nor normal tissue, where there is one.
        spacing_mm: along (slices, right, anterior).
        first_slice: of the slab, counted from below in the scan.
        lesion_mm2: lesion area of each slice.
        labels: of each slice.
        window: intensities that became 0 and 1, in the scan's units, of the first channel.
        windows: the same of each channel.
        target: what a scorer learns to tell: a number, or a class by name.
        slice_targets: the target of each slice where it is of slices; `target` is then their mean.
        source: the files that it was made from: `image`, `mask`, `truth`, `ignore`, and further channels by name.
        image_sha256: of the first channel's intensities, whatever file they are stored in; empty in format 1.
    """

    subject: Name
    patient: Name
    images: InnerPath
    masks: InnerPath | None
    spacing_mm: tuple[VoxelMm, VoxelMm, VoxelMm]
    labels: list[Label]
    session: str | None = None
    channels: dict[str, InnerPath] = {}
    truth: InnerPath | None = None
    ignore: InnerPath | None = None
    first_slice: NonNegativeInt = 0
    lesion_mm2: list[NonNegativeFloat] = []
    window: tuple[float, float] | None = None
    windows: dict[str, tuple[float, float]] = {}
    target: float | str | None = None
    slice_targets: list[float] = []
    source: dict[str, SourceFile] = {}
    image_sha256: str = ""

    @field_validator("truth", mode="before")
    @classmethod
    def _absent_or_a_path(cls, found: Any) -> Any:
        if found is None:
            raise ValueError("expected a path, or no such key")
        return found

    @model_validator(mode="after")
    def _agree(self) -> "Prepared":
        if not self.channels:  # of format 1
            self.__dict__["channels"] = {"image": self.images}
        if next(iter(self.channels.values())) != self.images:
            raise ValueError("expected the first of `channels` to be `images`")
        if self.lesion_mm2 and len(self.lesion_mm2) != len(self.labels):
            raise ValueError("expected as many lesion areas as labels")
        if self.slice_targets and len(self.slice_targets) != len(self.labels):
            raise ValueError("expected as many targets of slices as labels")
        return self

    @property
    def files(self) -> list[str]:
        """All its volumes, relative to the cohort."""
        return [path for path in (*self.channels.values(), self.masks, self.truth, self.ignore) if path is not None]

    @property
    def image_name(self) -> str:
        """Name of the file that the first channel was made from; empty where that is not known."""
        return self.file_name()

    def file_name(self, channel: str | None = None) -> str:
        """Name of the file that a channel, the first if None, was made from; empty where that is not known."""
        name = channel if channel in self.source else "image"
        return self.source[name].name if name in self.source else ""

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Pixel size along (right, anterior)."""
        return self.spacing_mm[1], self.spacing_mm[2]


class Subject(Prepared):
    """A scan of a cohort, and the split that its patient is in."""

    split: Split


class Cohort(_Record):
    """What `cohort.json` holds.

    Attributes:
        format: 1 or 2.
        pipeline_version: of the program that made it.
        layout: in which the scans lay.
        notes: what was assumed.
    """

    format: Literal[1, 2]
    settings: CohortSettings
    counts: Counts
    subjects: list[Subject]
    pipeline_version: str = ""
    layout: str = ""
    notes: list[str] = []

    @field_validator("subjects")
    @classmethod
    def _all_different(cls, subjects: list[Subject]) -> list[Subject]:
        if len({subject.subject.casefold() for subject in subjects}) < len(subjects):
            raise ValueError("expected a name of its own for each subject")
        return subjects

    @property
    def channels(self) -> list[str]:
        """Names of all channels, in the order in which subjects have them.

        A cohort of several modalities has subjects with one each.
        """
        return list(dict.fromkeys(name for subject in self.subjects for name in subject.channels))

    def of(self, split: str) -> list[Subject]:
        """The subjects of a split."""
        return [subject for subject in self.subjects if subject.split == split]

    def having(self, channels: Iterable[str]) -> list[Subject]:
        """The subjects that have all of these channels."""
        return [subject for subject in self.subjects if set(channels) <= subject.channels.keys()]

    def slices(self, split: str, label: str) -> int:
        """How many slices of a split have a label."""
        return int(getattr(getattr(self.counts, split), label))


def count(subjects: Iterable[Subject]) -> dict[str, dict[str, int]]:
    """Patients and slices by split, as `Counts` has them."""
    subjects = list(subjects)
    counts = {}
    for split in get_args(Split):
        mine = [subject for subject in subjects if subject.split == split]
        labels = [label for subject in mine for label in subject.labels]
        counts[split] = {
            "patients": len({subject.patient for subject in mine}),
            **{label: labels.count(label) for label in get_args(Label)},
        }
    return counts


def read_cohort(directory: Path) -> Cohort:
    """The content of a preprocessed cohort's `cohort.json`.

    Raises:
        UsageError: if the folder is no preprocessed cohort, or its `cohort.json` lacks what later steps need, leads out
            of the folder, or holds values that cannot be.
    """
    path = Path(directory) / COHORT_FILE
    try:
        return Cohort.model_validate_json(small_text(path, TABLE_FILE))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{directory}: holds no readable {COHORT_FILE}, expected a folder made by `phs-pipeline preprocess`; run "
            "that first"
        ) from error
    except ValidationError as error:
        raise UsageError(
            f"{path}: {_said(error)}, expected what `phs-pipeline preprocess` writes; run that again"
        ) from (error)


def _said(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    if not name:
        return "holds no readable cohort"
    found = first["input"]
    of_value = first["type"] in {"value_error", "string_pattern_mismatch", "literal_error"} or "than" in first["type"]
    if of_value and found is not None:
        shown = repr(found)[:80] if isinstance(found, (str, int, float)) else "not as it can be"
        return f"{name} is {shown} ({first['msg']})"
    return f"{name} is missing or of the wrong type"


def patient_hashes(cohort: Path, split: str) -> list[str]:
    """By what patients of a split are known again in another cohort, without telling who they are.

    Args:
        cohort: folder of the preprocessed cohort.
        split: whose patients.

    Returns:
        Sorted SHA-256 of the patients' names (`name:…`) and of their images (`image:…`).
    """
    return sorted({digest for subject in read_cohort(cohort).of(split) for digest in _digests(subject)})


def known_patients(cohort: Path, split: str, hashes: Iterable[str]) -> list[str]:
    """Names of those patients of a split that `patient_hashes` of another cohort has among its own.

    A name alone tells nobody: many cohorts have a `sub-01`. It counts where the two cohorts share at least one image.
    """
    known = set(hashes)
    content = read_cohort(cohort)
    if not any(_image_digest(subject) in known for subject in content.subjects):
        return []
    return sorted({subject.patient for subject in content.of(split) if known.intersection(_digests(subject))})


def _digests(subject: Subject) -> set[str]:
    return {f"name:{hashlib.sha256(subject.patient.encode()).hexdigest()}", _image_digest(subject)}


def _image_digest(subject: Subject) -> str:
    image = subject.source.get("image")
    return f"image:{image.sha256 if image is not None else ''}"


def read_stored(path: Path) -> NDArray[Any]:
    """The stored values of a volume of a preprocessed cohort.

    Args:
        path: in `images/` or `truth/` (levels from 0 to `LEVELS`, uint16), or in `masks/` (0 and 1, uint8).

    Returns:
        Shape (slices, right, anterior), without the header's slope.

    Raises:
        UsageError: if the file is missing or damaged.
    """
    try:
        require_regular(path)
        stored = np.ascontiguousarray(np.moveaxis(unscaled(nib.load(path).dataobj, path), 2, 0))
    except Exception as error:  # nibabel's readers raise whatever their parser stumbles over
        raise _unreadable(path) from error
    if stored.ndim != 3 or stored.dtype.kind != "u":
        raise _unreadable(path)
    return stored


def write_stored(path: Path, axial: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Write a volume of a cohort, whole or not at all, as `read_stored` reads it.

    Args:
        path: in the cohort.
        axial: stored values, shape (slices, right, anterior), uint16 levels or uint8.
        affine: (right, anterior, superior) voxel indices to millimetres, (4, 4).
    """
    image = nib.Nifti1Image(np.moveaxis(axial, 0, 2), affine, dtype=axial.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1 / LEVELS if axial.dtype == np.uint16 else 1.0, 0.0)
    with written_aside(path) as aside:
        nib.save(image, aside)


def read_part(cohort: Path, subject: Prepared, file: str) -> NDArray[Any]:
    """One of a subject's volumes as `read_stored` gives it.

    Args:
        cohort: folder of the preprocessed cohort.
        subject: whose volume.
        file: one of `subject.files`.

    Raises:
        UsageError: if the file is missing or damaged, a link leads to it from outside, or it has other slices or pixels
            than `cohort.json` and the first channel say.
    """
    path = cohort / file
    if not path.resolve().is_relative_to(cohort.resolve()):
        raise UsageError(f"{path}: is a link that leads out of the cohort, expected its files; put the file there")
    stored = read_stored(path)
    expected = len(subject.labels), *stored_shape(cohort / subject.images)[1:]
    if stored.shape != expected:
        raise UsageError(
            f"{path}: found {' × '.join(map(str, stored.shape))} voxels (slices × right × anterior), expected "
            f"{' × '.join(map(str, expected))} as cohort.json and the first channel say; run `phs-pipeline preprocess` "
            "again"
        )
    return stored


def read_mask(cohort: Path, subject: Prepared) -> NDArray[Any]:
    """A subject's lesion mask as `read_part` gives it; zeros where no lesion was annotated."""
    if subject.masks is None:
        return np.zeros(stored_shape(cohort / subject.images), np.uint8)
    mask = read_part(cohort, subject, subject.masks)
    if mask.max(initial=0) > 1:
        raise _unreadable(cohort / subject.masks)
    return mask


def stored_shape(path: Path) -> tuple[int, int, int]:
    """The shape that `read_stored` gives, from the header alone.

    Raises:
        UsageError: if the file is missing or damaged.
    """
    try:
        require_regular(path)
        right, anterior, slices = nib.load(path).shape
    except Exception as error:
        raise _unreadable(path) from error
    return slices, right, anterior


def _unreadable(path: Path) -> UsageError:
    return UsageError(
        f"{path}: is missing or damaged, expected a volume of the preprocessed cohort; run `phs-pipeline preprocess` "
        "again"
    )
