"""What is written for a scan: volumes on its grid, a sidecar that says what was done, and a picture."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.errors import UsageError
from pipeline.files import sha256, write_json
from pipeline.preprocessing.foreground import AIR
from pipeline.reports.mosaic import body_box, difference, grey, mosaic, save_png, square
from pipeline.scans import stem, write_nifti
from pipeline.synthesis.enhance import enhance
from pipeline.synthesis.synthesizer import Twin

WARNING = "SYNTHETIC pseudo-healthy image for research - NOT FOR DIAGNOSIS"
MOSAIC_ROWS = 5


def output_names(scans: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each scan: its own, with its folder's in front where two scans share theirs.

    A scan that is named twice counts once.

    >>> list(output_names([Path("a/flair.nii.gz"), Path("b/flair.nii.gz"), Path("c/t2.nii")]).values())
    ['a_flair', 'b_flair', 't2']

    Raises:
        UsageError: if two scans would still share a name.
    """
    scans = list(dict.fromkeys(scans))
    shared = Counter(stem(scan) for scan in scans)
    names = {
        scan: stem(scan) if shared[stem(scan)] == 1 else f"{scan.absolute().parent.name}_{stem(scan)}" for scan in scans
    }
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise UsageError(
                f"{count} scans would all be written as {name!r}; run them one by one into different folders"
            )
    return names


def derivative_name(name: str, description: str) -> str:
    """A BIDS derivative's name where the source's is BIDS, else the source's with the description behind it.

    >>> derivative_name("sub-01_ses-2_FLAIR", "anomaly")
    'sub-01_ses-2_desc-anomaly_FLAIR'
    >>> derivative_name("patient07_flair", "anomaly")
    'patient07_flair_desc-anomaly'
    """
    bids = re.fullmatch(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*)_([A-Za-z0-9]+)", name)
    return f"{bids[1]}_desc-{description}_{bids[2]}" if bids else f"{name}_desc-{description}"


class Outputs:
    """The files of one scan in an output folder; the sidecar is written last and says that the rest is complete.

    Args:
        folder: output folder.
        name: of the scan's results, from `output_names`.
        alpha: write the scan enhanced by this degree instead of its twin.
    """

    def __init__(self, folder: Path, name: str, alpha: float | None = None) -> None:
        self.folder = folder
        self.name = name
        self.alpha = alpha
        self.main = "pseudohealthy" if alpha is None else "enhanced"

    def path(self, description: str, suffix: str) -> Path:
        """The file of this kind, for example `("anomaly", ".nii.gz")`."""
        return self.folder / f"{derivative_name(self.name, description)}{suffix}"

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the main volume."""
        return self.path(self.main, ".json")

    def done(self, request: dict[str, Any]) -> bool:
        """Whether the results are there and were made by this request.

        Raises:
            UsageError: if they were made by another request.
        """
        if not self.sidecar.is_file():
            return False
        try:
            sidecar = json.loads(self.sidecar.read_text())
            present, written = sidecar["Request"], list(sidecar["Outputs"])
        except (ValueError, KeyError, TypeError):
            present, written = None, []
        if present == json.loads(json.dumps(request)):
            return all((self.folder / name).is_file() for name in written)
        raise UsageError(
            f"{self.sidecar}: holds a result made from another scan, other weights or other settings; give "
            "--overwrite or another output folder"
        )

    def write(self, twin: Twin, request: dict[str, Any], about: dict[str, Any]) -> tuple[list[Path], list[str]]:
        """Write volumes, picture and sidecar.

        Args:
            twin: the result.
            request: what was asked for (source, weights, settings), by which a later run knows that it is done.
            about: further facts for the sidecar.

        Returns:
            The files, and notes for the user.
        """
        if self.sidecar.is_file():
            self.sidecar.unlink()
        notes = list(twin.notes)
        written = twin.stored
        volumes = [self.path(self.main, ".nii.gz")]
        if self.alpha is None:
            volumes.append(self.path("anomaly", ".nii.gz"))
            # Compression takes a core each.
            with ThreadPoolExecutor() as pool:
                writing = [
                    pool.submit(write_nifti, volumes[0], twin.stored, twin.scan),
                    pool.submit(write_nifti, volumes[1], twin.stored_anomaly, twin.scan, difference=True),
                ]
            for job in writing:
                job.result()
        else:
            written, more = enhance(twin, self.alpha)
            notes += more
            write_nifti(volumes[0], written, twin.scan)
        picture = self.path(self.main, ".png")
        self._draw(twin, picture)
        description = (
            "The scan with the network's pseudo-healthy residual added"
            if self.alpha is None
            else f"The scan with its pathological residual added once more, times {self.alpha:g}"
        )
        write_json(
            self.sidecar,
            {
                "Description": description,
                "SyntheticData": True,
                "Warning": WARNING if self.alpha is None else WARNING.replace("pseudo-healthy", "enhanced"),
                "GeneratedBy": [{"Name": "phs-pipeline", "Version": __version__}],
                **about,
                "Window": [twin.window.low, twin.window.high],
                "EditedVoxels": int(twin.edited.sum()),
                "ChangedVoxels": int((written != twin.scan.stored).sum()),
                "Notes": notes,
                "Outputs": {path.name: sha256(path) for path in volumes},
                "Request": request,
            },
        )
        return [*volumes, picture, self.sidecar], notes

    def _draw(self, twin: Twin, path: Path) -> None:
        scan, window = twin.scan, twin.window
        stored = scan.axial(twin.stored)
        original = scan.axial(scan.stored)
        changed = np.abs(np.subtract(original, stored, dtype=np.float32)).sum(axis=(1, 2))
        inside = np.flatnonzero(scan.axial(twin.edited).any(axis=(1, 2)))
        places = {
            int(changed.argmax()),
            *np.linspace(inside[0], inside[-1], MOSAIC_ROWS + 1, dtype=int)[1:-1].tolist(),
        }
        shown = sorted(places, reverse=True)
        x_p, x_s = (
            window.apply(voxels[shown].astype(np.float32) * np.float32(scan.slope) + np.float32(scan.intercept))
            for voxels in (original, stored)
        )
        right, anterior = body_box(np.any(x_p > AIR, axis=0))
        _, height_mm, width_mm = scan.axial_spacing_mm
        rows = []
        for before, after in zip(x_p[:, right, anterior], x_s[:, right, anterior], strict=True):
            panels = [grey(before), grey(after), difference(before - after)]
            if self.alpha is not None:
                panels.insert(1, grey(before + np.float32(self.alpha) * (before - after)))
            rows.append([square(panel, (height_mm, width_mm)) for panel in panels])
        titles = ["input", "SYNTHETIC pseudo-healthy", "difference"]
        if self.alpha is not None:
            titles.insert(1, f"SYNTHETIC enhanced {self.alpha:g}")
        save_png(path, mosaic(titles, rows, f"{WARNING}; red: removed, blue: added"))
