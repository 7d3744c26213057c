"""Copies, overlapping crops, video neighbours, and what of them stands on two sides of a split.

copies     one picture more than once: byte by byte, stored anew, or cut a little
overlaps   pictures that show the same place: crops of one photo, neighbours in a video or a flight
leak       pictures of validation or test of which the training side has a copy, or a crop of the same photo
neighbours pictures of validation or test of which the training side has a neighbour
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segwright.auditing.findings import Answer, Finding, Level
from segwright.auditing.overlaps import Pair, find_pairs, grouped
from segwright.auditing.prints import Prints, fingerprint
from segwright.auditing.survey import Look, Survey

__all__ = ["Prints", "examine", "fingerprint"]

LARGEST_SHARE = 0.1
"""Of all pictures: no group of places that look alike grows beyond this."""

LARGEST_GROUP = 20
"""Nor is it cut below this."""

SAME_SCENE = 0.8
"""Likeness from which an overlap is of one photo, or of the very next one."""

TEST = "test data"
_ORDER = {"test": 0, "val": 1}


@dataclass(frozen=True)
class _Seen:
    """One picture of either data set: its look, its side, and its name in findings."""

    look: Look
    side: str | None
    own: bool


def examine(survey: Survey, *, test: Survey | None = None) -> Answer:
    """Look for pictures that show the same thing.

    Args:
        survey: the data.
        test: other data that stand for the test pictures; what they share with the data is a leak.
    """
    seen = [_Seen(look, look.split, own=True) for look in survey.looks if look.prints is not None]
    if test is not None:
        seen += [_Seen(look, TEST, own=False) for look in test.looks if look.prints is not None]
    twins = _twins(seen)
    # Of pictures that are equal pixel by pixel one is compared with the others.
    singles = sorted({members[0] for members in twins.values()})
    prints = [one.look.prints for one in (seen[i] for i in singles) if one.look.prints is not None]
    pairs = [
        Pair(singles[pair.first], singles[pair.second], pair.inliers, pair.likeness, pair.shared)
        for pair in find_pairs(prints, sides=[seen[i].side for i in singles])
    ]
    exact = [Pair(members[0], other, 0, 1.0, (1.0, 1.0)) for members in twins.values() for other in members[1:]]
    everything = [*exact, *pairs]
    largest = max(LARGEST_GROUP, round(LARGEST_SHARE * len(seen)))
    numbers, apart = grouped(len(seen), everything, largest=largest)
    groups = _named(seen, numbers)
    copies = [pair for pair in everything if pair.is_copy]
    findings = [
        *_copies(seen, copies),
        *_leaks(seen, everything),
        *_overlaps(seen, [pair for pair in everything if not pair.is_copy], groups),
    ]
    sizes = np.unique(list(groups.values()), return_counts=True)[1] if groups else np.zeros(1, dtype=np.int64)
    facts = {
        "pictures": len(seen),
        "copies": len(copies),
        "exact_copies": len(exact),
        "overlaps": len(everything) - len(copies),
        "groups": groups,
        "largest_group": int(sizes.max()),
        "pairs_in_two_groups": apart,
    }
    return Answer(facts, tuple(findings))


def _twins(seen: Sequence[_Seen]) -> dict[str, list[int]]:
    """Positions of equal pictures, by digest."""
    twins: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(seen):
        twins[one.look.image_digest].append(i)
    return twins


def _named(seen: Sequence[_Seen], numbers: Sequence[int]) -> dict[str, str]:
    """Group of each picture of the data that shares one with another of them; called after its first picture."""
    members: dict[int, list[str]] = defaultdict(list)
    for one, number in zip(seen, numbers, strict=True):
        if one.own:
            members[number].append(one.look.id)
    return {name: f"like {ids[0]}" for ids in members.values() if len(ids) > 1 for name in ids}


def _copies(seen: Sequence[_Seen], copies: Sequence[Pair]) -> list[Finding]:
    """Copies within the data, set by set; those with an equal mask are left out but for the first."""
    own = [pair for pair in copies if seen[pair.first].own and seen[pair.second].own]
    if not own:
        return []
    numbers, _ = grouped(len(seen), own, largest=len(seen))
    sets: dict[int, list[int]] = defaultdict(list)
    # The first of a set stays: that of the test side, where there is one.
    copied = {i for pair in own for i in (pair.first, pair.second)}
    for i in sorted(copied, key=lambda i: (seen[i].side != "test", i)):
        sets[numbers[i]].append(i)
    notes, drop, differing = {}, {}, 0
    for members in sets.values():
        # What a model is to be examined on stays.
        members.sort(key=lambda i: (_ORDER.get(seen[i].side or "", 2), i))
        first = seen[members[0]].look
        for i in members[1:]:
            look = seen[i].look
            same = look.image_digest == first.image_digest
            notes[look.id] = f"{'the same picture as' if same else 'a changed copy of'} {first.id}"
            if same and look.mask_digest != first.mask_digest:
                differing += 1
                notes[look.id] += ", but with another mask"
            elif same:
                drop[look.id] = f"copy of {first.id}"
    groups = tuple(tuple(seen[i].look.id for i in members) for members in sets.values())
    extra = sum(len(group) - 1 for group in groups)
    summary = f"{extra} picture{'s are copies' if extra > 1 else ' is a copy'} of another one."
    if differing:
        summary += f" {differing} of them {'have masks that differ' if differing > 1 else 'has a mask that differs'}."
    ids = tuple(name for group in groups for name in group)
    level: Level | None = "mend" if differing else None
    return [Finding("copies", summary, ids, notes, groups, drop, {"with_other_masks": differing}, level)]


def _leaks(seen: Sequence[_Seen], pairs: Sequence[Pair]) -> list[Finding]:
    """What the training side also shows of pictures that a model is to be examined on."""
    worst: dict[int, tuple[float, int, Pair]] = {}
    for pair in pairs:
        for examined, learnt in ((pair.first, pair.second), (pair.second, pair.first)):
            if not _crosses(seen[learnt].side, seen[examined].side):
                continue
            grade = pair.is_copy + pair.likeness
            if examined not in worst or grade > worst[examined][0]:
                worst[examined] = (grade, learnt, pair)
    graver = {i: found for i, found in worst.items() if found[2].is_copy}
    findings = []
    for kind, members in (("leak", graver), ("neighbours", {i: one for i, one in worst.items() if i not in graver})):
        if members:
            findings.append(_leak(kind, seen, members))
    return findings


def _crosses(learnt: str | None, examined: str | None) -> bool:
    """Pictures without a side are taken for training pictures only beside other test data."""
    if examined == TEST:
        return learnt != TEST
    return learnt == "train" and examined in ("val", "test")


def _leak(kind: str, seen: Sequence[_Seen], members: Mapping[int, tuple[float, int, Pair]]) -> Finding:
    order = sorted(members, key=lambda i: -members[i][0])
    notes, groups = {}, []
    for i in order:
        _, learnt, pair = members[i]
        one, other = seen[i], seen[learnt]
        what = "is a copy of" if pair.is_copy else "shows the same place as"
        notes[one.look.id] = f"in {one.side}; {what} {other.look.id} in {other.side or 'the training data'}"
        groups.append((one.look.id, other.look.id))
    sides = sorted({str(seen[i].side) for i in order})
    names = " and ".join({"val": "validation", "test": "test"}.get(side, side) for side in sides)
    examined = sum(one.side in sides for one in seen)
    what = "a copy" if kind == "leak" else "a picture of the same place"
    count = f"{len(order)} of {examined} {names} pictures"
    summary = f"Of {count} the training side has {what}: the score would flatter."
    ids = tuple(seen[i].look.id for i in order)
    return Finding(kind, summary, ids, notes, tuple(groups), numbers={"of": examined})


def _overlaps(seen: Sequence[_Seen], pairs: Sequence[Pair], groups: Mapping[str, str]) -> list[Finding]:
    """Groups of pictures of one place, the largest first."""
    placed = {seen[i].look.id for pair in pairs for i in (pair.first, pair.second) if seen[i].own}
    sets: dict[str, list[str]] = defaultdict(list)
    for name, group in groups.items():
        if name in placed:
            sets[group].append(name)
    ordered = tuple(sorted((tuple(names) for names in sets.values() if len(names) > 1), key=len, reverse=True))
    if not ordered:
        return []
    ids = tuple(name for names in ordered for name in names)
    close = sum(pair.likeness >= SAME_SCENE for pair in pairs)
    summary = (
        f"{len(ids)} pictures show the same place as another one; they form {len(ordered)} "
        f"group{'s' if len(ordered) > 1 else ''}, the largest of {len(ordered[0])}."
    )
    return [Finding("overlaps", summary, ids, groups=ordered, numbers={"pairs": len(pairs), "close_pairs": close})]
