"""What a cohort holds: a subject's files as a layout finds them, usable cases, and scans that cannot be used."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One subject's scan with its lesion mask.

    Attributes:
        subject: identifier safe as a file name (letters, digits, '-' and '_'), unique in its cohort; a BIDS
            subject with sessions gives one case per session, such as "sub-01_ses-02".
        image: the scan.
        mask: the lesion mask on the grid of `image`; never None in what `find_cases` gives.
        patient: the person, equal for all sessions and time points; splits are made by patient.
        truth: the image without the lesion where it is known (phantoms).
        split: 'training', 'validation' or 'test' where a datalist says so.
        lesion_labels: mask values that mean lesion; None for any value above 0.
    """

    subject: str
    image: Path
    mask: Path | None
    patient: str
    truth: Path | None = None
    split: str | None = None
    lesion_labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Problem:
    """A scan that cannot be used, and why: one sentence with file, found, expected and what to do."""

    subject: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What a cohort holds: usable cases and the scans that are not, both sorted by subject."""

    layout: str
    cases: list[Case]
    problems: list[Problem]


@dataclass(frozen=True)
class Entry:
    """What a layout holds for one subject; exactly one image and one mask make a case of it."""

    name: str
    place: Path  # where the image is looked for
    images: list[Path]
    masks: list[Path]
    image_hint: str
    mask_hint: str
    truths: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)  # images of any modality
    split: str | None = None
    lesion_labels: tuple[int, ...] | None = None
    fault: str | None = None  # of the datalist's entry itself
