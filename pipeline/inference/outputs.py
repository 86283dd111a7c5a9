"""What is written for a scan: its products, a sidecar that says what was done, a picture, and a page."""

import contextlib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.errors import PipelineError, ScanError, UsageError
from pipeline.files import read_json, sha256, write_json, write_text
from pipeline.inference.bids import bids_sidecar, derivative_folder
from pipeline.inference.methods_text import methods_text
from pipeline.inference.products import Product, ProductKind, Result
from pipeline.mosaic import body_box, difference, grey, mosaic, outlined, save_png, square
from pipeline.preprocessing.foreground import AIR
from pipeline.scans import Scan, write_nifti
from pipeline.scans.sources import Source

WARNING = "SYNTHETIC {title} for research - NOT FOR DIAGNOSIS"
MOSAIC_ROWS = 5
# File systems allow 255 bytes, of which a file that is being written takes some.
LONGEST_NAME = 200
SUFFIXES = (".nii.gz", ".json", ".png", ".html")
BIDS = re.compile(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*)_([A-Za-z0-9]+)")


class PageMaker(Protocol):
    """Makes a page in HTML from a result, the scan's name and the sidecar's content."""

    @property
    def viewer(self) -> bool:
        """Whether the page has an interactive viewer."""
        ...

    def __call__(self, result: Result, name: str, sidecar: Mapping[str, Any]) -> str:
        """The page."""
        ...


def output_names(
    sources: Sequence[Source], keep_names: bool = False, part: tuple[int, int] = (0, 1)
) -> dict[str, Source]:
    """A name for the results of each scan: its own, with so many of its folders in front as tell it from others.

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
    own = _telling_names([source for source in sources if keep_names or source.kind != "dicom"])
    copies = Counter((source.series.uid, source.series.label) for source in sources if source.series)
    first, step = part
    named: dict[str, Source] = {}
    ours: list[str] = []
    for index, source in enumerate(sources):
        in_share = index % step == first
        if source.kind == "dicom" and not keep_names:
            if not in_share and source.series and copies[source.series.uid, source.series.label] == 1:
                continue
            name = f"dicom-{_digits(source)}"
        else:
            name = own[source]
        if name in named:
            raise UsageError(
                f"{named[name].path} and {source.path}: found two scans whose results would have one name, expected a "
                "name for each; run them one by one into different folders"
            )
        named[name] = source
        if in_share:
            ours.append(name)
    return {name: named[name] for name in ours}


def _telling_names(sources: Sequence[Source]) -> dict[Source, str]:
    """By its stem, the names of as many folders above it as are needed, and if that does not do, its whole name."""
    names: dict[Source, str] = {}
    same: dict[tuple[Path | None, str], list[Source]] = {}
    for source in sources:
        same.setdefault((source.dataset, source.stem), []).append(source)
    for (_, stem), group in same.items():
        above = {source: source.path.absolute().parent.parts for source in group}
        for depth in range(max(map(len, above.values())) + 1 if len(group) > 1 else 1):
            told = {source: "_".join([*parts[len(parts) - depth :], stem]) for source, parts in above.items()}
            if len(set(told.values())) == len(group):
                break
        else:  # a.nii beside a.nii.gz
            told = {source: source.path.name.replace(".", "-") for source in group}
        names |= told
    return names


def _digits(source: Source) -> str:
    """Eight digits that say nothing of the patient and are the same wherever the series lies."""
    try:
        return source.sha256()[:8]
    except ScanError:  # it fails again when it is read, and then counts as failed
        return hashlib.sha256(str(source.path).encode()).hexdigest()[:8]


def derivative_name(name: str, product: str, kind: ProductKind = "image") -> str:
    """A BIDS derivative's name where the source's is BIDS, else the source's with the product behind it.

    A mask has the suffix `mask`, and says which scan of the subject it is of: it is never taken for a mask that was
    drawn.

    >>> derivative_name("sub-01_ses-2_FLAIR", "anomaly")
    'sub-01_ses-2_desc-anomaly_FLAIR'
    >>> derivative_name("sub-01_FLAIR", "lesion", "mask")
    'sub-01_label-lesion_desc-FLAIR_mask'
    >>> derivative_name("sub-01_FLAIR", "age", "number")
    'sub-01_desc-age_FLAIR_number'
    >>> derivative_name("patient07_flair", "anomaly")
    'patient07_flair_desc-anomaly'
    """
    bids = BIDS.fullmatch(name)
    if kind == "mask":
        return f"{bids[1]}_label-{product}_desc-{bids[2]}_mask" if bids else f"{name}_label-{product}_mask"
    image = f"{bids[1]}_desc-{product}_{bids[2]}" if bids else f"{name}_desc-{product}"
    return f"{image}_number" if kind == "number" else image


def stored_as(product: Product, scan: Scan) -> Scan:
    """Whose slope and intercept turn a product's voxels into values: the scan's, or of masks and maps none."""
    if product.kind in ("image", "difference"):
        return scan
    return Scan(product.voxels, 1.0, 0.0, scan.header, scan.origin)


@dataclass(frozen=True)
class Form:
    """In what form results are written.

    Args:
        output_type: `nifti`, `dicom`, or `both`; None writes DICOM for DICOM, and NIfTI for all else.
        page: makes the HTML page; None writes none.
    """

    output_type: str | None = None
    page: PageMaker | None = None


class Outputs:
    """The files of one scan in an output folder; the sidecar is written last and says that the rest is complete.

    Args:
        folder: output folder; the results of a scan in a BIDS dataset lie in subfolders as the scan does.
        name: of the scan's results, from `output_names`.
        source: the scan.
        main: name and kind of the main product, beside which the sidecar lies.
        form: in what form to write.
    """

    def __init__(
        self, folder: Path, name: str, source: Source, main: tuple[str, ProductKind], form: Form | None = None
    ) -> None:
        self.folder = derivative_folder(folder, source)
        self.name = name
        self.source = source
        self.main = main
        self.form = form or Form()

    def path(self, product: str, kind: ProductKind, suffix: str) -> Path:
        """The file of a product, for example `("anomaly", "difference", ".nii.gz")`."""
        return self.folder / f"{derivative_name(self.name, product, kind)}{suffix}"

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the main product."""
        return self.path(*self.main, ".json")

    def check(self) -> None:
        """Refuse what cannot be written, before it is made.

        Raises:
            UsageError: if DICOM is asked for of another source.
        """
        if self.form.output_type in ("dicom", "both") and self.source.kind != "dicom":
            raise UsageError(
                f"{self.source.path}: is no DICOM, expected a DICOM series as the source of --output-type "
                f"{self.form.output_type}, whose patient, study and geometry the new series keeps; leave --output-type "
                "out"
            )
        longest = max(len(os.fsencode(self.path(self.main[0], kind, ".nii.gz").name)) for kind in ("image", "mask"))
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

    def write(
        self, result: Result, request: dict[str, Any], about: dict[str, Any]
    ) -> tuple[list[Path], dict[str, Any]]:
        """Write products, picture, sidecar and page.

        Args:
            result: of the scan.
            request: what was asked for (source, weights, settings), by which a later run knows that it is done.
            about: further facts for the sidecar.

        Returns:
            The files, the main product's first, and the sidecar's content.
        """
        self._remove(result)
        try:
            return self._write(result, request, about)
        except PipelineError:
            self._remove(result)
            raise

    def _remove(self, result: Result) -> None:
        """Remove what an earlier run, or this one before it failed, has written; the sidecar first."""
        bases = {self.path(product.name, product.kind, "") for product in result.products}
        files = [self.sidecar, *(base.with_name(f"{base.name}{suffix}") for base in bases for suffix in SUFFIXES)]
        files += self._recorded()
        for path in files:
            with contextlib.suppress(OSError):  # writing will tell
                path.unlink()
        for folder in {*bases, *(path.parent for path in files)} - {self.folder}:
            if folder.is_dir():
                from pipeline.scans.new_series import remove_series

                remove_series(folder)

    def _recorded(self) -> list[Path]:
        """The files that the sidecar there names and that are this scan's by their names."""
        outputs = read_json(self.sidecar).get("Outputs")
        prefix = derivative_name(self.name, "").partition("_desc-")[0]
        names = [PurePosixPath(name) for name in outputs] if isinstance(outputs, dict) else []
        return [
            self.folder / name
            for name in names
            if len(name.parts) <= 2 and ".." not in name.parts and name.parts[0].startswith(prefix)
        ]

    def _write(
        self, result: Result, request: dict[str, Any], about: dict[str, Any]
    ) -> tuple[list[Path], dict[str, Any]]:
        # The sidecar itself holds the numbers.
        volumes = [product for product in result.products if product.kind != "number"]
        with ThreadPoolExecutor() as pool:  # compression takes a core each
            jobs = [pool.submit(self._write_product, product, result.scan, about) for product in volumes]
        written = [path for job in jobs for path in job.result()]
        picture = self.path(*self.main, ".png")
        self._draw(result, picture)
        page = self.path(*self.main, ".html")
        content = {**self._sidecar(result, about), "Request": request}
        content["Page"] = page.name if self.form.page else None
        for product in volumes[1:]:
            path = self.path(product.name, product.kind, ".json")
            write_json(path, {**self._described(product, about), "SyntheticData": True, "Warning": _warning(product)})
            written.append(path)
        written.append(picture)
        if self.form.page:
            write_text(page, self.form.page(result, self.name, content))
            written.append(page)
        content["Outputs"] = {path.relative_to(self.folder).as_posix(): sha256(path) for path in written}
        write_json(self.sidecar, content)
        return [*written, self.sidecar], content

    def _write_product(self, product: Product, scan: Scan, about: Mapping[str, Any]) -> list[Path]:
        """In the form that was asked for."""
        written: list[Path] = []
        if self.source.kind == "dicom" and self.form.output_type != "nifti":
            written += self._write_dicom(product, scan, about)
        if not written or self.form.output_type == "both":
            path = self.path(product.name, product.kind, ".nii.gz")
            write_nifti(path, product.voxels, stored_as(product, scan), difference=product.kind == "difference")
            written.append(path)
        return written

    def _write_dicom(self, product: Product, scan: Scan, about: Mapping[str, Any]) -> list[Path]:
        """An image as an object of the scan's own kind, a mask as a Segmentation, a map as a Parametric Map."""
        # DICOM's tables of codes take a third of a second to import.
        from pipeline.scans.dicom_objects import write_dicom_map, write_dicom_segmentation
        from pipeline.scans.dicom_out import write_dicom

        folder = self.path(product.name, product.kind, "")
        title = f"SYNTHETIC {product.title} - NOT FOR DIAGNOSIS"
        known = {**about, "Description": product.meaning}
        if product.kind == "mask":
            return write_dicom_segmentation(folder, product.voxels, scan, title, known, product.name)
        if product.kind == "map":
            units = product.units.removeprefix("scan")
            return write_dicom_map(folder, product.voxels, scan, title, known, units, product.title)
        return write_dicom(folder, product.voxels, scan, title, known, product.kind == "difference")

    def _described(self, product: Product, about: Mapping[str, Any]) -> dict[str, Any]:
        """What BIDS asks of the sidecar of a product."""
        sidecar = bids_sidecar(self.source, about.get("SkullStripped"), product.meaning)
        if product.kind == "mask":
            if "Sources" in sidecar:
                sidecar["SpatialReference"] = sidecar["Sources"][0]
            sidecar["Type"] = "Lesion"
        elif product.kind in ("map", "number"):
            sidecar["Units"] = "the scan's" if product.units == "scan" else product.units
        return sidecar

    def _sidecar(self, result: Result, about: Mapping[str, Any]) -> dict[str, Any]:
        text, references = methods_text(result, about)
        numbers = {
            product.name: {"Value": product.value, "Units": product.units, "Meaning": product.meaning}
            for product in result.products
            if product.kind == "number"
        }
        return {
            "Scan": self.name,
            "Product": {"Name": result.main.name, "Kind": result.main.kind, "Title": result.main.heading},
            "Pictured": _pictured(result),
            "Sources": [self.name if self.source.kind == "dicom" else self.source.path.name],
            **self._described(result.main, about),
            "SyntheticData": True,
            "Warning": _warning(result.main),
            "GeneratedBy": [{"Name": "phs-pipeline", "Version": __version__}],
            **{key: value for key, value in about.items() if key != "SkullStripped"},
            "Warnings": [*about.get("Warnings", ()), *result.warnings],
            "Orientation": "".join(nib.orientations.ornt2axcodes(result.scan.orientation)),
            "Window": [result.window.low, result.window.high],
            "Steps": result.steps,
            "Figures": [asdict(figure) for figure in result.figures],
            **({"Numbers": numbers} if numbers else {}),
            **result.facts,
            "Notes": result.notes,
            "Methods": text,
            "References": references,
        }

    def _draw(self, result: Result, path: Path) -> None:
        scan = result.scan
        shown = _slices_to_show(result)
        x_p = _windowed(result, scan.stored, shown)
        right, anterior = body_box(np.any(x_p > AIR, axis=0))
        _, height_mm, width_mm = scan.axial_spacing_mm
        titles, columns = ["input"], [[grey(each) for each in x_p[:, right, anterior]]]
        products = {product.name: product for product in (*result.products, *result.shown) if product.kind == "image"}
        for product in products.values():
            titles.append(f"SYNTHETIC {product.title}")
            columns.append([grey(each) for each in _windowed(result, product.voxels, shown)[:, right, anterior]])
        if changes := result.pictured("difference"):
            titles.append("difference")
            change = x_p - _windowed(result, scan.stored, shown, changes[0].voxels)
            columns.append([difference(each) for each in change[:, right, anterior]])
        else:
            for product in (each for each in result.products if each.kind == "mask"):
                masks = scan.axial(product.voxels)[shown].astype(np.float32)
                titles.append(product.title)
                columns.append(
                    [outlined(*pair) for pair in zip(x_p[:, right, anterior], masks[:, right, anterior], strict=True)]
                )
        rows = [[square(panel, (height_mm, width_mm)) for panel in panels] for panels in zip(*columns, strict=True)]
        legend = "; orange: removed, blue: added" if changes else ""
        save_png(path, mosaic(titles, rows, f"{_warning(result.main)}{legend}"))


def _pictured(result: Result) -> str:
    """What the columns of the picture show, from the left."""
    shown = ["input", *(f"SYNTHETIC {title}" for title in dict.fromkeys(p.title for p in result.pictured("image")))]
    if result.pictured("difference"):
        shown.append("difference (orange: removed, blue: added)")
    else:
        shown += [f"SYNTHETIC {mask.title} (yellow border)" for mask in result.products if mask.kind == "mask"]
    return " · ".join(shown)


def _warning(product: Product) -> str:
    return WARNING.format(title=product.heading)


def _slices_to_show(result: Result) -> list[int]:
    """Axial slices from the top: spread over the region, and the one with the greatest change or the largest mask."""
    scan = result.scan
    inside = np.flatnonzero(scan.axial(result.region).any(axis=(1, 2)))
    seen = (*result.products, *result.shown)
    most = next((product for kind in ("difference", "mask") for product in seen if product.kind == kind), None)
    spread = np.linspace(inside[0], inside[-1], MOSAIC_ROWS + 1, dtype=int)[1:-1].tolist()
    if most is None:
        return sorted(set(spread), reverse=True)
    amount = np.abs(scan.axial(most.voxels).astype(np.float32)).sum(axis=(1, 2))
    return sorted({int(amount.argmax()), *spread}, reverse=True)


def _windowed(
    result: Result, stored: NDArray[np.generic], slices: list[int], less: NDArray[np.generic] | None = None
) -> NDArray[np.float32]:
    """Axial slices in [0, 1] of stored voxels, of which others were subtracted."""
    scan = result.scan
    voxels = scan.axial(stored)[slices].astype(np.float32)
    if less is not None:
        voxels -= scan.axial(less)[slices].astype(np.float32)
    return result.window.apply(voxels * np.float32(scan.slope) + np.float32(scan.intercept))
