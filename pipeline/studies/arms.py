"""The arms of a study, bundles that are trained with common settings; and how well its segmenters find lesions."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bundles import Bundle, find_bundle, read_config
from pipeline.errors import UsageError
from pipeline.evaluation.predictions import Item, Predict, kind_of, of_volume, volume_of
from pipeline.evaluation.scores import score_methods, score_rows, score_volumes
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL, read_volume, subjects_with
from pipeline.files import sha256
from pipeline.inference import load_predictor
from pipeline.metrics import METRICS
from pipeline.mosaic import mosaic, save_png
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.studies.pictures import shown_slices, spread
from pipeline.studies.training import run_trained

LABELS = (PATHOLOGICAL, HEALTHY)
MEASURES = tuple(
    METRICS[name] for name in ("dice_pooled", "dice", "recall", "precision", "hd95_mm", "holes", "fragments")
)
LESION_SLICES = "dice_lesion_slices"


@dataclass(frozen=True)
class Arm:
    """One row of a study: how a bundle is trained.

    Attributes:
        bundle: its name.
        presets: laid over its settings.
        settings: laid over these.
    """

    bundle: str
    presets: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Bundle:
        """Its bundle."""
        return find_bundle(self.bundle)

    def takes(self) -> set[str]:
        """Settings of its bundle that neither its presets nor its own settings choose."""
        chosen = {name for preset in self.presets for name in read_config(self.source.config(preset))}
        return set(read_config(self.source.config("train"))) - chosen - set(self.settings)

    def trained(self, cohort: Path, run: Path, common: Mapping[str, Any], own: Mapping[str, Any]) -> Bundle:
        """The finished run; trained first if it is not.

        Args:
            cohort: folder made by `preprocess`.
            run: its folder.
            common: settings that all arms share, of which each takes what it does not choose itself.
            own: settings of this training.
        """
        takes = self.takes()
        shared = {name: value for name, value in common.items() if name in takes}
        return run_trained(self.source, cohort, run, self.presets, {**shared, **self.settings, **own})


def check_settings(overrides: Mapping[str, Any], arms: Collection[Arm], of_study: Collection[str]) -> None:
    """Refuse settings that no arm has, or that are the study's own.

    Raises:
        UsageError: if there are some.
    """
    known = set().union(*(read_config(arm.source.config("train")) for arm in arms))
    takes = set().union(*(arm.takes() for arm in arms)) - set(of_study)
    for name in overrides:
        if name not in known:
            raise UsageError(f"--set {name}: no method of this study has such a setting; see the bundles' train.json")
        if name not in takes:
            raise UsageError(f"--set {name}: is set by the study itself; leave it out, and see its own options")


def settings_of(
    study: str, cohort: Path, common: Mapping[str, Any], split: str, arms: Collection[Arm]
) -> dict[str, Any]:
    """What all parts of a study have in common, as `open_study` takes it."""
    bundles = {arm.bundle: sha256(arm.source.config("train")) for arm in arms}
    return {
        "study": study,
        "cohort_sha256": sha256(cohort / COHORT_FILE),
        "settings": dict(common),
        "split": split,
        "bundle_configs_sha256": bundles,
    }


def volumes_of(cohort: Path, split: str, patients: Collection[str] | None = None) -> Iterator[Item]:
    """All slices with and without lesion of a split's scans, on the scans' own pixels, one scan at a time.

    Args:
        cohort: folder made by `preprocess`.
        split: `training`, `validation` or `test`.
        patients: whose scans; None: everybody's.

    Raises:
        UsageError: if no scan of the split has a lesion.
    """
    records = subjects_with(cohort, split, *LABELS)
    if not any(PATHOLOGICAL in record.labels for record in records):
        raise UsageError(
            f"{cohort}: found no pathological slice in the {split} split, expected some; choose another split, or "
            "preprocess with other shares"
        )
    return (
        of_volume(read_volume(cohort, record, *LABELS))
        for record in records
        if patients is None or record.patient in patients
    )


def prediction_of(run: Bundle, device: str) -> Predict:
    """What a trained segmenter finds in the slices of a scan."""
    predictor, _ = load_predictor(run, "segmenter", device)
    return lambda item: kind_of(predictor).predict(predictor, item)


def measured(predict: Predict, items: Sequence[Item]) -> dict[str, Any]:
    """The metrics of `MEASURES`, as `evaluate` takes them.

    Args:
        predict: the masks of a scan's slices.
        items: the scans.

    Returns:
        Each metric by name, None without a value; `dice_lesion_slices`, the Dice of all slices with an annotated
        lesion together; `patients`: each one's Dice of a volume, mean over volumes.
    """
    rows = [
        row
        for item in items
        for row in score_rows(
            {"method": "", "patient": item.patient, "subject": item.subject},
            item.places,
            {**item.given, **predict(item)},
            MEASURES,
        )
    ]
    frame = pd.DataFrame(rows)
    volumes = score_volumes(frame, MEASURES)
    found = score_methods(volumes, MEASURES)[""]["metrics"]
    with_lesion = frame[frame["lesion_pixels"] > 0][["overlap_pixels", "predicted_pixels", "lesion_pixels"]].sum()
    both = with_lesion["predicted_pixels"] + with_lesion["lesion_pixels"]
    by_patient = volumes.groupby("patient", sort=False)["dice"].mean()
    return {
        **{metric.name: found[metric.name]["mean"] for metric in MEASURES},
        LESION_SLICES: float(2 * with_lesion["overlap_pixels"] / both),
        "patients": {str(name): float(value) for name, value in by_patient.dropna().items()},
    }


def write_found(path: Path, items: Sequence[Item], arms: Mapping[str, Callable[[], Predict]]) -> None:
    """Write a picture: some patients' slices with the largest lesion, as annotated and as each arm finds it.

    Args:
        path: of the picture.
        items: the scans.
        arms: what finds masks, by the column's title; each is loaded when it is its turn.
    """
    slices = spread(shown_slices(volume_of(item) for item in items))
    panels = [[one.panel(one.image), one.panel(one.image, one.lesion)] for one in slices]
    for load in arms.values():
        predict = load()
        for row, one in zip(panels, slices, strict=True):
            found = predict(items[one.volume])["prediction"]
            row.append(one.panel(one.image, found[one.row, 0].numpy()))
    save_png(path, mosaic(["input", "annotated", *arms], panels, "largest lesion of a patient; not for diagnosis"))
