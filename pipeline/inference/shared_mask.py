"""One lesion mask for several scans of a person: of several contrasts, or of several visits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its users know it so)

from pipeline.errors import ScanError, UsageError
from pipeline.files import sha256
from pipeline.inference.preparation import on_grid, rigid_pose
from pipeline.preprocessing.labels import empty, lesion_voxels
from pipeline.scans import Scan, check_same_grid, on_grid_of, read_nifti
from pipeline.scans.sources import Source

# Of a mask's volume, has to lie in each scan that it is brought to.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class SharedMask:
    """The union of all that was drawn in any of the scans, brought to the grid of each: the same tissue in all.

    Attributes:
        drawn: each mask's file and the scan whose grid it lies on.
        moved: the head lies differently in the scans: each is registered rigidly to the scan that a mask was drawn in.
            Without it, scans on other grids are taken to lie in the same space.
    """

    drawn: tuple[tuple[Path, Source], ...]
    moved: bool = False

    @classmethod
    def of(cls, masks: Sequence[Path], scans: Sequence[Source], moved: bool = False) -> "SharedMask":
        """The masks of some scans.

        Args:
            masks: one that lies on the grid of one of the scans, or one for each scan in the same order.
            scans: of one person.
            moved: see above.

        Raises:
            UsageError: if one for all lies on the grid of no scan.
            ScanError: if one cannot be read.
        """
        if len(masks) == len(scans):
            return cls(tuple(zip(masks, scans, strict=True)), moved)
        mask = read_nifti(masks[0], constant_ok=True)
        for source in scans:
            if _is_on(source.read(), mask):
                return cls(((masks[0], source),), moved)
        raise UsageError(
            f"{masks[0]}: lies on the grid of none of the {len(scans)} scans, expected that of one of them; resample "
            "it onto the scan that it was drawn in"
        )

    def on(self, source: Source, scan: Scan) -> tuple[Scan, list[str]]:
        """The mask on a scan's grid, and what was done for it.

        Args:
            source: one of the scans.
            scan: as it was read.

        Raises:
            ScanError: if a mask does not lie on its scan's grid or is empty, no registration is found, or most of a
                mask lies outside the scan.
        """
        inside = np.zeros(scan.shape, bool)
        notes: list[str] = []
        for path, drawn_in in self.drawn:
            part, told = self._brought(path, drawn_in, source, scan)
            inside |= part
            notes += told
        if len(self.drawn) > 1:
            notes.append(f"the union of {len(self.drawn)} masks was filled, in all scans the same")
        return Scan(inside.astype(np.uint8), 1.0, 0.0, scan.header, self.drawn[0][0]), notes

    def _brought(
        self, path: Path, drawn_in: Source, source: Source, scan: Scan
    ) -> "tuple[np.ndarray[tuple[int, ...], np.dtype[np.bool_]], list[str]]":
        home = scan if drawn_in == source else _read_scan(drawn_in)
        mask = on_grid_of(home, read_mask(path, source))
        check_same_grid(home, mask, "mask")
        lesion, notes = lesion_voxels(mask, home)
        if not lesion.any():
            raise ScanError(f"{mask.origin}: the mask {empty(mask)}, expected a lesion; give another mask")
        if home is scan:
            return lesion, notes
        binary = replace(mask, stored=lesion.astype(np.uint8), slope=1.0, intercept=0.0)
        if not self.moved and _is_on(scan, binary):
            return on_grid_of(scan, binary).intensities() > 0, notes
        pose: sitk.Transform = sitk.Transform(3, sitk.sitkIdentity)
        if self.moved:
            pose, turned, moved = rigid_pose(scan, home)
            notes.append(
                f"registered to {home.origin.name}, in which {mask.origin.name} was drawn: turned by {turned:.1f}°, "
                f"moved by {moved:.1f} mm"
            )
        part = on_grid(lesion.astype(np.float32), binary.affine, scan, pose, 0.0) >= 0.5
        before_ml, after_ml = float(lesion.sum()) * home.voxel_ml, float(part.sum()) * scan.voxel_ml
        if after_ml < LEAST_SHARE * before_ml:
            raise ScanError(
                f"{scan.origin}: found {after_ml:.3g} of the {before_ml:.3g} ml of {mask.origin.name} in it, expected "
                "at least half; give scans of one person that show the lesion, and --moved if the head lies differently"
            )
        notes.append(
            f"{mask.origin.name} was resampled from the grid of {home.origin.name}: {before_ml:.3g} ml, "
            f"{after_ml:.3g} here"
        )
        return part, notes


def read_mask(path: Path, source: Source) -> Scan:
    """The lesion mask of a scan, without its name where the scan is DICOM: it may be a patient's.

    Raises:
        ScanError: if it cannot be read.
    """
    mask = read_nifti(path, constant_ok=True)
    return mask if source.kind != "dicom" else unnamed(mask, "a mask", sha256(path))


def unnamed(scan: Scan, what: str, digest: str) -> Scan:
    """A scan under its hash instead of its name."""
    return replace(scan, origin=Path(f"{what} of SHA-256 {digest[:12]}"))


def _read_scan(source: Source) -> Scan:
    scan = source.read()
    return scan if source.kind != "dicom" else unnamed(scan, "a scan", source.sha256())


def _is_on(scan: Scan, mask: Scan) -> bool:
    try:
        check_same_grid(scan, on_grid_of(scan, mask), "mask")
    except ScanError:
        return False
    return True
