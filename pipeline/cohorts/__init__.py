"""How public and private cohorts lie on disk: one file a layout, registered by name.

The order is that in which layouts are tried: masks tell them apart, since images of ISLES 2022 lie as in BIDS, and
`<id>_flair` occurs elsewhere too.
"""

from pipeline.cohorts import bids, brats, isles, lits, nnunet, challenges, ct_ich, healthy, head_neck, datalist  # noqa: F401, I001 - registers them, in this order
from pipeline.cohorts.case import Case, FoundCases, Problem
from pipeline.cohorts.find import find_cases
from pipeline.cohorts.layout import LAYOUTS

__all__ = ["LAYOUTS", "Case", "FoundCases", "Problem", "find_cases"]
