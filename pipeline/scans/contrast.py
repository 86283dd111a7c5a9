"""The MRI contrast that a scan's name tells."""

import re

# Names of BIDS, of BraTS before and since 2023, and of scanners' protocols.
WORDS = {
    "FLAIR": {"flair", "t2f", "tirm", "darkfluid"},
    "T1w": {"t1", "t1w", "t1n", "mprage", "mp2rage", "spgr", "bravo", "fspgr"},
    "contrast-enhanced T1w": {"t1ce", "t1c", "t1gd", "t1wce"},
    "T2w": {"t2", "t2w"},
    "DWI": {"dwi", "adc", "trace", "dti"},
    "PD": {"pd", "pdw"},
    "SWI": {"swi", "t2star", "t2starw"},
}
# "Dark fluid", as Siemens names FLAIR, its three-dimensional one "t2_spc_da-fl".
DARK_FLUID = re.compile(r"da(rk)?[ _-]?fl(uid)?(?![a-z])")
ENHANCED = {"ce", "gd", "gad", "gadolinium", "post", "postcontrast"}


def named_contrast(name: str) -> str | None:
    """The contrast that a file's name or a series' description tells; None if it tells none, or several.

    >>> named_contrast("sub-01_FLAIR.nii.gz"), named_contrast("t2_tirm_tra_dark-fluid")
    ('FLAIR', 'FLAIR')
    >>> named_contrast("t2_spc_da-fl_sag_p2_iso"), named_contrast("Sag T2 Cube IRFLAIR")
    ('FLAIR', 'FLAIR')
    >>> named_contrast("sub-01_ce-gadolinium_T1w.nii.gz"), named_contrast("BraTS-GLI-00000-000-t1c.nii.gz")
    ('contrast-enhanced T1w', 'contrast-enhanced T1w')
    >>> named_contrast("patient07.nii.gz"), named_contrast("T1 FLAIR")
    (None, None)
    """
    words = set(re.split(r"[^a-z0-9]+", DARK_FLUID.sub("darkfluid", name.lower())))
    words = {"flair" if "flair" in word else word for word in words}
    told = {contrast for contrast, names in WORDS.items() if words & names}
    if told == {"FLAIR", "T2w"}:  # a FLAIR is weighted so
        return "FLAIR"
    if told == {"T1w"} and words & ENHANCED:
        return "contrast-enhanced T1w"
    return told.pop() if len(told) == 1 else None
