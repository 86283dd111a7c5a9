"""What is written for a scan: volumes on its grid, a sidecar that says what was done, a picture, and a page."""

import contextlib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.errors import PipelineError, ScanError, UsageError
from pipeline.files import read_json, remove_partials, sha256, write_json, write_text
from pipeline.inference.bids import bids_mask_sidecar, bids_sidecar, derivative_folder
from pipeline.inference.change import amounts, cut_off, lesion_mask
from pipeline.inference.enhance import enhance
from pipeline.inference.methods_text import methods_text
from pipeline.inference.translator import Twin
from pipeline.mosaic import body_box, difference, grey, mosaic, save_png, square
from pipeline.preprocessing.foreground import AIR
from pipeline.scans import Scan, write_nifti
from pipeline.scans.dicom_out import remove_series, write_dicom
from pipeline.scans.sources import Source

WARNING = "SYNTHETIC pseudo-healthy image for research - NOT FOR DIAGNOSIS"
MOSAIC_ROWS = 5
# File systems allow 255 bytes, of which a file that is being written takes some.
LONGEST_NAME = 200
BIDS = re.compile(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*)_([A-Za-z0-9]+)")


def output_names(
    sources: Sequence[Source], keep_names: bool = False, part: tuple[int, int] = (0, 1)
) -> dict[str, Source]:
    """A name for the results of each scan: its own, with its folder's in front where two scans share theirs.

    Folders and archives of DICOM files are often named after the patient, so what comes of them is named by digits of
    its hash, unless `keep_names` says that names may be kept. A scan that is named twice counts once.

    Args:
        sources: all scans.
        keep_names: keep the names of DICOM folders and archives.
        part: (k, n) for every n-th scan, from the k-th; names are the same as those of the whole. To hash a series
            means to read it, so series that are named once are hashed in their own share alone.

    Raises:
        UsageError: if two scans would still share a name.
    """
    sources = list(dict.fromkeys(sources))
    # In a BIDS dataset, results lie in folders of their own; elsewhere, all in one.
    shared = Counter((source.dataset, source.stem) for source in sources)
    copies = Counter((source.series.uid, source.series.label) for source in sources if source.series)
    first, step = part
    named: dict[str, Source] = {}
    ours: list[str] = []
    for place, source in enumerate(sources):
        in_share = place % step == first
        if source.kind == "dicom" and not keep_names:
            if not in_share and source.series and copies[source.series.uid, source.series.label] == 1:
                continue
            name = f"dicom-{_digits(source)}"
        elif shared[source.dataset, source.stem] == 1:
            name = source.stem
        else:
            name = f"{source.path.absolute().parent.name}_{source.stem}"
        if name in named:
            raise UsageError(
                f"{named[name].path} and {source.path}: found two scans whose results would have one name, expected a "
                "name for each; run them one by one into different folders"
            )
        named[name] = source
        if in_share:
            ours.append(name)
    return {name: named[name] for name in ours}


def _digits(source: Source) -> str:
    """Eight digits that say nothing of the patient and are the same wherever the series lies."""
    try:
        return source.sha256()[:8]
    except ScanError:  # it fails again when it is read, and then counts as failed
        return hashlib.sha256(str(source.path).encode()).hexdigest()[:8]


def derivative_name(name: str, description: str) -> str:
    """A BIDS derivative's name where the source's is BIDS, else the source's with the description behind it.

    A lesion mask has the suffix `mask`, and says which scan of the subject it is of: it is never taken for a mask that
    was drawn.

    >>> derivative_name("sub-01_ses-2_FLAIR", "anomaly")
    'sub-01_ses-2_desc-anomaly_FLAIR'
    >>> derivative_name("sub-01_FLAIR", "lesion")
    'sub-01_label-lesion_desc-FLAIR_mask'
    >>> derivative_name("patient07_flair", "anomaly")
    'patient07_flair_desc-anomaly'
    """
    bids = BIDS.fullmatch(name)
    if description == "lesion":
        return f"{bids[1]}_label-lesion_desc-{bids[2]}_mask" if bids else f"{name}_label-lesion_mask"
    return f"{bids[1]}_desc-{description}_{bids[2]}" if bids else f"{name}_desc-{description}"


@dataclass(frozen=True)
class Products:
    """What to write for each scan.

    Args:
        alpha: the scan enhanced by this degree instead of its twin.
        output_type: `nifti` or `dicom`; None writes DICOM for DICOM, and NIfTI for all else.
        page: write the HTML page.
        viewer: with an interactive viewer in it.
    """

    alpha: float | None = None
    output_type: str | None = None
    page: bool = True
    viewer: bool = False


class Outputs:
    """The files of one scan in an output folder; the sidecar is written last and says that the rest is complete.

    Args:
        folder: output folder; the results of a scan in a BIDS dataset lie in subfolders as the scan does.
        name: of the scan's results, from `output_names`.
        source: the scan.
        products: what to write.
    """

    def __init__(self, folder: Path, name: str, source: Source, products: Products | None = None) -> None:
        self.folder = derivative_folder(folder, source)
        self.name = name
        self.source = source
        self.products = products or Products()
        self.main = "pseudohealthy" if self.products.alpha is None else "enhanced"

    def path(self, description: str, suffix: str) -> Path:
        """The file of this kind, for example `("anomaly", ".nii.gz")`."""
        return self.folder / f"{derivative_name(self.name, description)}{suffix}"

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the main volume."""
        return self.path(self.main, ".json")

    def check(self) -> None:
        """Refuse what cannot be written, before it is made.

        Raises:
            UsageError: if DICOM is asked for of another source.
        """
        if self.products.output_type == "dicom" and self.source.kind != "dicom":
            raise UsageError(
                f"{self.source.path}: is no DICOM, expected a DICOM series as the source of --output-type dicom, whose "
                "patient, study and geometry the new series keeps; leave --output-type out"
            )
        longest = max(len(os.fsencode(self.path(kind, ".nii.gz").name)) for kind in (self.main, "lesion"))
        if longest > LONGEST_NAME:
            raise UsageError(
                f"{self.source.path}: found a name that gives results names of {longest} bytes, expected at most "
                f"{LONGEST_NAME}; rename it"
            )

    def done(self, request: dict[str, Any]) -> bool:
        """Whether the results are there and were made by this request.

        Raises:
            UsageError: if they were made by another request.
        """
        if not self.sidecar.is_file():
            return False
        sidecar = read_json(self.sidecar)
        try:
            present, written = sidecar["Request"], list(sidecar["Outputs"])
        except (KeyError, TypeError):
            present, written = None, []
        if present == json.loads(json.dumps(request)):
            return all((self.folder / name).is_file() for name in written)
        raise UsageError(
            f"{self.sidecar}: holds a result made from another scan, other weights or other settings; give "
            "--overwrite or another output folder"
        )

    def write(self, twin: Twin, request: dict[str, Any], about: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
        """Write volumes, picture, sidecar and page.

        Args:
            twin: the result.
            request: what was asked for (source, weights, settings), by which a later run knows that it is done.
            about: further facts for the sidecar.

        Returns:
            The files, the main volume first, and the sidecar's content.
        """
        self._remove()
        try:
            return self._write(twin, request, about)
        except PipelineError:
            self._remove()
            raise

    def _remove(self) -> None:
        """Remove what an earlier run, or this one before it failed, has written; the sidecar first."""
        # An enhanced scan may lie beside a twin, whose maps are not its own.
        maps = ("anomaly", "lesion", "uncertainty") if self.products.alpha is None else ()
        suffixes = (".json", ".nii.gz", ".png", ".html")
        for kind in (self.main, *maps):
            for suffix in suffixes:
                with contextlib.suppress(OSError):  # writing will tell
                    self.path(kind, suffix).unlink()
            remove_series(self.path(kind, ""))
        remove_partials(self.path(kind, suffix) for kind in (self.main, *maps) for suffix in (*suffixes, ""))

    def _write(self, twin: Twin, request: dict[str, Any], about: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
        notes = list(twin.notes)
        lesion = lesion_mask(twin)
        warning = cut_off(twin, lesion) if self.products.alpha is None else None
        if warning:
            about = {**about, "Warnings": [*about.get("Warnings", ()), warning]}
        volumes: dict[str, NDArray[np.generic]] = {self.main: twin.stored}
        alpha = self.products.alpha
        if alpha is None:
            volumes["anomaly"] = twin.stored_anomaly
        else:
            volumes[self.main], more = enhance(twin, alpha)
            notes += more
        with ThreadPoolExecutor() as pool:  # compression takes a core each
            jobs = [pool.submit(self._write_volume, kind, stored, twin, about) for kind, stored in volumes.items()]
            if alpha is None:
                jobs.append(pool.submit(self._write_map, "lesion", lesion.astype(np.uint8), twin.scan))
            if twin.uncertainty is not None:
                jobs.append(pool.submit(self._write_map, "uncertainty", twin.uncertainty, twin.scan))
        written = [path for job in jobs for path in job.result()]
        picture = self.path(self.main, ".png")
        self._draw(twin, picture)
        page = self.path(self.main, ".html")
        with_page = self.products.page and alpha is None
        content = {**self._sidecar(twin, volumes[self.main], lesion, notes, about), "Request": request}
        content["Page"] = page.name if with_page else None
        written += self._describe_maps(twin, about)
        if with_page:
            from pipeline.reports.scan_page import scan_page

            html = scan_page(twin, self.name, content, lesion, twin.uncertainty, self.products.viewer)
            write_text(page, html)
        content["Outputs"] = {
            path.relative_to(self.folder).as_posix(): sha256(path) for path in [*written, picture, *[page] * with_page]
        }
        write_json(self.sidecar, content)
        return [*written, picture, *[page] * with_page, self.sidecar], content

    def _write_volume(self, kind: str, stored: NDArray[np.generic], twin: Twin, about: Mapping[str, Any]) -> list[Path]:
        """The twin, the enhanced scan or the anomaly map, in the kind of file that was asked for."""
        scan, anomaly = twin.scan, kind == "anomaly"
        if not self._as_dicom:
            path = self.path(kind, ".nii.gz")
            write_nifti(path, stored, scan, difference=anomaly)
            return [path]
        titles = {"pseudohealthy": "pseudo-healthy", "enhanced": "lesion-enhanced", "anomaly": "anomaly map"}
        title = f"SYNTHETIC {titles[kind]} - NOT FOR DIAGNOSIS"
        known = {**about, "Description": self._description}
        return write_dicom(self.path(kind, ""), stored, scan, title, known, anomaly)

    def _write_map(self, kind: str, values: NDArray[np.generic], scan: Scan) -> list[Path]:
        """A mask or a map in units of its own, always as NIfTI."""
        path = self.path(kind, ".nii.gz")
        write_nifti(path, values, Scan(values, 1.0, 0.0, scan.header, scan.origin))
        return [path]

    def _describe_maps(self, twin: Twin, about: Mapping[str, Any]) -> list[Path]:
        """A sidecar for each volume beside the main one, as BIDS asks."""
        stripped = bool(about.get("SkullStripped", False))
        maps = {
            "anomaly": bids_sidecar(self.source, stripped, "Input minus pseudo-healthy, in the scan's units"),
            "lesion": bids_mask_sidecar(self.source, stripped),
        }
        if twin.uncertainty is not None:
            meaning = "Standard deviation of the change over test-time augmentations, in the scan's units"
            maps["uncertainty"] = bids_sidecar(self.source, stripped, meaning)
        if self.products.alpha is not None:
            return []
        for kind, content in maps.items():
            write_json(self.path(kind, ".json"), {**content, "SyntheticData": True, "Warning": WARNING})
        return [self.path(kind, ".json") for kind in maps]

    @property
    def _description(self) -> str:
        if self.products.alpha is None:
            return "The scan with the network's pseudo-healthy residual added"
        return f"The scan with its pathological residual added once more, times {self.products.alpha:g}"

    @property
    def _as_dicom(self) -> bool:
        return self.source.kind == "dicom" and self.products.output_type != "nifti"

    def _sidecar(
        self,
        twin: Twin,
        written: NDArray[np.generic],
        lesion: NDArray[np.bool_],
        notes: list[str],
        about: dict[str, Any],
    ) -> dict[str, Any]:
        alpha = self.products.alpha
        deviation = twin.uncertainty
        text, references = methods_text(twin, alpha, about)
        return {
            "Sources": [self.name if self.source.kind == "dicom" else self.source.path.name],
            **bids_sidecar(self.source, bool(about.get("SkullStripped", False)), self._description),
            "SyntheticData": True,
            "Warning": WARNING if alpha is None else WARNING.replace("pseudo-healthy", "enhanced"),
            "GeneratedBy": [{"Name": "phs-pipeline", "Version": __version__}],
            # What MONAI's door does not tell; the command line does.
            "Bundle": "unnamed",
            "BundleVersion": None,
            "Warnings": [],
            **about,
            "Orientation": "".join(nib.orientations.ornt2axcodes(twin.scan.orientation)),
            "Window": [twin.window.low, twin.window.high],
            "Steps": twin.steps,
            "EditedVoxels": int(twin.edited.sum()),
            "ChangedVoxels": int((written != twin.scan.stored).sum()),
            "Change": amounts(twin, lesion),
            "Uncertainty": None
            if deviation is None
            else {
                "Mean": float(deviation[twin.edited].mean()) if twin.edited.any() else 0.0,
                "LesionMean": float(deviation[lesion].mean()) if lesion.any() else None,
            },
            "Notes": notes,
            "Methods": text,
            "References": references,
        }

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
            if self.products.alpha is not None:
                panels.insert(1, grey(before + np.float32(self.products.alpha) * (before - after)))
            rows.append([square(panel, (height_mm, width_mm)) for panel in panels])
        titles = ["input", "SYNTHETIC pseudo-healthy", "difference"]
        if self.products.alpha is not None:
            titles.insert(1, f"SYNTHETIC enhanced {self.products.alpha:g}")
        save_png(path, mosaic(titles, rows, f"{WARNING}; red: removed, blue: added"))
