"""Many scans, one predictor: read, predict, write; go on after a bad one.

While the network works on a scan, the next one is read and the one before is written, each by a thread: three scans at
most are in memory, however many there are.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OutputError, PipelineError, ScanError, UsageError
from pipeline.files import read_json, sha256
from pipeline.inference.bids import write_dataset_description
from pipeline.inference.inputs import Inputs
from pipeline.inference.load import Predictor
from pipeline.inference.modality_translator import ModalityTranslator
from pipeline.inference.outputs import BIDS, Form, Outputs, output_names
from pipeline.inference.preparation import Preparation
from pipeline.inference.products import ProductKind, Result
from pipeline.inference.shared_mask import SharedMask, read_mask, unnamed
from pipeline.memory import PeakMemory, is_full
from pipeline.preprocessing.domain import Features, compare, measure
from pipeline.scans import Scan, is_nifti, read_nifti, stem
from pipeline.scans.nifti import is_marked
from pipeline.scans.sources import Source


@dataclass(frozen=True)
class Finish:
    """What a command makes of a predictor's result before it is written, as `enhance` does.

    Args:
        main: name and kind of the main product then.
        settings: of it, as records keep them.
        apply: from the result to the one that is written.
    """

    main: tuple[str, ProductKind]
    settings: Mapping[str, Any]
    apply: Callable[[Result], Result]


@dataclass(frozen=True)
class Request:
    """What is asked for, beside the scans and the predictor.

    Args:
        form: in what form to write it.
        finish: what to make of the results before; None writes them as they are.
        channels: further sequences by name (of the one scan given); in a BIDS dataset they are found.
        masks: lesion mask of each scan that has one.
        shared_mask: lesion mask of all scans, which are of one person.
        brain: brain mask (of the one scan given).
        bias_correction: N4 before the network.
        template: scan to register to before the network.
        force: go on with a scan though it is unlike those of the training.
        keep_names: name results of DICOM after its folder.
        overwrite: make results again that are there.
        part: (k, n): of n runs that share the scans, take the share k, from 0.
    """

    form: Form = field(default_factory=Form)
    finish: Finish | None = None
    channels: Mapping[str, Path] = field(default_factory=dict)
    masks: Mapping[Source, Path] = field(default_factory=dict)
    shared_mask: SharedMask | None = None
    brain: Path | None = None
    bias_correction: bool = False
    template: Path | None = None
    force: bool = False
    keep_names: bool = False
    overwrite: bool = False
    part: tuple[int, int] = (0, 1)

    def beside(self, source: Source) -> tuple[Path, ...]:
        """All files that are read beside a scan."""
        drawn = [
            path for mask, scan in (self.shared_mask.drawn if self.shared_mask else ()) for path in (mask, scan.path)
        ]
        given = (self.masks.get(source), self.brain, self.template, *self.channels.values(), *drawn)
        return tuple(path for path in given if path not in (None, source.path))


@dataclass
class Record:
    """What became of one scan, as `--report` writes it.

    Args:
        name: of its results.
        status: `written`, `skipped` or `failed`.
        files: what was written.
        numbers: what was estimated, each with its unit.
        error: why it failed.
        seconds: of reading, inference and writing.
        peak_memory_mib: the highest memory of the whole process during inference; None where the system
            does not tell.
        beside: the files that were given beside the scan, which `error` may name.
    """

    name: str
    status: str
    files: list[Path] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mib: float | None = None
    beside: tuple[Path, ...] = ()

    @property
    def main(self) -> str:
        """Name of the main volume's file, or of its folder if it is a DICOM series."""
        if not self.files:
            return ""
        first = self.files[0]
        return first.parent.name if first.suffix == ".dcm" else first.name


@dataclass
class Outcome:
    """What became of each scan, by what was named."""

    records: dict[Source, Record] = field(default_factory=dict)

    def of(self, status: str) -> dict[Source, Record]:
        """The scans of this status."""
        return {source: record for source, record in self.records.items() if record.status == status}


@dataclass
class _Loaded:
    """A scan that was read, or is done, or cannot be read."""

    outputs: Outputs
    request: dict[str, Any]
    scan: Scan | None = None
    channels: dict[str, Scan] = field(default_factory=dict)
    mask: Scan | None = None
    notes: list[str] = field(default_factory=list)
    error: PipelineError | None = None
    seconds: float = 0.0


def predict_scans(
    sources: Sequence[Source],
    predictor: Predictor,
    provenance: Mapping[str, Any],
    folder: Path,
    report: Callable[[str, str], None],
    request: Request | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Outcome:
    """Write a predictor's products for each scan.

    Args:
        sources: the scans.
        predictor: with its weights.
        provenance: which bundle and weights, for the sidecars.
        folder: output folder.
        report: called with the name of each scan's results and what became of it.
        request: what to make.
        metadata: of the bundle: what it was trained on, and its references.

    Raises:
        UsageError: if results cannot be written at all.
    """
    request = request or Request()
    # First: it refuses a folder that is a dataset of something else.
    for dataset in {source.dataset for source in sources if source.dataset is not None}:
        write_dataset_description(folder, dataset)
    work = _Work(predictor, dict(provenance), folder, request, dict(metadata or {}))
    outcome = Outcome()

    def finish(source: Source, record: Record, writing: Future[list[str]] | None) -> None:
        try:
            notes = writing.result() if writing else []
        except OutputError:
            raise
        except PipelineError as error:
            record.status, record.error, notes = "failed", str(error), []
        outcome.records[source] = record
        said = {
            "written": ", ".join(
                [f"{name} {value}" for name, value in record.numbers.items()] or [f"wrote {record.main}"]
            ),
            "skipped": "done before, skipped",
            "failed": f"failed: {record.error}",
        }
        report(record.name, said[record.status])
        for note in notes:
            report(record.name, note)

    with ThreadPoolExecutor(1) as writer:
        before: tuple[Source, Record, Future[list[str]] | None] | None = None
        for (name, source), loaded in work.read_ahead(output_names(sources, request.keep_names, request.part)):
            record, result, about = work.make(name, source, loaded)
            # At most one result waits while the next is made.
            if before:
                finish(*before)
            before = source, record, writer.submit(work.write, record, loaded, result, about) if result else None
        if before:
            finish(*before)
    return outcome


class DomainCheck:
    """Compares a scan, as the network will see it, with those that the network was trained on; see `Inputs.check`.

    Args:
        trained_on: metadata of the bundle.
        name: of the scan, in messages.
        remedy: what makes the scan all the same.
        force: make it all the same.

    Attributes:
        warnings: in what it is unlike.
        features: what was seen of each scan.
    """

    def __init__(self, trained_on: Mapping[str, Any], name: str, remedy: str, force: bool) -> None:
        self.trained_on, self.name, self.remedy, self.force = trained_on, name, remedy, force
        self.warnings: list[str] = []
        self.features: list[Features | None] = []

    def __call__(self, seen: Scan, windowed: NDArray[np.float32]) -> list[str]:
        """Gives notes.

        Raises:
            ScanError: if the scan is too unlike, and nobody insists.
        """
        findings = compare(seen, windowed, self.trained_on)
        self.features.append(findings.features)
        if findings.refusals and not self.force:
            raise ScanError(f"{self.name}: {'; '.join(findings.refusals)}; {self.remedy} makes it all the same")
        self.warnings.extend([*findings.refusals, *findings.warnings])
        return findings.notes


class _Work:
    """The steps of one scan, each called by the thread whose part it is."""

    def __init__(
        self,
        predictor: Predictor,
        provenance: dict[str, Any],
        folder: Path,
        request: Request,
        metadata: dict[str, Any],
    ) -> None:
        self.predictor = predictor
        self.provenance = provenance
        self.folder = folder
        self.request = request
        self.metadata = metadata
        self.trained_on = predictor.trained_on(metadata) if isinstance(predictor, ModalityTranslator) else metadata
        self.steps = Preparation(
            brain=read_nifti(request.brain, constant_ok=True) if request.brain else None,
            bias_correction=request.bias_correction,
            template=read_nifti(request.template) if request.template else None,
        )

    def read_ahead(self, named: Mapping[str, Source]) -> Iterator[tuple[tuple[str, Source], _Loaded]]:
        """Each scan, while a thread reads the next."""
        waiting = list(named.items())
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.load, *waiting[0]) if waiting else None
            for place, item in enumerate(waiting):
                loaded = coming.result()  # type: ignore[union-attr]
                coming = reader.submit(self.load, *waiting[place + 1]) if place + 1 < len(waiting) else None
                yield item, loaded

    def load(self, name: str, source: Source) -> _Loaded:
        """Read a scan, unless it is done."""
        start = time.monotonic()
        finish = self.request.finish
        main = finish.main if finish else self.predictor.main
        loaded = _Loaded(Outputs(self.folder, name, source, main, self.request.form), {})
        try:
            loaded.outputs.check()
            channels = self._channels(source)
            loaded.request = self.record(name, source, channels)
            if self.request.overwrite or not loaded.outputs.done(loaded.request):
                mask = self.request.masks.get(source)
                with _enough_memory(source):
                    loaded.mask = read_mask(mask, source) if mask else None
                    loaded.channels = {each: read_nifti(path) for each, path in channels.items()}
                    scan = source.read()
                refuse_synthetic(source, scan)
                if self.request.shared_mask:
                    with _enough_memory(source):
                        loaded.mask, loaded.notes = self.request.shared_mask.on(source, scan)
                loaded.scan = scan
        except PipelineError as error:
            loaded.error = error
        loaded.seconds = time.monotonic() - start
        return loaded

    def record(self, name: str, source: Source, channels: Mapping[str, Path]) -> dict[str, Any]:
        """The whole request for a scan, by which a later run tells whether a result is the one it would make."""
        request, page = self.request, self.request.form.page
        named = source.kind != "dicom"
        return {
            "Source": {"Name": source.path.name if named else name, "Sha256": source.sha256()},
            "Channels": {each: _file(path, named) for each, path in channels.items()},
            "Mask": _file(request.masks.get(source), named),
            **_shared(request.shared_mask, named),
            **self.predictor.settings,
            **(request.finish.settings if request.finish else {}),
            "OutputType": request.form.output_type,
            "BrainMask": _file(request.brain, named),
            "BiasCorrection": request.bias_correction,
            "Template": _file(request.template, named),
            "Page": page is not None,
            "Viewer": bool(page and page.viewer),
            **self.provenance,
        }

    def _channels(self, source: Source) -> dict[str, Path]:
        """Files of the further sequences: those that were named, else those of the same session in a BIDS dataset."""
        found = dict(self.request.channels)
        bids = BIDS.fullmatch(source.stem) if source.dataset else None
        if bids:
            for name in self.predictor.channels[1:]:
                for suffix in (".nii", ".nii.gz"):
                    beside = source.path.with_name(f"{bids[1]}_{name}{suffix}")
                    if beside.is_file():
                        found.setdefault(name, beside)
        unknown = sorted(found.keys() - set(self.predictor.channels[1:]))
        if unknown:
            raise UsageError(
                f"--channel {unknown[0]}: the bundle takes {', '.join(self.predictor.channels[1:]) or 'none'} beside "
                "the scan; leave it out"
            )
        return found

    def _steps(self, source: Source) -> Preparation:
        """For DICOM without the names of files, which may be a patient's."""
        if source.kind != "dicom":
            return self.steps
        brain, template = (
            scan and unnamed(scan, what, sha256(scan.origin))
            for scan, what in ((self.steps.brain, "a mask"), (self.steps.template, "a scan"))
        )
        return replace(self.steps, brain=brain, template=template)

    def make(self, name: str, source: Source, loaded: _Loaded) -> tuple[Record, Result | None, dict[str, Any]]:
        """Check a scan against the training's, and make its products."""
        beside = self.request.beside(source)
        if loaded.error is not None:
            return Record(name, "failed", error=str(loaded.error), beside=beside), None, {}
        if loaded.scan is None:
            return Record(name, "skipped"), None, {}
        check = DomainCheck(self.trained_on, str(source.path), "--force", self.request.force)
        memory, start = PeakMemory(self.predictor.device), time.monotonic()
        try:
            with _enough_memory(source):
                steps = self._steps(source)
                # What was not trained takes any scan.
                checked = check if self.predictor.networks else None
                result = self.predictor(Inputs(loaded.scan, loaded.channels, loaded.mask, steps, checked))
                result = replace(result, notes=[*result.notes, *loaded.notes])
                if self.request.finish:
                    result = self.request.finish.apply(result)
        except PipelineError as error:
            return Record(name, "failed", error=str(error), beside=beside), None, {}
        seconds = {"read": loaded.seconds, "inference": time.monotonic() - start}
        about = {
            **self.provenance,
            "Citations": self.metadata.get("references", []),
            "Device": str(self.predictor.device),
            "Warnings": check.warnings,
            "SkullStripped": _skull_stripped(
                result, check.features[0] if check.features and not self.request.brain else None
            ),
        }
        numbers = {
            product.title: f"{product.value:.4g} {'' if product.units == '1' else product.units}".strip()
            for product in result.products
            if product.kind == "number"
        }
        if numbers:
            numbers |= {
                figure.label.lower(): f"{figure.text} {figure.units} {figure.detail}".replace("  ", " ")
                for figure in result.figures
                if not figure.leading
            }
        record = Record(name, "written", numbers=numbers, seconds=seconds, peak_memory_mib=memory.mib(), beside=beside)
        return record, result, about

    def write(self, record: Record, loaded: _Loaded, result: Result, about: dict[str, Any]) -> list[str]:
        """Write all files of a scan; returns warnings and notes for the user."""
        start = time.monotonic()
        source = loaded.outputs.source
        try:
            with _enough_memory(source):
                record.files, sidecar = loaded.outputs.write(result, loaded.request, about)
        except FileNotFoundError as error:
            raise ScanError(
                f"{source.path}: found that results went while they were written, expected them to stay; another run "
                "may write into the same folder, start again when it has ended"
            ) from error
        record.seconds["write"] = time.monotonic() - start
        warnings = [f"warning: {sentence}" for sentence in sidecar["Warnings"]]
        return warnings + [f"note: {note}" for note in sidecar["Notes"]]


def _skull_stripped(result: Result, features: Features | None) -> bool | None:
    """Whether the results show the brain only: they keep what a brain mask hides from a network."""
    if features is None:
        scan = result.scan
        features = measure(result.window.apply(scan.axial(scan.intensities())), scan.axial_spacing_mm)
    return None if features is None else features.skull_stripped


def _file(path: Path | None, named: bool) -> dict[str, str] | None:
    if path is None:
        return None
    return {"Name": path.name, "Sha256": sha256(path)} if named else {"Sha256": sha256(path)}


def _shared(mask: SharedMask | None, named: bool) -> dict[str, Any]:
    if mask is None:
        return {}
    drawn = [{**(_file(path, named) or {}), "ScanSha256": source.sha256()} for path, source in mask.drawn]
    return {"SharedMask": {"Drawn": drawn, "Moved": mask.moved}}


@contextlib.contextmanager
def _enough_memory(source: Source) -> Iterator[None]:
    """Tell where memory runs out, whichever library finds out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        raise ScanError(
            f"{source.path}: found too little memory for a scan of this size, expected some twelve times what its "
            "voxels take; free memory, crop the scan, or run fewer at once"
        ) from error


def refuse_marked(scan: Scan) -> None:
    """Refuse a result of ours as a scan.

    Raises:
        ScanError: if its header says that it is one.
    """
    if is_marked(scan.header):
        raise ScanError(f"{scan.origin}: is synthetic already, as its header says, expected a scan of a scanner")


def refuse_synthetic(source: Source, scan: Scan) -> None:
    """Results of ours say so in their header, those of others in the sidecar beside them; DICOM is refused before.

    Raises:
        ScanError: if it is one.
    """
    refuse_marked(scan)
    if not is_nifti(source.path):
        return
    sidecar = source.path.with_name(f"{stem(source.path)}.json")
    if read_json(sidecar).get("SyntheticData") is True:
        raise ScanError(f"{source.path}: is synthetic already, as {sidecar.name} says, expected a scan of a scanner")
