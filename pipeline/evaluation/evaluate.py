"""Score a predictor on a preprocessed cohort, beside controls."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline import RESEARCH_ONLY, __version__
from pipeline.errors import UsageError
from pipeline.evaluation.bracketed import BRACKETS, ORIGINAL, ADiceSettings, ADiceSlices
from pipeline.evaluation.cases import Example, best_median_worst
from pipeline.evaluation.controls import NAMES, UNTOUCHED
from pipeline.evaluation.fills import FILLS
from pipeline.evaluation.judge import ITERATIONS, SCALES, SEED, Judge, load_judge
from pipeline.evaluation.own import OwnNetworks
from pipeline.evaluation.predictions import Fields, Item, Kind, Predict, judged, kind_of, pseudo_healthy, volume_of
from pipeline.evaluation.probes import Hallucination
from pipeline.evaluation.scores import DEFINITIONS, score_methods, score_rows
from pipeline.evaluation.shares import Share
from pipeline.evaluation.slice_table import SliceTable
from pipeline.evaluation.twins import Twins
from pipeline.evaluation.volumes import HEALTHY, read_volume, subjects_with
from pipeline.files import sha256
from pipeline.metrics import A_DICE, METRICS, ms_ssim_padding
from pipeline.metrics.metric import Metric, metrics_for
from pipeline.preprocessing.cohort_format import COHORT_FILE

FORMAT = 2
# By what the cases to look at are chosen: the first of these that a volume has.
CASES_BY = {"healthiness": "healthiness", "dice": "Dice"}
TWINS = {"translator", "filler"}  # kinds that make pseudo-healthy images


@dataclass(frozen=True)
class Settings:
    """What to evaluate on, and how.

    Args:
        name: of the method, in tables.
        provenance: where the method comes from (bundle, hashes), for the summary.
        split: `training`, `validation` or `test`.
        judge_iterations: of the training of the judge of healthiness.
        judge: how large it is, of `judge.SCALES`; None leaves healthiness out.
        a_dice: how to measure A-Dice; None does not measure it.
    """

    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    split: str = "test"
    judge_iterations: int = ITERATIONS
    judge: str | None = "default"
    a_dice: ADiceSettings | None = None


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        summary: the content of `summary.json`.
        slices: a row for each method and slice (for each scan, where scans are scored).
        volumes: a row for each method and volume.
        cases: best, median and worst volume, where slices can be looked at.
    """

    summary: dict[str, Any]
    slices: SliceTable
    volumes: pd.DataFrame
    cases: list[Example]


def evaluate(
    predictor: Any,
    cohort: Path,
    settings: Settings,
    own_networks: Mapping[str, nn.Module] | None = None,
    keep: Callable[[Twins], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    shares: Callable[[Mapping[str, Any]], Sequence[Share]] | None = None,
) -> Evaluation:
    """Measure a predictor and the controls of its kind with all metrics whose needs it meets, on a split of a cohort.

    Images are compared on the scans' own pixels, with a translator's residual carried there as `synthesize` does. One
    volume is in memory at a time.

    Args:
        predictor: of a kind in `predictions.KINDS`; its device is used throughout.
        cohort: folder made by `phs-pipeline preprocess`; the judge is kept in its folder `judge`.
        settings: what to evaluate on, and how.
        own_networks: what a translator has beside its main network, see `pipeline.evaluation.own`.
        keep: called with each volume's images and twins, which are not kept otherwise.
        progress: called with (volumes done, volumes in all).
        shares: gives those that together hold what is wanted, in place of measuring: of `evaluate_share`.

    Raises:
        UsageError: if the split has nothing to evaluate on, the predictor is of a kind without metrics, or the method
            has the name of a control.
    """
    items, measures = _begun(predictor, cohort, settings, own_networks)
    if shares is not None:
        measures.join(shares(measures.wanted()), items)
    else:
        measures.add_all(items, keep, progress)
        measures.add_healthy()
    return measures.evaluation(items)


def evaluate_share(
    predictor: Any,
    cohort: Path,
    settings: Settings,
    part: tuple[int, int],
    own_networks: Mapping[str, nn.Module] | None = None,
    keep: Callable[[Twins], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Share:
    """Measure some volumes of a split, for runs that share it; `evaluate` makes one report of all shares.

    Args:
        predictor: as for `evaluate`, as are all others.
        cohort: see above.
        settings: see above; A-Dice, which looks at all volumes at once, cannot be shared.
        part: (k, n) for every n-th volume, from the k-th.
        own_networks: see above.
        keep: see above.
        progress: see above, of this share.

    Raises:
        UsageError: as for `evaluate`.
    """
    if settings.a_dice is not None:
        raise UsageError("A-Dice looks at all volumes at once; leave it out, or evaluate without shares")
    items, measures = _begun(predictor, cohort, settings, own_networks)
    first, step = part
    chosen = dict(list(items.items())[first::step])
    measures.add_all(chosen, keep, progress)
    measures.add_healthy(part)
    return measures.share()


def _begun(
    predictor: Any, cohort: Path, settings: Settings, own_networks: Mapping[str, nn.Module] | None
) -> tuple[Mapping[str, Callable[[], Item]], "_Measures"]:
    cohort, kind = Path(cohort), kind_of(predictor)
    if settings.name in (*NAMES, *FILLS, *BRACKETS):
        raise UsageError(f"{settings.name}: is what a row of every table is called; give the method another name")
    items = kind.items(cohort, settings.split)
    if not items:
        raise UsageError(
            f"{cohort}: found no {kind.unit} with a target in the {settings.split} split, expected some; choose another"
        )
    return items, _Measures(predictor, kind, cohort, settings, own_networks or {})


class _Measures:
    """Collects what the rows of the table make of one volume after the other."""

    def __init__(
        self, predictor: Any, kind: Kind, cohort: Path, settings: Settings, own_networks: Mapping[str, nn.Module]
    ) -> None:
        self.predictor, self.kind, self.cohort, self.settings = predictor, kind, cohort, settings
        self.device = torch.device(predictor.device)
        self.makes: dict[str, Predict] = {
            settings.name: partial(kind.predict, predictor),
            **kind.controls(cohort, predictor),
        }
        self.slices = SliceTable()
        self.available: set[str] = set()
        self.padding: dict[tuple[int, int], tuple[int, int]] = {}
        self.judge: Judge | None = None
        self.hallucination: Hallucination | None = None
        self.own: OwnNetworks | None = None
        self.a_dice: ADiceSlices | None = None
        self.scale = SCALES[settings.judge] if predictor.kind in TWINS and settings.judge is not None else None
        if self.scale is not None:
            self.judge = load_judge(cohort, SEED, settings.judge_iterations, self.device, self.scale)
        if predictor.kind in TWINS and settings.a_dice is not None:
            self.a_dice = ADiceSlices(cohort, settings.split, settings.a_dice)
        if predictor.kind == "translator":
            self.hallucination = Hallucination()
            self.own = OwnNetworks(predictor, own_networks, self.judge)

    def add_all(
        self,
        items: Mapping[str, Callable[[], Item]],
        keep: Callable[[Twins], None] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Score the method and the controls on volumes, one after the other."""
        for done, read in enumerate(items.values(), start=1):
            self.add(read(), keep)
            if progress:
                progress(done, len(items))

    def add(self, item: Item, keep: Callable[[Twins], None] | None) -> None:
        """Score the method and the controls on one volume."""
        twins: dict[str, Tensor] = {}
        for name, make in self.makes.items():
            given = self._complete(item, name, make(item))
            self.available |= set(given)
            keys = {"method": name, "patient": item.patient, "subject": item.subject}
            self.slices.add(score_rows(keys, item.places, given, METRICS.values()))
            if "twin" in given:
                twins[name] = given["twin"]
        if item.volume is None or not twins:
            return
        twin = twins[self.settings.name]
        if keep is not None:
            keep(Twins.of(item.volume, twin))
        if self.hallucination is not None:
            self.hallucination.add("outside_lesion", item.volume, twin)
        if self.own is not None and self.own.steganography is not None:
            self.own.steganography.add(item.volume)
        if self.a_dice is not None:
            images = {name: twin for name, twin in twins.items() if name != UNTOUCHED and name not in FILLS}
            self.a_dice.add(item.volume, images)
        height, width = item.volume.image.shape[-2:]
        self.padding[height, width] = ms_ssim_padding(height, width)

    def _complete(self, item: Item, name: str, made: Fields) -> Fields:
        """All fields of a row of the table; the method's own networks belong to its row alone."""
        own = {}
        if self.own is not None and item.volume is not None and name == self.settings.name:
            own = self.own.fields(item.volume)
        if self.judge is not None and item.volume is not None:
            return {**judged(made["twin"].to(self.judge.device), item, self.judge), **own}
        fields = {**item.given, **made, **own}
        return {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in fields.items()}

    def add_healthy(self, part: tuple[int, int] = (0, 1)) -> None:
        """Slices without lesion, in which nothing should change: of every n-th scan, from the k-th."""
        if self.hallucination is None:
            return
        first, step = part
        for record in subjects_with(self.cohort, self.settings.split, HEALTHY)[first::step]:
            volume = read_volume(self.cohort, record, HEALTHY)
            self.hallucination.add("healthy_slices", volume, pseudo_healthy(self.predictor, volume))

    def wanted(self) -> dict[str, Any]:
        """What is measured with what: in this, shares of one evaluation agree."""
        return {
            "pipeline_version": __version__,
            "cohort": sha256(self.cohort / COHORT_FILE),
            "method": asdict(self.settings),
            "controls": list(self.makes)[1:],
            "judge": self.judge.about if self.judge is not None else None,
        }

    def share(self) -> Share:
        """What was measured, for `join`."""
        steganography = self.own.steganography if self.own is not None else None
        sums = {
            "available": sorted(self.available),
            "padding": [[*shape, *added] for shape, added in self.padding.items()],
            "hallucination": self.hallucination and self.hallucination.counts,
            "steganography": steganography and steganography.sums(),
        }
        return Share(self.wanted(), self.slices, sums)

    def join(self, shares: Sequence[Share], subjects: Iterable[str]) -> None:
        """Take what was measured in shares, as if it had been measured here, volume after volume."""
        self.slices = SliceTable.joined([share.slices for share in shares], subjects)
        steganography = self.own.steganography if self.own is not None else None
        for share in shares:
            self.available |= set(share.sums["available"])
            self.padding |= {(h, w): (below, right) for h, w, below, right in share.sums["padding"]}
            if self.hallucination is not None:
                self.hallucination.join(share.sums["hallucination"])
            if steganography is not None:
                steganography.join(share.sums["steganography"])

    def evaluation(self, items: Mapping[str, Callable[[], Item]]) -> Evaluation:
        """All that was measured."""
        name = self.settings.name
        metrics = metrics_for(METRICS, self.available)
        volumes = self.slices.volumes(metrics)
        methods = score_methods(volumes, metrics)
        a_dice = self.a_dice.measure(name, self.device) if self.a_dice is not None else None
        if a_dice is not None:
            metrics = [*metrics, A_DICE]
            _add_a_dice(methods, a_dice)
        by = next((metric for metric in CASES_BY if metric in volumes), None)
        cases = self._cases(volumes[volumes["method"] == name], by, items) if by else []
        return Evaluation(self._summary(volumes, metrics, methods, a_dice, by, cases), self.slices, volumes, cases)

    def _cases(self, volumes: pd.DataFrame, by: str, items: Mapping[str, Callable[[], Item]]) -> list[Example]:
        """Best, median and worst volume, each by the slice with its largest lesion."""
        ordered = volumes.sort_values(by, ascending=False, kind="stable")[["subject", by]].to_dict("records")
        cases = []
        for title, row in best_median_worst(ordered).items():
            item = items[row["subject"]]()
            volume = volume_of(item)
            name = self.settings.name
            given = self._complete(item, name, self.makes[name](item))
            largest = int(volume.lesion.sum(dim=(1, 2, 3)).argmax())
            twin, reconstruction = given.get("twin"), given.get("reconstruction")
            predicted = given["found"] if twin is not None else given["prediction"]
            cases.append(
                Example(
                    title=title,
                    subject=item.subject,
                    place=volume.places[largest],
                    score=float(row[by]),
                    image=volume.image[largest, 0].numpy(),
                    lesion=volume.lesion[largest, 0].numpy(),
                    pseudo_healthy=None if twin is None else twin[largest, 0].cpu().numpy(),
                    predicted=predicted[largest, 0].cpu().numpy(),
                    spacing_mm=volume.spacing_mm,
                    reconstruction=None if reconstruction is None else reconstruction[largest, 0].cpu().numpy(),
                )
            )
        return cases

    def _summary(
        self,
        volumes: pd.DataFrame,
        metrics: list[Metric],
        methods: dict[str, Any],
        a_dice: dict[str, Any] | None,
        by: str | None,
        cases: list[Example],
    ) -> dict[str, Any]:
        settings = self.settings
        own = volumes[volumes["method"] == settings.name]
        judge = self.judge and self.scale and {**self.judge.about, "departure": self.scale.departure}
        steganography = self.own.steganography if self.own is not None else None
        probes = self.hallucination and {
            "hallucination": self.hallucination.summary(),
            "steganography": steganography.summary() if steganography is not None else None,
        }
        absent = {name: fill.package for name, fill in FILLS.items() if not fill.available}
        return {
            "format": FORMAT,
            "pipeline_version": __version__,
            "warning": RESEARCH_ONLY,
            "method": settings.name,
            "kind": self.predictor.kind,
            "task": self.kind.task,
            "provenance": dict(settings.provenance),
            "device": str(self.device),
            "cohort": {
                "sha256": sha256(self.cohort / COHORT_FILE),
                "split": settings.split,
                "patients": int(own["patient"].nunique()),
                "volumes": int(own["subject"].nunique()),
                "slices": int(own["slices"].sum()),
                "unit": self.kind.unit,
            },
            "metrics": [metric.record() for metric in metrics],
            "methods": methods,
            "left_out": absent if "sizes" in self.available else {},
            "judge": judge,
            "probes": probes,
            "a_dice": a_dice,
            "ms_ssim_padding": [
                {"slice": list(shape), "added": list(added)} for shape, added in self.padding.items() if any(added)
            ],
            "cases_by": CASES_BY[by] if by else None,
            "cases": [{"title": case.title, "subject": case.subject, "slice": case.place} for case in cases],
            "definitions": DEFINITIONS,
        }


def _add_a_dice(methods: dict[str, Any], a_dice: dict[str, Any]) -> None:
    """Into the methods' figures; the untouched input is the original images."""
    for row, score in a_dice["images"].items():
        name = UNTOUCHED if row == ORIGINAL else row
        if name in methods:
            methods[name]["metrics"][A_DICE.name] = {
                "mean": score["mean"],
                "sd": score["sd"],
                "n": len(score["seeds"]),
                "collapsed": int(np.sum(score["collapsed"])),
                "identical": 0,
            }
