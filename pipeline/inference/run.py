"""Many scans, one model: read, synthesise, write; go on after a bad one.

While the network works on a scan, the next one is read and the one before is written, each by a thread: three scans at
most are in memory, however many there are.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import OutputError, PipelineError, ScanError
from pipeline.files import read_json, sha256
from pipeline.inference.bids import write_dataset_description
from pipeline.inference.outputs import Outputs, Products, output_names
from pipeline.inference.steps import Steps
from pipeline.inference.translator import Translator, Twin
from pipeline.memory import PeakMemory
from pipeline.preprocessing.domain import compare
from pipeline.scans import Scan, is_nifti, read_nifti, stem
from pipeline.scans.nifti import is_marked
from pipeline.scans.sources import Source

# Of torch's allocator for the CPU, which has no exception of its own.
NO_MEMORY = "DefaultCPUAllocator"


@dataclass(frozen=True)
class Request:
    """What is asked for, beside the scans and the model.

    Args:
        products: what to write.
        mask: lesion mask that confines the edits (of the one scan given).
        brain: brain mask (of the one scan given).
        bias_correction: N4 before the network.
        template: scan to register to before the network.
        uncertainty: write an uncertainty map too.
        force: make a scan's twin though it is unlike those of the training.
        keep_names: name results of DICOM after its folder.
        overwrite: make results again that are there.
        part: (k, n): of n runs that share the scans, take the share k, from 0.
    """

    products: Products = field(default_factory=Products)
    mask: Path | None = None
    brain: Path | None = None
    bias_correction: bool = False
    template: Path | None = None
    uncertainty: bool = False
    force: bool = False
    keep_names: bool = False
    overwrite: bool = False
    part: tuple[int, int] = (0, 1)


@dataclass
class Record:
    """What became of one scan, as `--report` writes it.

    Args:
        name: of its results.
        status: `written`, `skipped` or `failed`.
        files: what was written.
        error: why it failed.
        seconds: of reading, synthesis and writing.
        peak_memory_mib: the highest memory of the whole process while the scan was synthesised; None where the system
            does not tell.
    """

    name: str
    status: str
    files: list[Path] = field(default_factory=list)
    error: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mib: float | None = None

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
    lesion: Scan | None = None
    error: PipelineError | None = None
    seconds: float = 0.0


def synthesize_scans(
    sources: Sequence[Source],
    synthesizer: Translator,
    provenance: Mapping[str, Any],
    folder: Path,
    report: Callable[[str, str], None],
    request: Request | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Outcome:
    """Write the pseudo-healthy twin, or the enhanced version, of each scan.

    Args:
        sources: the scans.
        synthesizer: the loaded model.
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
    work = _Work(synthesizer, dict(provenance), folder, request, dict(metadata or {}))
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
            "written": f"wrote {record.main}",
            "skipped": "done before, skipped",
            "failed": f"failed: {record.error}",
        }
        report(record.name, said[record.status])
        for note in notes:
            report(record.name, note)

    with ThreadPoolExecutor(1) as writer:
        before: tuple[Source, Record, Future[list[str]] | None] | None = None
        for (name, source), loaded in work.read_ahead(output_names(sources, request.keep_names, request.part)):
            record, twin, about = work.make(name, source, loaded)
            # At most one twin waits while the next is made.
            if before:
                finish(*before)
            before = source, record, writer.submit(work.write, record, loaded, twin, about) if twin else None
        if before:
            finish(*before)
    return outcome


class _Work:
    """The steps of one scan, each called by the thread whose part it is."""

    def __init__(
        self,
        synthesizer: Translator,
        provenance: dict[str, Any],
        folder: Path,
        request: Request,
        metadata: dict[str, Any],
    ) -> None:
        self.synthesizer = synthesizer
        self.provenance = provenance
        self.folder = folder
        self.request = request
        self.metadata = metadata
        self.steps = Steps(
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
        loaded = _Loaded(Outputs(self.folder, name, source, self.request.products), {})
        try:
            loaded.outputs.check()
            loaded.request = self.asked(name, source)
            if self.request.overwrite or not loaded.outputs.done(loaded.request):
                mask = self.request.mask
                with _enough_memory(source):
                    loaded.lesion = read_nifti(mask, constant_ok=True) if mask else None
                    scan = source.read()
                _refuse_synthetic(source, scan)
                loaded.scan = scan
        except PipelineError as error:
            loaded.error = error
        loaded.seconds = time.monotonic() - start
        return loaded

    def asked(self, name: str, source: Source) -> dict[str, Any]:
        """By what a later run knows that a result is the one it would make."""
        request = self.request
        return {
            "Source": {"Name": source.path.name if source.kind != "dicom" else name, "Sha256": source.sha256()},
            "Mask": _file(request.mask),
            "Slab": asdict(self.synthesizer.slab),
            "Alpha": request.products.alpha,
            "OutputType": request.products.output_type,
            "BrainMask": _file(request.brain),
            "BiasCorrection": request.bias_correction,
            "Template": _file(request.template),
            "Uncertainty": request.uncertainty,
            "Viewer": request.products.viewer,
            "Page": request.products.page,
            **self.provenance,
        }

    def make(self, name: str, source: Source, loaded: _Loaded) -> tuple[Record, Twin | None, dict[str, Any]]:
        """Check a scan against the training's, and make its twin."""
        if loaded.error is not None:
            return Record(name, "failed", error=str(loaded.error)), None, {}
        if loaded.scan is None:
            return Record(name, "skipped"), None, {}
        warnings: list[str] = []
        seen_as: dict[str, bool] = {"SkullStripped": self.steps.brain is not None}

        def check(seen: Scan, windowed: NDArray[np.float32]) -> list[str]:
            findings = compare(seen, windowed, self.metadata)
            seen_as["SkullStripped"] |= findings.kind == "stripped"
            if findings.refusals and not self.request.force:
                raise ScanError(f"{source.path}: {'; '.join(findings.refusals)}; --force makes it all the same")
            warnings.extend([*findings.refusals, *findings.warnings])
            return findings.notes

        memory, start = PeakMemory(self.synthesizer.device), time.monotonic()
        try:
            with _enough_memory(source):
                twin = self.synthesizer(loaded.scan, loaded.lesion, self.steps, self.request.uncertainty, check)
        except PipelineError as error:
            return Record(name, "failed", error=str(error)), None, {}
        seconds = {"read": loaded.seconds, "synthesis": time.monotonic() - start}
        about = {
            **self.provenance,
            "Citations": self.metadata.get("references", []),
            "Device": str(self.synthesizer.device),
            "Warnings": warnings,
            **seen_as,
        }
        return Record(name, "written", seconds=seconds, peak_memory_mib=memory.mib()), twin, about

    def write(self, record: Record, loaded: _Loaded, twin: Twin, about: dict[str, Any]) -> list[str]:
        """Write all files of a scan; returns warnings and notes for the user."""
        start = time.monotonic()
        source = loaded.outputs.source
        try:
            with _enough_memory(source):
                record.files, sidecar = loaded.outputs.write(twin, loaded.request, about)
        except FileNotFoundError as error:
            raise ScanError(
                f"{source.path}: found that results went while they were written, expected them to stay; another run "
                "may write into the same folder, start again when it has ended"
            ) from error
        record.seconds["write"] = time.monotonic() - start
        warnings = [f"warning: {sentence}" for sentence in sidecar["Warnings"]]
        return warnings + [f"note: {note}" for note in sidecar["Notes"]]


def _file(path: Path | None) -> dict[str, str] | None:
    return {"Name": path.name, "Sha256": sha256(path)} if path else None


@contextlib.contextmanager
def _enough_memory(source: Source) -> Iterator[None]:
    """Tell where memory runs out, whichever library finds out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY in str(error)):
            raise
        raise ScanError(
            f"{source.path}: found too little memory for a scan of this size, expected some twelve times what its "
            "voxels take; free memory, crop the scan, or run fewer at once"
        ) from error


def _refuse_synthetic(source: Source, scan: Scan) -> None:
    """Results of ours say so in their header, those of others in the sidecar beside them; DICOM is refused before."""
    if is_marked(scan.header):
        raise ScanError(f"{source.path}: is synthetic already, as its header says, expected a scan of a scanner")
    if not is_nifti(source.path):
        return
    sidecar = source.path.with_name(f"{stem(source.path)}.json")
    if read_json(sidecar).get("SyntheticData") is True:
        raise ScanError(f"{source.path}: is synthetic already, as {sidecar.name} says, expected a scan of a scanner")
