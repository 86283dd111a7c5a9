"""Training, validation and test split by patient: slices and sessions of one person never meet across it."""

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.errors import UsageError

SPLITS = ("training", "validation", "test")


def split_patients(patients: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Assign each patient to `training`, `validation` or `test`.

    Args:
        patients: one name a person; repeated names count once.
        fractions: shares of the three splits, summing to 1; a split with a share above zero gets at least one patient.
        seed: of the shuffle; the same patients and seed give the same split, in whatever order they come.

    Raises:
        UsageError: if there are fewer patients than splits with a share.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:
        raise UsageError(
            f"--split: found {' '.join(f'{share:g}' for share in fractions)}, expected three shares that sum to 1; "
            "give for example 0.7 0.15 0.15"
        )
    names = sorted(set(patients))
    wanted = [share > 0 for share in fractions]
    if len(names) < sum(wanted):
        raise UsageError(
            f"found {len(names)} patient(s) with usable scans, expected at least {sum(wanted)} (one each for "
            f"{', '.join(split for split, is_wanted in zip(SPLITS, wanted, strict=True) if is_wanted)}); "
            "add patients or set a share of --split to 0"
        )
    # Largest remainder over what is left once every wanted split has its one patient.
    shares = np.asarray(fractions) * len(names)
    counts = np.maximum(np.floor(shares).astype(int), np.array(wanted, dtype=int))
    while counts.sum() > len(names):
        counts[np.argmax(np.where(counts > wanted, counts - shares, -np.inf))] -= 1
    while counts.sum() < len(names):
        counts[np.argmax(shares - counts)] += 1
    shuffled = np.random.default_rng(seed).permutation(names)
    bounds = np.cumsum(counts)
    return {str(name): SPLITS[int(np.searchsorted(bounds, place, side="right"))] for place, name in enumerate(shuffled)}
