"""Training domain of a bundle, in numbers, and how a new scan differs from it: checked before any network runs.

A network answers to everything, also to what it has never seen. Whether a scan is like those of the training is
therefore asked of the scan, in terms that a user can check: modality, contrast, spacing, extent, skull, intensities,
orientation.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort_format import LEVELS, Subject, read_cohort, read_part
from pipeline.preprocessing.domain_format import FORMAT, LAYOUT, QUANTILES, check_domain
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.scans import Scan
from pipeline.scans.contrast import named_contrast

KINDS = {"whole": "whole heads", "stripped": "skull-stripped brains"}
# Of scans whose names tell no contrast.
UNNAMED = "unnamed"

# On this grid and in so many slices, spread over the slab, a scan is measured in a tenth of a second.
GRID = Grid(2.0, (16, 16))
SLICES = 16
SHARES = np.linspace(0.02, 0.98, QUANTILES)
DIGITS = 3

STEP_MM, DEPTH_MM = 4.0, 32.0  # of the profile from the border inwards, through scalp and skull into the brain
BORDER_MM = 15.0
DEEP_MM = 20.0  # beyond the skull
DETAIL_MM = 5.0

# Whole heads lose 0.3 and more of their brightness from scalp to skull, skull-stripped brains 0.14 at most.
STRIPPED_RING, RING, WHOLE_RING = 0.14, 0.2, 0.3
# Of the training's range: a field of view cropped at the neck or a wide one is usual, half a head or two are not.
EXTENT_WARNS, EXTENT_REFUSES = 1.25, 2.0
# Resampled to the network's grid, finer pixels lose nothing, and somewhat coarser ones little; slices stay as they are.
FINER, COARSER_PIXELS, COARSER_SLICES = 3.0, 2.0, 1.5
# Training volumes beyond the limit of intensities; for few volumes, their own distances say little of another's.
OUTLIERS, FEW = 0.03, 3
INTENSITY_REFUSES = 2.5
TURNED = 0.03


@dataclass
class Findings:
    """How a scan differs from the training; each finding is one sentence with what was found, expected and to do.

    Args:
        refusals: so unlike that no result should be expected.
        warnings: the result needs a critical look.
        notes: what could not be compared.
        kind: key of `KINDS`; None where the scan was not measured.
        features: of the scan then.
    """

    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kind: str | None = None
    features: "Features | None" = field(default=None, compare=False)


@dataclass(frozen=True)
class Features:
    """Features of a volume that are compared with the training domain.

    Args:
        spacing_mm: along (slices, right, anterior).
        thickness_mm: of all slices together.
        extent_mm: of head or body along (right, anterior), over all slices.
        ring: largest loss of mean brightness on the way from the border inwards, as a share of the brightness before:
            a bright scalp around a dark skull.
        border: quantiles of intensity within `BORDER_MM` of the border, where fat shows the contrast.
        detail: quantiles of intensity − its surroundings inside, as a share of the median: grey matter, noise.
        layout: mean brightness in the parts of the box around head or body, shape `LAYOUT`.
    """

    spacing_mm: tuple[float, float, float]
    thickness_mm: float
    extent_mm: tuple[float, float]
    ring: float
    border: NDArray[np.float64]
    detail: NDArray[np.float64]
    layout: NDArray[np.float64]

    @property
    def kind(self) -> str:
        """Key of `KINDS`."""
        return "whole" if self.ring > RING else "stripped"

    @property
    def skull_stripped(self) -> bool | None:
        """Whether the volume shows the brain only; None where neither is clear."""
        return None if STRIPPED_RING < self.ring < WHOLE_RING else self.kind == "stripped"


def describe(cohort: Path, channel: str | None = None) -> dict[str, Any]:
    """The training volumes of a preprocessed cohort in numbers, for a bundle's metadata.

    Args:
        cohort: folder made by `preprocess`.
        channel: of which channel, of the scans that have it; None: the first channel of each.

    Returns:
        Plain JSON: the slab that was measured, number of scans, contrasts that their names tell, ranges of spacing,
        mean layout; and for whole heads and skull-stripped brains, as far as there are any: number, ranges, mean
        quantiles, and which distance from these is unusual.

    Raises:
        UsageError: if the folder is no preprocessed cohort or has no training volume.
    """
    prepared = read_cohort(cohort)
    having = prepared.having(() if channel is None else (channel,))
    records = [record for record in having if record.split == "training"]
    if channel is not None and not records:
        raise UsageError(
            f"{cohort}: has scans of {', '.join(prepared.channels)}, expected {channel} in some of the training, "
            "too; name another modality, or preprocess with --channels"
        )

    def measured(record: Subject) -> Features | None:
        file = record.images if channel is None else record.channels[channel]
        windowed = read_part(cohort, record, file).astype(np.float32) / np.float32(LEVELS)
        return measure(windowed, record.spacing_mm)

    with ThreadPoolExecutor() as pool:
        volumes = [features for features in pool.map(measured, records) if features is not None]
    if not volumes:
        raise UsageError(f"{cohort}: found no training volume with a head or body in it; preprocess the cohort again")
    by_kind = {kind: [volume for volume in volumes if volume.kind == kind] for kind in KINDS}
    return {
        "format": FORMAT,
        "slab": prepared.settings.slab.model_dump(),
        "scans": len(volumes),
        "contrasts": sorted({named_contrast(record.file_name(channel)) or UNNAMED for record in records}),
        "thickness_mm": _range([volume.thickness_mm for volume in volumes]),
        "slice_spacing_mm": _range([volume.spacing_mm[0] for volume in volumes]),
        "pixel_spacing_mm": _range([size for volume in volumes for size in volume.spacing_mm[1:]]),
        "layout": _rounded(np.mean([_standard(volume.layout) for volume in volumes], axis=0)),
        "kinds": {kind: _of_kind(members) for kind, members in by_kind.items() if members},
    }


def compare(scan: Scan, windowed: NDArray[np.float32], metadata: Mapping[str, Any]) -> Findings:
    """How a scan differs from what a bundle was trained on.

    Args:
        scan: the scan, for its spacing, its name, and its DICOM modality and description.
        windowed: all its axial slices in the bundle's window, in [0, 1], shape (slices, right, anterior); those in the
            middle slab of the training are measured.
        metadata: of the bundle: the modality of its input, under `training_domain` what `describe` gave, and under
            `any_contrast` whether it was trained to take contrasts that it has not seen, which are then not compared.

    Raises:
        UsageError: if the metadata are not as `phs-pipeline train` writes them.
    """
    findings = Findings()
    domain = check_domain(metadata)
    try:
        _compare_modality(scan, metadata, findings)
        if domain is None:
            findings.notes.append(
                "the bundle does not say what it was trained on, so whether this scan is like that was not checked"
            )
            return findings
        any_contrast = metadata.get("any_contrast", False)
        is_named_otherwise = not any_contrast and _compare_contrast(scan, set(domain["contrasts"]), findings)
        first, last = Slab(**domain["slab"]).range(len(windowed), scan.axial_spacing_mm[0])
        features = measure(windowed[first:last], scan.axial_spacing_mm)
        if features is not None:
            findings.kind, findings.features = features.kind, features
            kind = _compare_kind(features, domain["kinds"], findings)
            expected = domain["kinds"][kind]
            _compare_spacing(features, domain, findings)
            _compare_extent(features, kind, expected, findings)
            if kind == features.kind and not any_contrast:
                _compare_intensities(features, kind, expected, findings)
            if _covers(features, domain):  # a few slices do not show which way is up
                _compare_orientation(features, domain["layout"], findings)
        # A name may be wrong, and one measure may be; of 95 FLAIR scans both were for none, of 46 T1 scans for 31.
        if is_named_otherwise and len(findings.warnings) > 1:
            findings.refusals += findings.warnings
            findings.warnings = []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            "configs/metadata.json of the bundle: its network_data_format is not as `phs-pipeline train` writes it; "
            "restore the file"
        ) from error
    return findings


def measure(windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> Features | None:
    """The features of a volume.

    Args:
        windowed: axial slices in [0, 1], shape (slices, right, anterior).
        spacing_mm: along the same axes.

    Returns:
        None if nothing in it is brighter than air.
    """
    indices = np.unique(np.linspace(0, len(windowed) - 1, SLICES).round().astype(int))
    slices = torch.from_numpy(np.ascontiguousarray(windowed[indices, None]))
    image = GRID.enlarged(windowed.shape[1:], spacing_mm[1:]).images(slices, spacing_mm[1:])[:, 0].numpy()
    body = _body(image)
    if not body.any():
        return None
    depth_mm = GRID.spacing_mm * np.stack(
        [ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] for inside in body]
    )
    deep = depth_mm > min(DEEP_MM, depth_mm.max() / 2)
    surroundings = ndimage.gaussian_filter(image, (0, *(DETAIL_MM / GRID.spacing_mm,) * 2))
    detail = (image - surroundings)[deep] / max(float(np.median(image[deep])), AIR)
    box = ndimage.find_objects(body.view(np.uint8))[0]
    parts = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy((image * body)[box])[None, None], LAYOUT)
    _, right, anterior = body[box].shape
    # As ranges are kept: the spacings of a turned header are off in the seventh digit.
    between_mm, *pixel_mm = (round(size, DIGITS) for size in spacing_mm)
    return Features(
        spacing_mm=(between_mm, pixel_mm[0], pixel_mm[1]),
        thickness_mm=round(len(windowed) * between_mm, DIGITS),
        extent_mm=(right * GRID.spacing_mm, anterior * GRID.spacing_mm),
        ring=_ring(image, depth_mm),
        border=np.quantile(image[body & (depth_mm <= BORDER_MM)], SHARES),
        detail=np.quantile(detail, SHARES),
        layout=parts[0, 0].numpy().astype(np.float64),
    )


def _body(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Largest object brighter than its background, holes filled; background may be noisier than `AIR`."""
    smooth = ndimage.gaussian_filter(image, (0, 1, 1))
    labels, _ = ndimage.label(smooth > max(AIR, 0.5 * _otsu(smooth)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body: NDArray[np.bool_] = labels == sizes.argmax() if sizes.any() else np.zeros(image.shape, dtype=bool)
    for inside in body:
        ndimage.binary_fill_holes(inside, output=inside)
    return body


def _otsu(image: NDArray[np.float32]) -> float:
    """The threshold between two classes whose means lie furthest apart (Otsu 1979)."""
    counts, edges = np.histogram(image, bins=64, range=(0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sum_below = np.cumsum(counts * centres)
    between = (sum_below[-1] * below / total - sum_below) ** 2 / np.maximum(below * (total - below), 1)
    return float(centres[between.argmax()])


def _ring(image: NDArray[np.float32], depth_mm: NDArray[np.float64]) -> float:
    shells = [(depth_mm > start) & (depth_mm <= start + STEP_MM) for start in np.arange(0, DEPTH_MM, STEP_MM)]
    profile = np.array([image[shell].mean() for shell in shells if shell.any()])
    return float(1 - (profile / np.maximum.accumulate(profile)).min())


def _of_kind(volumes: list[Features]) -> dict[str, Any]:
    pairs = [(volume.border, volume.detail) for volume in volumes]
    return {
        "scans": len(volumes),
        "ring": _range([volume.ring for volume in volumes]),
        "extent_mm": [_range([volume.extent_mm[axis] for volume in volumes]) for axis in (0, 1)],
        **_intensities(pairs),
        "limit": _limit(pairs),
    }


Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def _intensities(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Mean quantiles, and the mean distance of the volumes from them."""
    found: dict[str, Any] = {}
    for name, rows in zip(("border", "detail"), (np.array(column) for column in zip(*pairs, strict=True)), strict=True):
        found[name] = _rounded(rows.mean(axis=0))
        found[f"{name}_spread"] = round(float(np.abs(rows - rows.mean(axis=0)).mean()), 5)
    return found


def _distance(pair: Pair, found: Mapping[str, Any]) -> float:
    """1-Wasserstein distance from the mean quantiles, in units of the volumes' own, averaged over both histograms."""
    return float(
        np.mean(
            [
                np.abs(quantiles - np.asarray(found[name], dtype=float)).mean() / max(found[f"{name}_spread"], 1e-3)
                for name, quantiles in zip(("border", "detail"), pair, strict=True)
            ]
        )
    )


def _limit(pairs: Sequence[Pair]) -> float | None:
    """The distance that few volumes keep from all others; None where there are too few to tell."""
    if len(pairs) < FEW:
        return None
    others = ([*pairs[:index], *pairs[index + 1 :]] for index in range(len(pairs)))
    distances = [_distance(pair, _intensities(rest)) for pair, rest in zip(pairs, others, strict=True)]
    return round(float(np.quantile(distances, 1 - OUTLIERS)) * (1 + FEW / len(pairs)), 3)


def _compare_modality(scan: Scan, metadata: Mapping[str, Any], findings: Findings) -> None:
    found = scan.dicom.modality if scan.dicom else ""
    if not (found and "network_data_format" in metadata):
        return
    trained = metadata["network_data_format"]["inputs"]["image"].get("modality", found)
    if found != trained:
        findings.refusals.append(
            f"found a {found} series, the bundle was trained on {trained}; give such a scan, or a bundle for this "
            "modality"
        )


def _compare_contrast(scan: Scan, trained: set[str], findings: Findings) -> bool:
    """Whether the scan is named after another contrast."""
    found = named_contrast(scan.dicom.description if scan.dicom else scan.origin.name)
    is_another = found is not None and not {found, UNNAMED} & trained
    if is_another:
        findings.warnings.append(
            f"found a scan that is named {found}, the bundle was trained on {' and '.join(sorted(trained))}; give such "
            "a scan, or a bundle for this contrast"
        )
    return is_another


def _compare_spacing(features: Features, domain: Mapping[str, Any], findings: Findings) -> None:
    slice_mm, *pixel_mm = features.spacing_mm
    for name, sizes, (low, high), coarser in (
        ("slices at a distance of", [slice_mm], domain["slice_spacing_mm"], COARSER_SLICES),
        ("pixels of", pixel_mm, domain["pixel_spacing_mm"], COARSER_PIXELS),
    ):
        if min(sizes) * FINER < low or max(sizes) > high * coarser:
            found = " × ".join(f"{size:.3g}" for size in sizes)
            findings.warnings.append(
                f"found {name} {found} mm, the bundle was trained on {_from_to(low, high, 3)} mm; look whether detail "
                "that the bundle needs is there, or train on such scans"
            )
    if not _covers(features, domain):
        low, high = domain["thickness_mm"]
        findings.warnings.append(
            f"found slices over {features.thickness_mm:.3g} mm, the bundle was trained on {_from_to(low, high, 3)} mm "
            "of the middle of a head or body; look whether these are of it"
        )


def _covers(features: Features, domain: Mapping[str, Any]) -> bool:
    return bool(features.thickness_mm * EXTENT_WARNS >= domain["thickness_mm"][0])


def _compare_kind(features: Features, kinds: Mapping[str, Any], findings: Findings) -> str:
    """The kind to compare with."""
    if features.kind in kinds:
        return features.kind
    (other,) = kinds
    low, high = kinds[other]["ring"]
    # Midway between the kinds the measure decides by chance.
    if max(low - features.ring, features.ring - high) > RING:
        remedy = (
            "give the scan before skull-stripping" if other == "whole" else "strip the skull first (HD-BET, SynthStrip)"
        )
        findings.refusals.append(
            f"found what looks like one of the {KINDS[features.kind]}, the bundle was trained on {KINDS[other]} only; "
            f"{remedy}, or give another bundle"
        )
    return other


def _compare_extent(features: Features, kind: str, expected: Mapping[str, Any], findings: Findings) -> None:
    off = 1.0
    for found, (low, high) in zip(features.extent_mm, expected["extent_mm"], strict=True):
        off = max(off, low / found, found / high)
    if off <= EXTENT_WARNS:
        return
    found_mm = " × ".join(f"{size:.0f}" for size in features.extent_mm)
    trained = " × ".join(_from_to(low, high) for low, high in expected["extent_mm"])
    sentence = (
        f"found a head or body of {found_mm} mm (right × anterior) in the slab, the bundle was trained on {trained} mm "
        f"({KINDS[kind]}); check the header's voxel size and which part of the body this is"
    )
    (findings.refusals if off > EXTENT_REFUSES else findings.warnings).append(sentence)


def _compare_intensities(features: Features, kind: str, expected: Mapping[str, Any], findings: Findings) -> None:
    limit = expected["limit"]
    if limit is None:
        return
    distance = _distance((features.border, features.detail), expected)
    if distance <= limit:
        return
    sentence = (
        f"found intensities {distance:.1f} times as far from the mean of the {expected['scans']} {KINDS[kind]} of the "
        f"training as these lie on average, where {limit:.1f} times is unusual; check that it is the contrast that the "
        "bundle was trained on, neither inverted nor z-scored"
    )
    (findings.refusals if distance > INTENSITY_REFUSES * limit else findings.warnings).append(sentence)


def _compare_orientation(features: Features, layout: Sequence[float], findings: Findings) -> None:
    expected = np.asarray(layout, dtype=float).reshape(LAYOUT)
    # Left and right look alike.
    expected = _standard(expected + expected[:, ::-1])
    found = features.layout
    side = found.transpose(0, 2, 1)
    turned = {
        "back to front": (found[:, :, ::-1],),
        "upside down": (found[::-1], found[::-1, :, ::-1]),
        "turned by 90° in the axial plane": (side, side[:, :, ::-1]),
    }

    def likeness(seen: NDArray[np.float64]) -> float:
        return float((_standard(seen) * expected).sum())

    as_it_is = likeness(found)
    how = {name: max(likeness(seen) for seen in ways) for name, ways in turned.items()}
    likeliest = max(how, key=lambda name: how[name])
    if how[likeliest] > as_it_is + TURNED:
        findings.warnings.append(
            f"found a head or body that looks more like those of the training when it is {likeliest}, the bundle was "
            "trained on scans that lie as their headers say; check the header's orientation in a viewer"
        )


def _standard(layout: NDArray[np.float64]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = layout - layout.mean()
    centred /= max(float(np.linalg.norm(centred)), 1e-9)
    return centred


def _range(values: Sequence[float]) -> list[float]:
    return [round(min(values), DIGITS), round(max(values), DIGITS)]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values.ravel()]


def _from_to(low: float, high: float, digits: int = 4) -> str:
    return f"{low:.{digits}g}" if low == high else f"{low:.{digits}g} to {high:.{digits}g}"
