"""Whose scan it is, as far as names tell: visits of one person are recognised, so that no split tears them apart.

Two kinds of names. Those that say *visit* by a word or a date (`_ses-02`, `_time01`, `_week-044`, `_tp2`, `_20190312`,
`_followup`) are taken at their word. A number after a number (`training01_02`, `UPENN-GBM-00001_11`, `pat105_0015`) or
a letter after one (`P01a`) may be a visit, or a person of a site: these are taken together where several such persons
have several scans, which is said.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

# BIDS without its session; BraTS from 2023 without its time point; BraTS 2015's TCIA patients without their day.
KNOWN = re.compile(r"sub-[A-Za-z0-9]+(?=_|$)|BraTS-(?:[A-Za-z]+-)+\d+(?=-\d+)|.*?_?tcia_pat\d+(?=_\d+)", re.IGNORECASE)
DATE = r"(?:19|20)\d{2}[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])"
VISIT = (
    r"(?:time[-_ ]?points?|time|tp|weeks?|wk|days?|months?|mo|years?|yr|visit|vis|session|sess|ses|exam|study"
    r"|follow[-_ ]?up|fu|v)[-_ ]?\d+"
    r"|(?:[tm]\d{2,3}|mr_?d?\d+|t0)"
    r"|(?:baseline|bl|follow[-_ ]?up|initial|pre-?op|post-?op|pre-?treatment|post-?treatment|pre-?rt|post-?rt|pre|post)"
)
# What stands before the visit is the person; a person is never empty.
BY_WORD = re.compile(rf"(?P<person>.*?[A-Za-z0-9])[-_. ]+(?P<visit>{DATE}|{VISIT})(?=$|[-_. ])", re.IGNORECASE)
BY_NUMBER = re.compile(
    r"(?P<person>(?!brats\d+[-_]\d+$).*\d)(?:[-_](?P<visit>\d{1,4}|[a-d])|(?P<letter>[a-d]))(?=$|_)", re.IGNORECASE
)
# More scans than this are hardly one person's.
MOST_VISITS = 12
SHOWN = 3


def people(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The person of each name, and notes on what was assumed.

    >>> people(["sub-01_ses-1", "P7_week-044", "Müller"])[0]
    {'sub-01_ses-1': 'sub-01', 'P7_week-044': 'P7', 'Müller': 'Müller'}
    """
    found: dict[str, str] = {}
    unclear: dict[str, list[str]] = defaultdict(list)
    worded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if known := KNOWN.match(name):
            found[name] = known.group()
        elif by_word := BY_WORD.match(name):
            found[name] = by_word["person"]
            worded[by_word["person"]].append(name)
        else:
            found[name] = name
            if by_number := BY_NUMBER.match(name):
                unclear[by_number["person"]].append(name)
    notes = []
    for person, members in list(worded.items()):
        if len(worded) == 1 and len(members) > 1 and not re.search(r"\d", person):  # MS_visit1, MS_visit2: of whom?
            found |= {name: name for name in members}
            notes.append(_alike(worded))
            worded = {}
    several = {person: members for person, members in unclear.items() if len(members) > 1}
    if len(unclear) > 1 and 2 * len(several) >= len(unclear):
        if max(map(len, several.values())) <= MOST_VISITS:
            found |= {name: person for person, members in several.items() for name in members}
            worded |= several
        else:
            notes.append(_alike(several))
    if taken := {person: members for person, members in worded.items() if len(members) > 1}:
        notes.append(
            f"names look like visits of one person ({_some(taken)}); these stay together in one split: if they are "
            "different people, say so in a column 'patient' of a datalist"
        )
    return found, notes


def _alike(groups: dict[str, list[str]]) -> str:
    return (
        f"names look alike ({_some(groups)}); each was taken as a person of its own: if they are visits of one, name "
        "the person in a column 'patient' of a datalist"
    )


def _some(groups: dict[str, list[str]]) -> str:
    shown = [f"{person}: {', '.join(members[:SHOWN])}" for person, members in sorted(groups.items())[:SHOWN]]
    return "; ".join(shown) + (f"; and {len(groups) - SHOWN} more" if len(groups) > SHOWN else "")
