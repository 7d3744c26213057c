"""One mask beside many different pictures: copied by mistake, or put where nothing was ever labelled.

The labels of such masks are the same to the point, or nearly. What is no finding: copies of one picture with their own
mask, masks of one class (where such masks are to be expected), and masks so simple that chance repeats them.

    equal        by the digest of the labels
    nearly       by the layouts of the masks, which put few of them side by side, then by reading those again
    different    by the layout of the pictures, 8x8 gray, less what is usual in this data: that of copies correlates
    simple       rows or columns of labels that differ from the one before, less than 8 of them: a box has 4
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from segwright.auditing.findings import Finding
from segwright.auditing.labels import Labels
from segwright.auditing.noise import noise_like
from segwright.auditing.survey import Look, Survey
from segwright.auditing.tones import LAYOUT
from segwright.errors import DataError
from segwright.types import MaskArray

SAME_LAYOUT = 0.9
EMPTY_LAYOUT = 0.002
"""About an eighth of a gray level."""

ENOUGH = 3
"""Different pictures beside one mask: with two, one of them may well have the right mask."""

ENOUGH_SIMPLE = 10
BREAKS = 8
COMPARED = 1500
"""Pictures of one mask that are compared with one another, at most."""

ALIKE = 0.95
"""Of the pixels that are not of the most frequent class in both, so many are equal in nearly equal masks."""

CLOSE = 0.985
"""How far layouts of nearly equal masks agree; in a film others do so too, in cell images hardly ever."""

BLOCK = 512
TRIED = 10
"""The masks with the likest layouts; where none of them is nearly equal, no other is."""

READ_AGAIN = 400
"""Masks that are read again to compare them, at most."""

SELDOM = 0.5
"""Where a class never covers more of any other mask, masks that hold it alone are not to be expected."""


@dataclass(frozen=True)
class _Shared:
    """Looks that share a mask.

    Attributes:
        members: their positions.
        pictures: how many different ones they are.
        equal: all masks are the same to the point.
        simple: chance may repeat such a mask.
        seen: the members that are no noise. One alone may well be the picture that the mask was drawn for.
    """

    members: tuple[int, ...]
    pictures: int
    equal: bool
    simple: bool
    seen: tuple[int, ...]


def find_shared_masks(survey: Survey) -> list[Finding]:
    """Masks that stand beside several different pictures, and masks of one class where it never fills a picture."""
    masked = [i for i, look in enumerate(survey.looks) if look.labels is not None and look.tones is not None]
    constant = [i for i in masked if _is_constant(survey.looks[i])]
    varied = sorted(set(masked) - set(constant))
    groups = _shared(survey, varied)
    found = []
    if 2 * sum(len(group.members) for group in groups) > len(varied):
        found.append(_usual(survey, groups, total=len(varied)))
    else:
        bad = [group for group in groups if _is_wrong(group, groups)]
        few = [group for group in groups if not group.simple and group not in bad and len(group.seen) > 1]
        found += [_must_go(survey, bad)] if bad else []
        found += [_two_each(survey, few)] if few else []
    return found + list(_implausible(survey, constant, varied))


def _is_wrong(group: _Shared, groups: Sequence[_Shared]) -> bool:
    """More pictures than chance gives; a simple mask must stand out from the other simple ones that come again."""
    if not group.simple:
        return group.pictures >= ENOUGH
    others = [other.pictures for other in groups if other.simple and other is not group]
    return group.pictures >= max(ENOUGH_SIMPLE, 5 * float(np.median(others or [1])))


def _must_go(survey: Survey, groups: Sequence[_Shared]) -> Finding:
    groups = sorted(groups, key=lambda group: -len(group.members))
    notes, drop = {}, {}
    for group in groups:
        first = survey.looks[group.members[0]].id
        how = "the same" if group.equal else "the same or nearly the same"
        for i in group.members:
            one = survey.looks[i].id
            notes[one] = f"its mask is {how} as in {group.pictures - 1} other, different pictures, such as '{first}'"
            if group.seen != (i,):
                drop[one] = f"its mask stands beside {group.pictures} different pictures"
        other = survey.looks[group.members[1]].id
        notes[first] = notes[first].replace(f"'{first}'", f"'{other}'")
    count = sum(group.pictures for group in groups)
    what = "one mask stands" if len(groups) == 1 else f"{len(groups)} masks stand"
    summary = f"{what} beside {count} different pictures: it cannot be right for all of them"
    return Finding("shared_mask", summary, tuple(notes), notes=notes, groups=_ids(survey, groups), drop=drop)


def _two_each(survey: Survey, groups: Sequence[_Shared]) -> Finding:
    ids = _ids(survey, groups)
    what = "one mask stands" if len(groups) == 1 else f"{len(groups)} masks stand, each,"
    summary = f"{what} beside two different pictures: one of the two is likely wrong"
    flat = tuple(one for group in ids for one in group)
    return Finding("shared_mask", summary, flat, groups=ids, level="look")


def _usual(survey: Survey, groups: Sequence[_Shared], *, total: int) -> Finding:
    ids = _ids(survey, sorted(groups, key=lambda group: -len(group.members)))
    flat = tuple(one for group in ids for one in group)
    summary = (
        f"{len(flat)} of {total} pictures share their mask with different ones ({len(ids)} masks): nothing is wrong if "
        "the pictures of one mask show one place at several times"
    )
    return Finding("shared_mask", summary, flat, groups=ids, level="look")


def _ids(survey: Survey, groups: Sequence[_Shared]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(survey.looks[i].id for i in group.members) for group in groups)


def _is_constant(look: Look) -> bool:
    """One class and no void, or void alone."""
    return len(_labels(look).present) + (_labels(look).void_px > 0) <= 1


def _shared(survey: Survey, varied: Sequence[int]) -> list[_Shared]:
    """Looks that share a mask and show at least two different pictures."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for i in varied:
        by_digest[survey.looks[i].mask_digest].append(i)
    joined = {i: members for members in by_digest.values() for i in members}
    usual = _layouts(survey, range(len(survey.looks))).mean(axis=0) if varied else np.zeros(LAYOUT)
    noise = set(noise_like(survey))
    reader = _Reader(survey, left=READ_AGAIN)
    groups = []
    taken: set[int] = set()
    tried: set[int] = set()
    for seed, near in _clumps(survey, varied, [members for members in by_digest.values() if len(members) > 1]):
        if seed in taken or seed in tried:
            continue
        equal = joined[seed]
        others = [i for i in near if i not in taken and i not in set(equal)]
        found = reader.alike(seed, others)
        if not found:
            # So that all dense places have their turn.
            tried.update(others[:TRIED])
        members = sorted({*equal, *found})
        pictures = _different(_layouts(survey, members[:COMPARED]), usual=usual)
        if pictures >= (ENOUGH if found else 2):
            taken.update(members)
            seen = tuple(i for i in members if i not in noise)
            groups.append(_Shared(tuple(members), pictures, not found, reader.is_simple(seed), seen))
    return groups


def _clumps(survey: Survey, varied: Sequence[int], sets: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
    """A look and those with nearly its layout: first every set of equal masks, then the places with most masks."""
    by_size: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
    for i in varied:
        by_size[survey.looks[i].size_px].append(i)
    near: dict[int, list[int]] = {}
    tight: dict[int, int] = {}
    for members in by_size.values():
        layouts = np.stack([_labels(survey.looks[i]).layout for i in members])
        for start in range(0, len(members), BLOCK):
            alike = layouts[start : start + BLOCK] @ layouts.T
            for i, row in zip(members[start:], alike, strict=False):
                found = np.flatnonzero(row > CLOSE)
                if len(found) > 1:
                    near[i] = [members[k] for k in found[np.argsort(-row[found], kind="stable")]]
                    tight[i] = int(np.count_nonzero(row[found] > 1 - (1 - CLOSE) / 5))
    for equal in sorted(sets, key=len, reverse=True):
        yield equal[0], near.get(equal[0], [])
    for i in sorted(near, key=lambda i: -tight[i]):
        if len(near[i]) >= ENOUGH:
            yield i, near[i]


def _labels(look: Look) -> Labels:
    assert look.labels is not None, "looks without labels were left out"
    return look.labels


def _shares(look: Look) -> Float[np.ndarray, " L"]:
    labels = _labels(look)
    counts = np.append(labels.pixels, labels.void_px).astype(np.float64)
    return np.asarray(counts / counts.sum())


@dataclass
class _Reader:
    """Reads masks again.

    Attributes:
        survey: where they are.
        left: how many it may still compare.
    """

    survey: Survey
    left: int

    def alike(self, seed: int, others: Sequence[int]) -> list[int]:
        """Those of the others, the likest first, whose mask is nearly that of the seed."""
        first = self._mask(seed) if others else None
        if first is None:
            return []
        found: list[int] = []
        for tried, i in enumerate(others):
            if self.left <= 0 or (tried == TRIED and not found):
                break
            self.left -= 1
            mask = self._mask(i)
            if mask is not None and nearly_equal(first, mask):
                found.append(i)
        return found

    def is_simple(self, position: int) -> bool:
        mask = self._mask(position)
        return mask is not None and breaks(mask) < BREAKS

    def _mask(self, position: int) -> MaskArray | None:
        try:
            return self.survey.read(position)[1]
        except DataError:
            return None


def nearly_equal(a: MaskArray, b: MaskArray) -> bool:
    """Whether two masks of one size (H, W) agree where they do not both hold the most frequent label."""
    common = np.bincount(a.ravel(), minlength=256).argmax()
    told = (a != common) | (b != common)
    return bool(told.any() and np.mean(a[told] == b[told]) >= ALIKE)


def breaks(mask: MaskArray) -> int:
    """Rows that differ from the row before, and columns likewise."""
    return int((mask[1:] != mask[:-1]).any(axis=1).sum() + (mask[:, 1:] != mask[:, :-1]).any(axis=0).sum())


def _different(layouts: Float[np.ndarray, "N D"], *, usual: Float[np.ndarray, " D"] | None = None) -> int:
    """How many different pictures there are: copies, in whatever light, count once."""
    return int(connected_components(csr_matrix(same_layout(layouts, usual=usual)), directed=False)[0])


def _layouts(survey: Survey, positions: Sequence[int]) -> Float[np.ndarray, "N D"]:
    tones = [survey.looks[i].tones for i in positions]
    return np.stack([one.descriptor[:LAYOUT] for one in tones if one is not None]).astype(np.float64)


def same_layout(
    layouts: Float[np.ndarray, "N D"], *, usual: Float[np.ndarray, " D"] | None = None
) -> Bool[np.ndarray, "N N"]:
    """Which rows are those of one picture, in whatever light; empty pictures are all the same.

    Args:
        layouts: gray levels of cells.
        usual: the mean of many pictures. Where a lamp or a lens gives all pictures one shading, they differ beside it.
    """
    rest = layouts - layouts.mean(axis=1, keepdims=True)
    if usual is not None:
        shading = usual - usual.mean()
        rest = rest - np.outer(rest @ shading, shading) / max(float(shading @ shading), 1e-12)
    length = np.linalg.norm(rest, axis=1)
    empty = length < EMPTY_LAYOUT
    unit = rest / np.maximum(length, 1e-12)[:, None]
    return np.asarray((unit @ unit.T > SAME_LAYOUT) | (empty[:, None] & empty[None]))


def _implausible(survey: Survey, constant: Sequence[int], varied: Sequence[int]) -> Iterator[Finding]:
    """Masks of one class alone that covers no other mask by half: more than chance lets be expected."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for i in constant:
        for label in _labels(survey.looks[i]).present:
            by_class[label].append(i)
    for label, members in sorted(by_class.items()):
        others = [_shares(survey.looks[i])[label] for i in varied]
        most = max(others, default=1.0)
        if len(others) < 20 or most >= SELDOM or _different(_layouts(survey, members[:COMPARED])) < ENOUGH:
            continue
        name = survey.classes.names[label]
        summary = f"{len(members)} masks hold '{name}' alone, which covers no more than {most:.0%} of any other mask"
        ids = tuple(survey.looks[i].id for i in members)
        yield Finding("shared_mask", summary, ids, groups=(ids,), level="look")
