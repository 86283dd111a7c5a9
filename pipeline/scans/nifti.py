"""NIfTI in and out with nibabel: what comes out lies on the grid of what went in."""

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from pipeline.errors import ScanError, UsageError, first_line
from pipeline.files import written_aside
from pipeline.scans.pointer import check_fetched
from pipeline.scans.scan import SPACING_LIMITS_MM, Scan, apart_mm, is_same_place

# Deflate cannot compress better than 1032:1, so a header that claims more than that lies about its size.
DEFLATE_LIMIT = 1032
SUFFIXES = (".nii.gz", ".nii")
PACKED_SUFFIXES = (".gz", ".mgz")
# What is read behind the voxels of a packed file in search of its checksum.
MOST_BEHIND, BLOCK = 64 << 20, 1 << 20
# How Python's gzip begins to say that what follows a checksum is no packed data.
NO_MEMBER = "Not a gzipped file"
# The size of its header, by which a file says that it is NIfTI-2.
NIFTI_2 = 540
# By their code in the header, with millimetres for one of them.
LENGTHS = {1: ("metre", 1e3), 3: ("micrometre", 1e-3)}
# In the header's description, which every viewer shows: a file that is renamed still says what it is.
MARK = b"SYNTHETIC by phs-pipeline - NOT FOR DIAGNOSIS"


def is_nifti(path: Path) -> bool:
    """Whether a file's name ends like a NIfTI file's."""
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """A file's name without `.nii` or `.nii.gz`.

    >>> stem(Path("sub-01_FLAIR.nii.gz"))
    'sub-01_FLAIR'
    """
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def is_marked(header: nib.Nifti1Header) -> bool:
    """Whether a header says that `write_nifti` wrote the file."""
    return bool(header["descrip"].item().startswith(MARK))


def read_nifti(path: Path, constant_ok: bool = False, volume: int | None = None) -> Scan:
    """Read one 3-D volume (or a 4-D file that holds one volume, or one of those that it holds).

    NIfTI-1 and NIfTI-2 in a single file.

    Args:
        path: `.nii` or `.nii.gz`.
        constant_ok: accept a volume whose voxels are all equal, as an empty mask's are.
        volume: which one of a 4-D file to read, from 0; None expects a single one.

    Raises:
        UsageError: if the file is missing or is a folder.
        ScanError: if it cannot be read as one real-valued, finite volume.
    """
    path = Path(path)
    image, volume = _opened(path, volume)
    try:
        stored = np.asanyarray(unscaled(_voxels(image), path))
    except MemoryError as error:
        raise ScanError(
            f"{path}: found a volume of shape {image.shape}, expected one that fits into memory; crop it or free memory"
        ) from error
    except Exception as error:  # as above: damage shows as anything from zlib.error to OverflowError
        raise ScanError(
            f"{path}: found voxels that cannot be read ({first_line(error)}), expected {image.shape} of them; the "
            "file is truncated or damaged, copy it again"
        ) from error
    header = image.header.copy()
    if volume is not None:
        stored = stored[..., volume]
        header.set_data_shape(stored.shape)
    scan = Scan(
        stored=stored.reshape(stored.shape[:3]),
        slope=float(image.dataobj.slope),
        intercept=float(image.dataobj.inter),
        header=header,
        origin=path,
    )
    if not constant_ok:
        _check_varies(scan)
    return _noted(scan)


def unscaled(voxels: ArrayProxy, path: Path) -> NDArray[np.generic]:
    """The stored values of a volume, in memory or mapped; of a packed file whole and as they were packed.

    nibabel stops where the voxels end, before the checksum that tells a flipped bit or a cut end.

    Args:
        voxels: as nibabel found them.
        path: their file.

    Raises:
        Exception: of any kind, where the file is damaged.
    """
    if not path.name.lower().endswith(PACKED_SUFFIXES):
        stored: NDArray[np.generic] = voxels.get_unscaled()
        return stored
    with ImageOpener(path) as file:
        spec = (voxels.shape, voxels.dtype, voxels.offset, voxels.slope, voxels.inter)
        stored = ArrayProxy(file, spec, mmap=False).get_unscaled()
        _check_end(file)
    return stored


def _check_end(file: ImageOpener) -> None:
    """Read on to the checksum, over what other programs leave behind the voxels; what follows it does not count."""
    try:
        for _ in range(MOST_BEHIND // BLOCK):
            if not file.read(BLOCK):
                break
    except gzip.BadGzipFile as error:
        if not str(error).startswith(NO_MEMBER):
            raise


def read_grid(path: Path, volume: int | None = None) -> Scan:
    """A scan by its header alone: its voxels are not read, all are 0 and take no memory.

    Args:
        path: as for `read_nifti`.
        volume: as for `read_nifti`.

    Raises:
        UsageError, ScanError: as `read_nifti`, but for damage behind the header.
    """
    image, volume = _opened(Path(path), volume)
    header, shape = image.header.copy(), image.shape[:3]
    header.set_data_shape(shape)
    nothing = np.broadcast_to(np.zeros((), image.get_data_dtype()), shape)
    return Scan(nothing, float(image.dataobj.slope), float(image.dataobj.inter), header, Path(path))


def _opened(path: Path, volume: int | None) -> tuple[nib.Nifti1Image, int | None]:
    """A file whose header is as it can be, and which of its volumes is meant; None of a single one.

    Raises:
        UsageError: if the file is missing or is a folder.
        ScanError: if its header tells that it is not one real-valued volume of a possible size.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise UsageError(f"{path}: found a folder, expected a NIfTI file (.nii or .nii.gz); name the file in it")
    check_fetched(path)
    if not is_nifti(path):
        raise ScanError(f"{path}: found a file of another kind, expected NIfTI (.nii or .nii.gz); convert it first")
    try:
        image = _load(path)
    except Exception as error:  # nibabel's readers raise whatever their parser stumbles over
        raise ScanError(
            f"{path}: found no readable header ({first_line(error)}), expected a NIfTI file; copy it again or convert "
            "the original"
        ) from error
    if not isinstance(image, nib.Nifti1Image):
        kind = type(image).__name__
        raise ScanError(f"{path}: found a file of kind {kind}, expected NIfTI; convert it to .nii.gz first")
    volume = _volume_of(path, image, volume)
    _check_kind(path, image, several=volume is not None)
    _check_size(path, image)
    _check_spacing(path, image)
    _check_units(path, image)
    return image, volume


def from_image(image: nib.Nifti1Image, origin: Path, constant_ok: bool = False) -> Scan:
    """A NIfTI image in memory as a scan.

    Args:
        image: one volume, as `read_nifti` reads it.
        origin: by which messages name it.
        constant_ok: as for `read_nifti`.

    Raises:
        ScanError: if it is no single volume of finite, real numbers in millimetres.
    """
    if not isinstance(image, nib.Nifti1Image):
        raise ScanError(f"{origin}: found a {type(image).__name__}, expected an image of nibabel's NIfTI classes")
    _check_kind(origin, image)
    _check_units(origin, image)
    proxy = image.dataobj if nib.is_proxy(image.dataobj) else None
    stored = np.asanyarray(image.dataobj if proxy is None else proxy.get_unscaled())
    scan = Scan(
        stored=stored.reshape(stored.shape[:3]),
        slope=1.0 if proxy is None else float(proxy.slope),
        intercept=0.0 if proxy is None else float(proxy.inter),
        header=image.header.copy(),
        origin=origin,
    )
    if not constant_ok:
        _check_varies(scan)
    return _noted(scan)


def _noted(scan: Scan) -> Scan:
    """With a note where the header places the voxels twice, in different places: programs differ in which they take."""
    header = scan.header
    if not (header["qform_code"] > 0 and header["sform_code"] > 0):
        return scan
    try:
        qform = header.get_qform()
    except ValueError:  # no rotation
        return replace(scan, notes=("the header's qform is damaged; its sform was taken",))
    if is_same_place(qform, scan):
        return scan
    apart = apart_mm(qform, scan)
    return replace(scan, notes=(f"the header's qform and sform lie up to {apart:.3g} mm apart; the sform was taken",))


def _check_varies(scan: Scan) -> None:
    if scan.stored.min() == scan.stored.max():
        raise ScanError(
            f"{scan.origin}: found a constant volume (every voxel is {scan.stored.flat[0]}), expected an image; check "
            "the conversion that made it"
        )


def _volume_of(path: Path, image: nib.Nifti1Image, volume: int | None) -> int | None:
    """The number of a volume, or None where the file holds a single one."""
    if volume is None or len(image.shape) < 4:
        return None
    if volume >= image.shape[3]:
        raise ScanError(
            f"{path}: found {image.shape[3]} volumes, expected one with the number {volume}, counted from 0; choose "
            "another channel"
        )
    return volume


def _check_kind(path: Path, image: nib.Nifti1Image, several: bool = False) -> None:
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        found = "colour (RGB)" if dtype.fields is not None else f"{dtype} values"
        raise ScanError(f"{path}: found {found}, expected one real number a voxel; convert it to grey values first")
    shape = image.shape
    if not several and any(size > 1 for size in shape[3:]):
        volumes = int(np.prod(shape[3:]))
        raise ScanError(
            f"{path}: found {volumes} volumes of shape {shape[:3]}, expected one; split the file (fslsplit) and "
            "give the volume you mean"
        )
    if len(shape) < 3 or min(shape) < 1:
        raise ScanError(
            f"{path}: found an array of shape {shape}, expected a volume with three axes; check the conversion that "
            "made it"
        )


def _check_size(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse a file that is too small for what its header claims, before that is read."""
    dtype, shape = image.get_data_dtype(), image.shape
    claimed = _voxels(image).offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    size = path.stat().st_size
    if claimed > (size * DEFLATE_LIMIT if path.name.lower().endswith(".gz") else size):
        raise ScanError(
            f"{path}: found {size} bytes, expected a file that holds the {claimed} bytes its header claims; it is "
            "truncated or damaged, copy it again"
        )


def _load(path: Path) -> nib.Nifti1Image:
    """The image, whose voxels are not read yet; nibabel itself opens no file whose ending mixes cases."""
    if path.name.endswith((*SUFFIXES, *map(str.upper, SUFFIXES))):
        return nib.load(path)
    with ImageOpener(path) as file:
        size = file.read(4)
    second = int.from_bytes(size, "little") == NIFTI_2 or int.from_bytes(size, "big") == NIFTI_2
    kind = nib.Nifti2Image if second else nib.Nifti1Image
    return kind.from_file_map({"image": FileHolder(path)})


def _voxels(image: nib.Nifti1Image) -> ArrayProxy:
    """The voxels where they lie: behind the header, which some headers do not count in and other programs do."""
    stated, header = image.dataobj, image.header
    if stated.offset >= header.single_vox_offset or not header.is_single:
        return stated
    spec = (image.shape, header.get_data_dtype(), header.single_vox_offset, stated.slope, stated.inter)
    return ArrayProxy(image.file_map["image"].filename, spec)


def _check_units(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse lengths in other units; a header whose voxels would then be of no possible size means millimetres."""
    # nibabel's own look-up fails on codes that do not exist.
    units, factor = LENGTHS.get(int(image.header["xyzt_units"]) & 7, ("millimetre", None))
    if factor is None:
        return
    low, high = SPACING_LIMITS_MM
    sizes = voxel_sizes(image.affine) * factor
    if ((sizes >= low) & (sizes <= high)).all():
        stated = " x ".join(f"{size:g}" for size in sizes / factor)
        raise ScanError(
            f"{path}: found voxels of {stated} {units}s (the header's xyzt_units), expected millimetres; convert the "
            "header's lengths to millimetres"
        )


def _check_spacing(path: Path, image: nib.Nifti1Image) -> None:
    # On loading, nibabel replaces voxel sizes of 0 by 1 mm; without an sform they would be the scan's geometry.
    if image.header["sform_code"] == 0:
        with ImageOpener(path) as file:
            sizes = type(image.header).from_fileobj(file, check=False)["pixdim"][1:4]
        if not sizes.all():
            raise ScanError(
                f"{path}: found an affine of nothing but voxels of {' x '.join(f'{size:g}' for size in sizes)} mm, "
                "expected the size of the voxels; repair the header's qform or sform"
            )


def write_nifti(
    path: Path, stored: NDArray[np.generic], like: Scan, difference: bool = False, mark: bytes = MARK
) -> None:
    """Write synthetic voxels on the grid of `like`, see `as_nifti`.

    Args:
        path: `.nii` or `.nii.gz`; appears whole or not at all.
        stored: as for `as_nifti`, as all that follows.
        like: see there.
        difference: see there.
        mark: see there.
    """
    with written_aside(path) as aside:
        nib.save(as_nifti(stored, like, difference, mark), aside)


def as_nifti(stored: NDArray[np.generic], like: Scan, difference: bool = False, mark: bytes = MARK) -> nib.Nifti1Image:
    """Synthetic voxels on the grid of `like`: same shape, affine, qform and sform codes, units, NIfTI version.

    The header is marked; free text of the source, which may be a patient's, is left out.

    Args:
        stored: shape (X, Y, Z), in the data type to write.
        like: the scan whose header is kept.
        difference: `stored` is the difference of two volumes in the stored units of `like`; its slope turns that
            into a difference of intensities, without the intercept.
        mark: what the header's description says; by default that the file is synthetic.
    """
    header = like.header.copy()
    header.set_data_dtype(stored.dtype)
    # A display range belongs to the source's voxels.
    header["descrip"] = mark
    for text in {"db_name", "aux_file", "intent_name"} & set(header.keys()):
        header[text] = b""
    header["cal_min"] = header["cal_max"] = 0
    header.extensions.clear()
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(stored.reshape(header.get_data_shape()), header.get_best_affine(), header)
    # Set after construction: nibabel then writes the stored values as they are.
    image.header.set_slope_inter(like.slope, 0.0 if difference else like.intercept)
    return image
