"""Training, validation and test split by patient: slices and sessions of one person never meet across it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from pipeline.errors import UsageError

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_patients(
    patients: Iterable[str], fractions: Sequence[float], seed: int, kept: Mapping[str, Split] | None = None
) -> dict[str, Split]:
    """Assign each patient to `training`, `validation` or `test`.

    Args:
        patients: one name a person; repeated names count once.
        fractions: shares of the three splits, summing to 1; a split with a share above zero gets at least one patient.
        seed: of the shuffle; the same patients and seed give the same split, in whatever order they come.
        kept: splits that some patients are in already, and stay in; the others fill up the shares.

    Raises:
        UsageError: if there are fewer patients than splits with a share.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:
        raise UsageError(
            f"--split: found {' '.join(f'{share:g}' for share in fractions)}, expected three shares that sum to 1; "
            "give for example 0.7 0.15 0.15"
        )
    names = sorted(set(patients))
    present = {name: kept[name] for name in names if name in kept} if kept else {}
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
    free = np.random.default_rng(seed).permutation([name for name in names if name not in present])
    taken = np.array([list(present.values()).count(split) for split in SPLITS])
    room = np.maximum(counts - taken, 0)
    while room.sum() > len(free):  # splits that are over their share leave the others less
        room[np.argmax(room)] -= 1
    bounds = np.cumsum(room)
    drawn: dict[str, Split] = {
        str(name): SPLITS[int(np.searchsorted(bounds, place, side="right"))] for place, name in enumerate(free)
    }
    return {**present, **drawn}
