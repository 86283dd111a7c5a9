"""Whose scan it is, as far as names tell: visits of one person are recognised, so that no split tears them apart.

Two kinds of names. Those that say *visit* by a word or a date (`_ses-02`, `_time01`, `_week-044`, `_tp2`, `_20190312`,
`_followup`, `_6m`, `visit1_`) are taken at their word. A number after a number (`training01_02`, `UPENN-GBM-00001_11`,
`pat105_0015`) or a letter after one (`P01a`) may be a visit, or a person of a site: these are taken together where
several such persons have several scans, which is said. Names whose last part recurs under several others (`P01_s1`,
`P02_s1`) are warned of.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

# BIDS without its session; BraTS from 2023 without its time point; BraTS 2015's TCIA patients without their day.
KNOWN = re.compile(r"sub-[A-Za-z0-9]+(?=_|$)|BraTS-(?:[A-Za-z]+-)+\d+(?=-\d+)|.*?_?tcia_pat\d+(?=_\d+)", re.IGNORECASE)
DATE = (
    r"(?:(?:19|20)\d{2}[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?:T\d{2}[-_.:\d]*)?"
    r"|(?:0[1-9]|[12]\d|3[01])[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:19|20)\d{2})"
)
TIME = (
    r"time[-_ ]?points?|time|tp|weeks?|wk|days?|months?|mo|years?|yr|visit|vis|session|sess|ses|follow[-_ ]?up|fup|fu"
)
WORD = rf"(?:{TIME}|exam|study|scan|run|cycle)"
NUMBER = r"(?:[-_ ]?[-+]?\d+|[-_ ]?(?:[a-d]|one|two|three|first|second|third))"
VISIT = (
    rf"{WORD}{NUMBER}"
    r"|(?:v[-_ ]?\d+|[tm]\d{2,3}|mr_?d?\d+|t0|(?<=\d[-_. ])[dmy]\d{1,4})"
    r"|\d{1,3}(?:days?|weeks?|wk|months?|mo|years?|yr|[wmy])"
    r"|(?:baseline|bl|follow[-_ ]?up|initial|pre-?op|post-?op|pre-?treatment|post-?treatment|pre-?rt|post-?rt|pre|post"
    r"|nadir|recurrence|relapse|progression|scan|rescan|test|retest|first|second|third|early|late)"
)
# What stands before the visit is the person, or after it; a person is never empty.
BY_WORD = re.compile(
    rf"(?P<person>.*?[A-Za-z0-9])[-_. ]+(?:{DATE}|{VISIT})(?=$|[-_. ])"
    rf"|(?P<before>.*\d)(?:{WORD}|v)\d+(?=$|[-_. ])"
    rf"|(?:(?:{TIME}){NUMBER}|baseline|follow[-_ ]?up)[-_. ]+(?P<after>.*\d.*)",
    re.IGNORECASE,
)
BY_NUMBER = re.compile(
    r"(?P<person>(?!brats\d+[-_]\d+$).*\d)(?:[-_.](?P<visit>\d{1,4}|[a-d])|(?P<letter>[a-d]))(?=$|_)", re.IGNORECASE
)
LAST = re.compile(r"(?P<person>.+)[-_. ](?P<last>[^-_. ]+)")
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
            found[name] = by_word["person"] or by_word["before"] or by_word["after"]
            worded[found[name]].append(name)
        else:
            found[name] = name
            if by_number := BY_NUMBER.match(name):
                unclear[by_number["person"]].append(name)
    notes = []
    # MS_visit1, MS_visit2 or siteA_scan001, siteA_scan002, …: of whom?
    nobody = {
        person: members
        for person, members in worded.items()
        if not re.search(r"\d", person) and len(members) > (1 if len(worded) == 1 else MOST_VISITS)
    }
    if nobody:
        found |= {name: name for members in nobody.values() for name in members}
        notes.append(_alike(nobody))
        worded = {person: members for person, members in worded.items() if person not in nobody}
    several = {person: members for person, members in unclear.items() if len(members) > 1}
    if len(unclear) > 1 and 2 * len(several) >= len(unclear):
        if max(map(len, several.values())) <= MOST_VISITS:
            found |= {name: person for person, members in several.items() for name in members}
            worded |= several
        else:
            notes.append(_alike(several))
    elif not notes and (crossed := _crossed([name for name, person in found.items() if name == person])):
        notes.append(_alike(crossed))
    if taken := {person: members for person, members in worded.items() if len(members) > 1}:
        notes.append(
            f"names look like visits of one person ({_some(taken)}); these stay together in one split: if they are "
            "different people, say so in a column 'patient' of a datalist"
        )
    return found, notes


def _crossed(names: list[str]) -> dict[str, list[str]]:
    """Names by all but their last part, where those parts recur under several: P01_s1, P01_s2, P02_s1, P02_s2."""
    split = [parts for name in names if (parts := LAST.fullmatch(name))]
    under: dict[str, set[str]] = defaultdict(set)
    for parts in split:
        under[parts["last"]].add(parts["person"])
    groups: dict[str, list[str]] = defaultdict(list)
    for parts in split:
        if len(under[parts["last"]]) > 1:
            groups[parts["person"]].append(parts.group())
    return {person: members for person, members in groups.items() if len(members) > 1}


def _alike(groups: dict[str, list[str]]) -> str:
    return (
        f"names look alike ({_some(groups)}); each was taken as a person of its own: if they are visits of one, name "
        "the person in a column 'patient' of a datalist"
    )


def _some(groups: dict[str, list[str]]) -> str:
    shown = [f"{person}: {', '.join(members[:SHOWN])}" for person, members in sorted(groups.items())[:SHOWN]]
    return "; ".join(shown) + (f"; and {len(groups) - SHOWN} more" if len(groups) > SHOWN else "")
