"""What each kind of predictor makes of a volume, as fields that metrics need, and what its controls make of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.evaluation.controls import (
    CONTROLS,
    DEGRADED,
    EMPTY,
    HISTOGRAM,
    INTENSITY,
    SOURCE,
    THRESHOLD,
    empty,
    fitted_guess,
    fitted_histogram,
    fitted_intensities,
    fitted_threshold,
)
from pipeline.evaluation.fills import FILLS
from pipeline.evaluation.judge import Judge
from pipeline.evaluation.restorations import restored
from pipeline.evaluation.volumes import (
    HEALTHY,
    PATHOLOGICAL,
    Volume,
    pathological_subjects,
    read_channels,
    read_volume,
    subjects_with,
    targets,
)
from pipeline.metrics.lesion_size import size_classes
from pipeline.preprocessing.cohort_format import Subject, read_cohort
from pipeline.preprocessing.modalities import LABELS

Fields = dict[str, Any]
PRESENCE = (HEALTHY, PATHOLOGICAL)  # classes of a slice by its `lesion`, which need no target of the cohort


@dataclass(frozen=True)
class Item:
    """What one prediction is made for: the slices of a volume, one of its slices, or a scan as a whole.

    Attributes:
        subject: name of the scan in the cohort.
        patient: the person.
        places: index of each slice in its slab; a single None for a scan as a whole.
        given: fields that are known without any predictor.
        volume: the slices, where single slices are predicted.
        slab: all slices in [0, 1] by channel, and their voxels' size, where the scan or one slice is scored.
    """

    subject: str
    patient: str
    places: list[int | None]
    given: Fields
    volume: Volume | None = None
    slab: tuple[Mapping[str, NDArray[np.float32]], tuple[float, float, float]] | None = None


Predict = Callable[[Item], Fields]


@dataclass(frozen=True)
class Kind:
    """How predictors of one kind are evaluated.

    Attributes:
        task: what they do, for the report's title.
        unit: what is counted.
        items: the subjects of a split, by name, each read when it is its turn.
        predict: fields that a predictor adds to those of an item.
        controls: what learns nothing, or next to nothing, by name, from a cohort; they ask the predictor what it takes
            and gives, and nothing where a kind leaves no choice (None will do).
    """

    task: str
    unit: str
    items: Callable[[Path, str], Mapping[str, Callable[[], Item]]]
    predict: Callable[[Any, Item], Fields]
    controls: Callable[[Path, Any], Mapping[str, Predict]]


def kind_of(predictor: Any) -> Kind:
    """How a predictor is evaluated.

    Raises:
        UsageError: if there is no way to.
    """
    kind = KINDS.get(predictor.kind)
    if (getattr(predictor, "target", None), tuple(getattr(predictor, "classes", None) or ())) == ("lesion", PRESENCE):
        kind = LESION_PRESENCE
    if kind is None:
        raise UsageError(
            f"this bundle holds a {predictor.kind}, expected a {', '.join(list(KINDS)[:-1])} or {list(KINDS)[-1]} to "
            "evaluate on a cohort; choose another bundle"
        )
    return kind


def shown_to(predictor: Any, volume: Volume) -> tuple[NDArray[np.float32], list[int]]:
    """The slices that a predictor is shown, with the sequences that it takes, and which of them are the volume's.

    One whose slices depend on their neighbours is shown the whole slab: the volume's slices are none without gaps.

    Returns:
        Float32 in [0, 1], shape (slices, C, H, W), and indices of its slices.

    Raises:
        UsageError: if the cohort lacks a sequence.
    """
    if volume.slab is None:
        return volume.image.numpy(), list(range(len(volume.image)))
    slab = _sequences(predictor, volume, volume.slab)
    if getattr(predictor, "joins_slices", False):
        return slab, volume.places
    return slab[volume.places], list(range(len(volume.places)))


def _sequences(predictor: Any, volume: Volume, slab: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """All slices with the sequences that a predictor takes, shape (slices, C, H, W).

    Raises:
        UsageError: if the cohort lacks a sequence.
    """
    names = tuple(getattr(predictor, "channels", ("image",)))
    if len(names) == 1 and names[0] not in slab:
        names = (next(iter(slab)),)  # a bundle that takes any sequence
    missing = [name for name in names if name not in slab]
    if missing:
        raise UsageError(
            f"{volume.subject}: the cohort has {', '.join(slab)}, expected {', '.join(missing)} too, which the "
            "bundle takes; preprocess it with --channels"
        )
    return np.stack([slab[name] for name in names], axis=1)


def pseudo_healthy(translator: Any, volume: Volume) -> Tensor:
    """x_s = x_p + residual inside the foreground, in [0, 1], shape (N, 1, H, W), on the translator's device."""
    windowed, chosen = shown_to(translator, volume)
    residual = torch.from_numpy(translator.residual(windowed, volume.voxel_mm)[chosen])[:, None]
    return (volume.image + residual * volume.foreground).clamp(0, 1).to(translator.device)


def of_volume(volume: Volume) -> Item:
    """The slices of a volume, and what is known of them."""
    given = {
        "image": volume.image,
        "mask": volume.lesion,
        "foreground": volume.foreground,
        "spacing_mm": volume.spacing_mm,
        "voxel_ml": volume.voxel_ml,
    }
    if volume.truth is not None:
        sizes = size_classes(volume.slab_lesion, volume.voxel_ml)
        given |= {"truth": volume.truth, "sizes": torch.from_numpy(sizes[_rows(volume), None])}
    return Item(volume.subject, volume.patient, list(volume.places), given, volume)


def _rows(volume: Volume) -> list[int]:
    """Where the volume's slices are among those of its slab."""
    return list(range(len(volume.image))) if volume.whole is None else volume.places


def judged(twin: Tensor, item: Item, judge: Judge) -> Fields:
    """All fields of pseudo-healthy slices, on the judge's device: those of the volume, twin, and what f_pre finds."""
    fields = {**item.given, "twin": twin, "found": judge.predict(twin, volume_of(item).spacing_mm)}
    return {name: value.to(judge.device) if isinstance(value, Tensor) else value for name, value in fields.items()}


def _translate(translator: Any, item: Item) -> Fields:
    return {"twin": pseudo_healthy(translator, volume_of(item))}


def _fill(filler: Any, item: Item) -> Fields:
    volume = volume_of(item)
    slab = _sequences(filler, volume, volume.slab or {"image": volume.slab_image})
    filled = torch.from_numpy(filler.fill(slab, volume.slab_lesion, volume.voxel_mm)[_rows(volume), None])
    return {"twin": torch.where(volume.lesion, filled, volume.image)}


def _segment(segmenter: Any, item: Item) -> Fields:
    volume = volume_of(item)
    windowed, chosen = shown_to(segmenter, volume)
    probabilities = segmenter.probabilities(windowed, volume.voxel_mm)[chosen]
    found = torch.from_numpy(probabilities) >= segmenter.threshold
    # Of several labels, whatever is found: the cohort's mask does not tell them apart, but the scan's target may.
    fields = {"prediction": found.any(dim=1, keepdim=True)}
    if len(segmenter.labels) > 1 and volume.target in segmenter.labels:
        place = segmenter.labels.index(volume.target)
        fields["of_its_kind"] = found[:, place : place + 1]
    return fields


def _to_modality(translator: Any, item: Item) -> Fields:
    volume = volume_of(item)
    windowed, chosen = shown_to(translator, volume)
    made = torch.from_numpy(translator.translate(windowed, volume.voxel_mm)[chosen])[:, None]
    return {"translated": made, "target_image": _target_image(translator, volume)}


def _target_image(translator: Any, volume: Volume) -> Tensor:
    """What the target modality shows of a volume's slices, shape (N, 1, H, W).

    Raises:
        UsageError: if the cohort lacks it.
    """
    name = translator.target_modality
    if volume.slab is None or name not in volume.slab:
        raise UsageError(
            f"{volume.subject}: the cohort has {', '.join(volume.slab or ())}, expected {name} too, which the bundle "
            "translates into; preprocess it with --channels"
        )
    return torch.from_numpy(volume.slab[name][volume.places, None])


def _restore(restorer: Any, item: Item, untouched: bool = False) -> Fields:
    volume = volume_of(item)
    slab = _sequences(restorer, volume, volume.slab or {"image": volume.slab_image})
    return restored(restorer, volume, slab, untouched)


def _score(scorer: Any, item: Item) -> Fields:
    classes = getattr(scorer, "classes", None)
    if classes and ("label" not in item.given or len(classes) > 2):
        raise UsageError(
            f"{item.subject}: the bundle tells the classes {', '.join(classes)}, and an evaluation expects two "
            "and a cohort with the targets 0 and 1; its accuracy on held-out patients stands in the run's held_out.json"
        )
    windowed, spacing_mm = _slab_for(scorer, item)
    # The number, or the probability of the last class.
    return {"prediction": float(scorer.scores(windowed, spacing_mm).mean(axis=0)[-1])}


def _score_slice(scorer: Any, item: Item) -> Fields:
    windowed, spacing_mm = _slab_for(scorer, item)
    place = item.places[0] or 0
    if getattr(scorer, "joins_slices", False):
        return {"prediction": float(scorer.scores(windowed, spacing_mm)[place, -1])}
    return {"prediction": float(scorer.scores(windowed[place : place + 1], spacing_mm)[0, -1])}


def _slab_for(scorer: Any, item: Item) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """All slices with the sequences that a scorer takes, shape (slices, C, H, W), and their voxels' size."""
    if item.slab is None:
        raise ValueError(f"{item.subject}: holds no slab, expected a scan as a whole")
    slab, spacing_mm = item.slab
    names = getattr(scorer, "channels", ())
    # A bundle that takes any sequences takes all there are.
    taken = [slab[name] for name in names] if names and set(names) <= slab.keys() else list(slab.values())
    return np.stack(taken, axis=1), spacing_mm


def volume_of(item: Item) -> Volume:
    """The slices that single predictions are made for.

    Raises:
        ValueError: if it is a scan as a whole.
    """
    if item.volume is None:
        raise ValueError(f"{item.subject}: is a scan as a whole, expected slices")
    return item.volume


def _pathological(cohort: Path, split: str) -> Mapping[str, Callable[[], Item]]:
    return {
        record.subject: partial(lambda one: of_volume(read_volume(cohort, one)), record)
        for record in pathological_subjects(cohort, split)
    }


def _whole_volumes(cohort: Path, split: str) -> Mapping[str, Callable[[], Item]]:
    """Slices with and without lesion: there, whatever is found is a false alarm."""
    pathological_subjects(cohort, split)  # a split without any lesion says nothing about a segmenter
    return {
        record.subject: partial(lambda one: of_volume(read_volume(cohort, one, PATHOLOGICAL, HEALTHY)), record)
        for record in subjects_with(cohort, split, PATHOLOGICAL, HEALTHY)
    }


def _all_slices(cohort: Path, split: str) -> Mapping[str, Callable[[], Item]]:
    return {
        record.subject: partial(lambda one: of_volume(read_volume(cohort, one, *LABELS)), record)
        for record in subjects_with(cohort, split, *LABELS)
    }


def _scans(cohort: Path, split: str) -> Mapping[str, Callable[[], Item]]:
    name = _target_name(cohort)

    def read(record: Subject, target: float) -> Item:
        slab = read_channels(cohort, record), record.spacing_mm
        return Item(record.subject, record.patient, [None], {name: target}, slab=slab)

    return {subject: partial(read, *found) for subject, found in targets(cohort, split).items()}


def _slices(cohort: Path, split: str) -> Mapping[str, Callable[[], Item]]:
    """Each slice by itself, and whether it shows a lesion."""
    pathological_subjects(cohort, split)
    records = {record.subject: record for record in subjects_with(cohort, split, *PRESENCE)}

    @lru_cache(maxsize=1)
    def slab(subject: str) -> Mapping[str, NDArray[np.float32]]:
        return read_channels(cohort, records[subject])

    def read(name: str, record: Subject, place: int) -> Item:
        label = float(record.labels[place] == PATHOLOGICAL)
        return Item(name, record.patient, [place], {"label": label}, slab=(slab(record.subject), record.spacing_mm))

    return {
        (name := f"{record.subject}_slice-{place}"): partial(read, name, record, place)
        for record in records.values()
        for place, label in enumerate(record.labels)
        if label in PRESENCE
    }


def _target_name(cohort: Path) -> str:
    """`label` where all targets of the training patients are 0 or 1, else `target`.

    Raises:
        UsageError: if no training patient has a target.
    """
    values = {target for _, target in targets(cohort, "training").values()}
    if not values:
        raise UsageError(
            f"{cohort}: found no target of a training scan, expected one for each; preprocess again with a list that "
            "has targets"
        )
    return "label" if values <= {0.0, 1.0} else "target"


def _fills(cohort: Path, predictor: Any) -> Mapping[str, Predict]:
    """What fills the lesion without having learned; where the truth is known, more of them."""
    del predictor

    def in_slices(make: Callable[[Tensor, Tensor, Tensor], Tensor], item: Item) -> Fields:
        volume = volume_of(item)
        return {"twin": make(volume.image, volume.lesion, volume.foreground)}

    def in_volumes(make: Callable[[Volume], Tensor], item: Item) -> Fields:
        return {"twin": make(volume_of(item))}

    with_truth = any(record.truth is not None for record in read_cohort(cohort).subjects)
    more = {name: fill for name, fill in FILLS.items() if with_truth and fill.available}
    return {
        **{name: partial(in_slices, make) for name, make in CONTROLS.items()},
        **{name: partial(in_volumes, fill.make) for name, fill in more.items()},
    }


def _intensity_maps(cohort: Path, translator: Any) -> Mapping[str, Predict]:
    """Of the source that the translator takes, or the first of these."""

    def source(volume: Volume) -> NDArray[np.float32]:
        windowed, chosen = shown_to(translator, volume)
        return windowed[chosen, 0]

    def pairs() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        for read in _all_slices(cohort, "training").values():
            volume = volume_of(read())
            inside = volume.foreground[:, 0].numpy()
            yield source(volume)[inside], _target_image(translator, volume)[:, 0].numpy()[inside]

    def made(by: Callable[[NDArray[np.float32]], NDArray[np.float32]], item: Item) -> Fields:
        volume = volume_of(item)
        image = np.where(volume.foreground[:, 0].numpy(), by(source(volume)), np.float32(0))
        return {"translated": torch.from_numpy(image)[:, None], "target_image": _target_image(translator, volume)}

    maps = {
        SOURCE: lambda image: image,
        HISTOGRAM: fitted_histogram(pairs()),
        INTENSITY: fitted_intensities(pairs()),
    }
    return {name: partial(made, by) for name, by in maps.items()}


def _nothing_done(cohort: Path, restorer: Any) -> Mapping[str, Predict]:
    del cohort
    return {DEGRADED: partial(_restore, restorer, untouched=True)}


def _trivial_masks(cohort: Path, predictor: Any) -> Mapping[str, Predict]:
    del predictor
    threshold = fitted_threshold(
        read_volume(cohort, record, PATHOLOGICAL, HEALTHY)
        for record in subjects_with(cohort, "training", PATHOLOGICAL, HEALTHY)
    )
    makers = {THRESHOLD: threshold, EMPTY: empty}
    return {
        name: partial(lambda make, item: {"prediction": make(volume_of(item))}, make) for name, make in makers.items()
    }


def _guesses(cohort: Path, predictor: Any) -> Mapping[str, Predict]:
    del predictor
    values = [target for _, target in targets(cohort, "training").values()]
    return _always(values, classes=_target_name(cohort) == "label")


def _most_frequent(cohort: Path, predictor: Any) -> Mapping[str, Predict]:
    del predictor
    records = subjects_with(cohort, "training", *PRESENCE)
    labels = [label for record in records for label in record.labels if label in PRESENCE]
    return _always([float(label == PATHOLOGICAL) for label in labels], classes=True)


def _always(training: list[float], classes: bool) -> Mapping[str, Predict]:
    name, guess = fitted_guess(training, classes)
    return {name: lambda item: {"prediction": guess}}  # noqa: ARG005


KINDS: dict[str, Kind] = {
    "translator": Kind("pseudo-healthy synthesis", "pathological slice", _pathological, _translate, _fills),
    "filler": Kind("lesion filling", "pathological slice", _pathological, _fill, _fills),
    "segmenter": Kind("lesion segmentation", "slice", _whole_volumes, _segment, _trivial_masks),
    "scorer": Kind("prediction", "scan", _scans, _score, _guesses),
    "modality translator": Kind("translation between modalities", "slice", _all_slices, _to_modality, _intensity_maps),
    "restorer": Kind("restoration of simulated degradation", "slice", _all_slices, _restore, _nothing_done),
}
# Of a scorer whose classes are whether a slice shows a lesion.
LESION_PRESENCE = Kind("lesion presence", "slice", _slices, _score_slice, _most_frequent)
