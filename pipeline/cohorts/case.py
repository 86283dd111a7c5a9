"""What a cohort holds: a subject's files as a layout finds them, usable cases, and scans that cannot be used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ScanError

SPLITS = {
    "training": "training",
    "train": "training",
    "tr": "training",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "ts": "test",
    "te": "test",
    "holdout": "test",
}


@dataclass(frozen=True)
class Case:
    """One subject's scan with its lesion mask.

    Attributes:
        subject: identifier safe as a file name (letters, digits, '-' and '_'), unique in its cohort; a BIDS
            subject with sessions gives one case per session, such as "sub-01_ses-02".
        image: the scan; its first channel.
        mask: the lesion mask on the grid of `image`; None only where `find_cases` was told that masks are optional.
        patient: the person, equal for all sessions and time points; splits are made by patient.
        truth: the image without the lesion where it is known (phantoms).
        ignore: mask of what is neither lesion nor normal tissue: disease that a host of planted lesions had before.
        split: 'training', 'validation' or 'test' where the cohort says so.
        lesion_labels: mask values that mean lesion; None for any value above 0.
        session: of the person, where it is known.
        target: what a scorer learns to tell: a number, or a class by name.
        channels: further sequences on the grid of `image`, by name.
        volumes: which volume of a 4-D file a channel is, by its name; the first channel's is under "image".
    """

    subject: str
    image: Path
    mask: Path | None
    patient: str
    truth: Path | None = None
    ignore: Path | None = None
    split: str | None = None
    lesion_labels: tuple[int, ...] | None = None
    session: str | None = None
    target: float | str | None = None
    channels: Mapping[str, Path] = field(default_factory=dict)
    volumes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A scan that cannot be used, and why: one sentence with file, found, expected and what to do."""

    subject: str
    reason: str


@dataclass(frozen=True)
class FoundCases:
    """What a cohort holds: usable cases and the scans that are not, both sorted by subject, and what was assumed."""

    layout: str
    cases: list[Case]
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """What a layout holds for one subject; exactly one image and at most one mask make a case of it.

    Attributes:
        name: of the scan, as the cohort has it.
        place: where the image is looked for.
        images: candidates for the image.
        masks: candidates for the lesion mask.
        image_hint: where an image is expected.
        mask_hint: where a mask is expected.
        truths: candidates for the healthy truth.
        ignores: candidates for the mask of what is neither lesion nor normal tissue.
        present: images of any modality.
        split: as the cohort says; one of the values of `SPLITS`.
        lesion_labels: mask values that mean lesion.
        fault: of the entry itself.
        patient: the person, where the layout tells; otherwise the name does.
        session: of the person.
        volume: which one of a 4-D image.
        columns: of the subject's row in a table.
        row: where in a datalist; channels of one row belong together.
        notes: what was assumed.
        dicom: whether the image is a folder with the files of a series.
    """

    name: str
    place: Path
    images: list[Path]
    masks: list[Path]
    image_hint: str
    mask_hint: str
    truths: list[Path] = field(default_factory=list)
    ignores: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)
    split: str | None = None
    lesion_labels: tuple[int, ...] | None = None
    fault: str | None = None
    patient: str | None = None
    session: str | None = None
    volume: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    row: str | None = None
    notes: tuple[str, ...] = ()
    dicom: bool = False

    def image(self) -> Path:
        """The one image.

        Raises:
            ScanError: if there is none, or several.
        """
        if not self.images:
            found = ", ".join(path.name for path in self.present) or "nothing"
            owner = f"{self.masks[0]}: the mask has no image" if self.masks else f"{self.place}: has no image"
            raise ScanError(
                f"{owner}, found {found} but expected {self.image_hint}; add it, choose another modality or "
                "leave the subject out"
            )
        return the_file("image", self.images, folder=self.dicom)


def the_file(kind: str, candidates: list[Path], folder: bool = False) -> Path:
    """The only candidate.

    Args:
        kind: what it is, for messages.
        candidates: one or more.
        folder: whether it is a folder of files.

    Raises:
        ScanError: if there are several, or it is no file that can be reached.
    """
    path = candidates[0]
    if len(candidates) > 1:
        raise ScanError(
            f"{path}: is one of {len(candidates)} files that may be the {kind} (also "
            f"{', '.join(map(str, candidates[1:]))}), expected one; keep one of them or name it in a datalist"
        )
    what = "folder" if folder else "file"
    try:
        if path.is_dir() if folder else path.is_file():
            return path
        found = f"no {what}" if path.exists() else "missing or a broken link"
        if path.is_symlink() and ".git/annex" in path.readlink().as_posix():
            found += " of git-annex whose content was never fetched (datalad get, git annex get)"
    except OSError as error:
        found = f"out of reach ({error.strerror})"
    raise ScanError(f"{path}: is {found}, expected the {kind} as a {what}; fetch the {what} or mend its path")
