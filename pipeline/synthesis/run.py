"""Many scans, one model: read, synthesise, write, go on after a bad one."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError, PipelineError
from pipeline.files import sha256
from pipeline.scans import read_nifti
from pipeline.synthesis.outputs import Outputs, output_names
from pipeline.synthesis.synthesizer import Synthesizer

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of each scan."""

    written: dict[Path, list[Path]] = field(default_factory=dict)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def synthesize_scans(
    scans: Sequence[Path],
    synthesizer: Synthesizer,
    provenance: dict[str, Any],
    folder: Path,
    report: Callable[[Path, str], None],
    mask: Path | None = None,
    alpha: float | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Write the pseudo-healthy twin, or the enhanced version, of each scan.

    Args:
        scans: NIfTI files.
        synthesizer: the loaded model.
        provenance: which bundle and weights, for the sidecars.
        folder: output folder.
        report: called with each scan and what became of it.
        mask: lesion mask that confines the edits (of the one scan given).
        alpha: write the enhanced scan instead (see `enhance`).
        overwrite: make results again that are there.

    Raises:
        UsageError: if results cannot be written at all.
    """
    outcome = Outcome()
    for scan, name in output_names(scans).items():
        outputs = Outputs(folder, name, alpha)
        try:
            lesion = read_nifti(mask, constant_ok=True) if mask else None
            request = {
                "Source": {"Name": scan.name, "Sha256": sha256(scan)},
                "Mask": {"Name": mask.name, "Sha256": sha256(mask)} if mask else None,
                "Slab": asdict(synthesizer.slab),
                "Alpha": alpha,
                **provenance,
            }
            if not overwrite and outputs.done(request):
                outcome.skipped.append(scan)
                report(scan, "done before, skipped")
                continue
            twin = synthesizer(read_nifti(scan), lesion)
            about = {"Sources": [scan.name], "Device": str(synthesizer.device)}
            outcome.written[scan], notes = outputs.write(twin, request, about)
            report(scan, f"wrote {outcome.written[scan][0].name}")
            for note in notes:
                report(scan, f"note: {note}")
        except OutputError:
            raise
        except PipelineError as error:
            outcome.failed[scan] = str(error)
            report(scan, f"failed: {error}")
    return outcome
