"""Divide images into train, val and test: as given, by chance, by strata, by groups or in folds.

Two rules hold for every kind. Images of one group never stand on two sides: neighbours in a video or cuts of one scene
would let a model be examined on what it has learnt by heart. And what the source itself calls test stays test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from segwright.data.stratify import deal, units_of
from segwright.errors import SplitError
from segwright.files import read_arrays, read_json, write_text
from segwright.types import SPLIT_NAMES, SplitName

SplitKind = Literal["auto", "given", "random", "stratified", "grouped", "kfold"]
Split = dict[str, SplitName]

_SIDE_NAMES: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def make_split(
    ids: Sequence[str], *, kind: SplitKind = "auto", given: Sequence[SplitName | None] | None = None,
    groups: Sequence[str | None] | None = None, presence: Bool[np.ndarray, "N K"] | None = None, val: float = 0.2,
    test: float = 0.0, folds: int = 5, fold: int = 0, seed: int = 0,
) -> Split:  # fmt: skip
    """The side of each id; ids that the source's own split leaves out have none.

    Args:
        ids: all different.
        kind: `auto` is `given` where the source brings train and val, else it deals as `stratified` does. `grouped` is
            the same and insists on groups, since groups are kept together by every kind.
        given: the side on which the source puts each image.
        groups: group of each image; None for an image that belongs to no group.
        presence: (N, K) which classes each image holds, for strata; None deals by size alone.
        val: share of the images that are not test by the source.
        test: the same; 0 where the source brings a test side.
        folds: number of folds; for `kfold` they take the place of `val`.
        fold: the fold that is val, 0..folds - 1.
        seed: the same seed gives the same split; with `kfold` also the same folds for every `fold`.

    Raises:
        SplitError: a side would be empty, shares do not fit, `grouped` without groups, `given` without a split,
            or a given split has one group on two sides.
    """
    sides = list(given) if given is not None else [None] * len(ids)
    known = list(groups) if groups is not None else [None] * len(ids)
    brought = {side for side in sides if side is not None}
    if kind == "auto" and {"train", "val"} <= brought:
        kind = "given"
    if kind == "given":
        split = _as_given(ids, sides)
    else:
        free = [i for i, side in enumerate(sides) if side != "test"]
        _check_shares(kind, val=val, test=test, groups=known)
        if kind == "auto" and brought & {"train", "val"}:
            free = _completing(sides, free)
        dealt = _dealt(
            [known[i] for i in free], None if presence is None or kind == "random" else presence[free],
            val=1 / folds if kind == "kfold" else val, test=0.0 if "test" in brought else test,
            fold=_checked_fold(fold, folds) if kind == "kfold" else None, rng=np.random.default_rng(seed),
        )  # fmt: skip
        split = {sample_id: side for sample_id, side in zip(ids, sides, strict=True) if side is not None}
        split |= {ids[i]: side for i, side in zip(free, dealt, strict=True)}
        split = {sample_id: split[sample_id] for sample_id in ids if sample_id in split}
    check_split(split, ids, groups=known)
    return split


def _as_given(ids: Sequence[str], sides: Sequence[SplitName | None]) -> Split:
    if "train" not in sides or "val" not in sides:
        missing = "train" if "train" not in sides else "val"
        raise SplitError(
            f"the source brings no {missing} side", mend="use data.split.kind=auto, or give a file with --split"
        )
    return {sample_id: side for sample_id, side in zip(ids, sides, strict=True) if side is not None}


def _completing(sides: Sequence[SplitName | None], free: list[int]) -> list[int]:
    """Where the source brings train or val but not both, the images that are still to be dealt."""
    if "train" in sides:
        return [i for i in free if sides[i] == "train"]
    return free


def _check_shares(kind: SplitKind, *, val: float, test: float, groups: Sequence[str | None]) -> None:
    if kind == "grouped" and all(group is None for group in groups):
        raise SplitError(
            "a grouped split was asked for and no group is known", mend="set data.split.groups, or use stratified"
        )
    if kind != "kfold" and not (val > 0 and test >= 0 and val + test < 1):
        raise SplitError(
            f"shares val = {val:g} and test = {test:g} leave no side its images",
            mend="let val be above 0 and both sum to less than 1",
        )
    if kind == "kfold" and not 0 <= test < 1:
        raise SplitError(f"share test = {test:g}", mend="use 0 or more and less than 1")


def _checked_fold(fold: int, folds: int) -> int:
    if folds < 2 or not 0 <= fold < folds:
        raise SplitError(f"fold {fold} of {folds}", mend="count folds from 0, and use at least 2")
    return fold


def _dealt(
    groups: Sequence[str | None], presence: Bool[np.ndarray, "N K"] | None, *, val: float, test: float,
    fold: int | None, rng: np.random.Generator,
) -> list[SplitName]:  # fmt: skip
    units = units_of(groups, count=len(groups))
    if fold is None:
        shares = {"train": 1 - val - test, "val": val, "test": test}
        names = [name for name in SPLIT_NAMES if shares[name] > 0]
        return [names[side] for side in deal(units, [shares[name] for name in names], presence=presence, rng=rng)]
    result: list[SplitName] = ["train"] * len(groups)
    rest = np.arange(len(groups))
    if test > 0:
        side = deal(units, [1 - test, test], presence=presence, rng=rng)
        for i in np.flatnonzero(side == 1):
            result[i] = "test"
        rest = np.flatnonzero(side == 0)
    numbered = np.unique(units[rest], return_inverse=True)[1]
    chosen = deal(numbered, [val] * round(1 / val), presence=None if presence is None else presence[rest], rng=rng)
    for i in rest[chosen == fold]:
        result[i] = "val"
    return result


def check_split(
    split: Mapping[str, SplitName], ids: Sequence[str], *, groups: Sequence[str | None] | None = None,
    file: Path | None = None, needed: Sequence[SplitName] = ("train", "val"),
) -> None:  # fmt: skip
    """Check that the needed sides hold images and that no group stands on two sides.

    Raises:
        SplitError: naming the side, id or group.
    """
    for name in needed:
        if name not in split.values():
            raise SplitError(f"the {name} side is empty", mend="give it at least one image", file=file)
    first: dict[str, tuple[str, SplitName]] = {}
    for sample_id, group in zip(ids, groups or [None] * len(ids), strict=True):
        side = split.get(sample_id)
        if group is None or side is None:
            continue
        other_id, other = first.setdefault(group, (sample_id, side))
        if other != side:
            raise SplitError(
                f"group '{group}' stands on two sides: '{other_id}' in {other}, '{sample_id}' in {side}",
                mend="keep a group together, or leave the groups out if they do not matter",
            )


def read_split(path: Path, ids: Sequence[str], *, needed: Sequence[SplitName] = ("train", "val")) -> Split:
    """Read `{"train": [...], "val": [...], "test": [...]}`; ids that stand nowhere are left out.

    Entries are ids, ids with a file ending, unique last parts of ids, or row numbers of arrays.

    Args:
        path: the JSON.
        ids: of the images that there are.
        needed: sides that must hold an image.

    Raises:
        DataError: the file is missing or is no JSON.
        SplitError: it is of another form, an entry is unknown or ambiguous, or an id stands on two sides.
    """
    tree = read_json(path)
    if not isinstance(tree, dict) or not any(isinstance(value, list) for value in tree.values()):
        raise SplitError("is no split", mend='write {"train": [ids], "val": [ids]}', file=path)
    names = _Names(ids, path)
    split: Split = {}
    for key, entries in tree.items():
        if not isinstance(entries, list):
            continue
        if key.lower() not in _SIDE_NAMES:
            raise SplitError(f"has a side '{key}'", mend=f"name sides {', '.join(SPLIT_NAMES)}", file=path)
        side = _SIDE_NAMES[key.lower()]
        for entry in entries:
            sample_id = names.find(entry)
            if split.setdefault(sample_id, side) != side:
                raise SplitError(
                    f"'{sample_id}' stands in {split[sample_id]} and in {side}", mend="keep one of the two", file=path
                )
    check_split(split, ids, file=path, needed=needed)
    return {sample_id: split[sample_id] for sample_id in ids if sample_id in split}


class _Names:
    """What an entry of a split file may call an id."""

    def __init__(self, ids: Sequence[str], path: Path) -> None:
        self._ids, self._path = set(ids), path
        self._rows = {int(sample_id): sample_id for sample_id in ids if sample_id.isdecimal()}
        self._last: dict[str, list[str]] = {}
        for sample_id in ids:
            self._last.setdefault(sample_id.rsplit("/", 1)[-1], []).append(sample_id)

    def find(self, entry: Any) -> str:
        if isinstance(entry, int) and not isinstance(entry, bool) and entry in self._rows:
            return self._rows[entry]
        if isinstance(entry, str):
            plain = entry.removeprefix("./").replace("\\", "/")
            for name in (plain, re.sub(r"\.[A-Za-z]{3,4}$", "", plain)):
                if name in self._ids:
                    return name
                same = self._last.get(name.rsplit("/", 1)[-1], [])
                if len(same) == 1:
                    return same[0]
                if same:
                    raise SplitError(
                        f"'{entry}' may be {' or '.join(same[:3])}", mend="write the whole id", file=self._path
                    )
        example = min(self._ids, default="none")
        raise SplitError(f"{entry!r} is no id of this source", mend=f"ids look like '{example}'", file=self._path)


def write_split(path: Path, split: Mapping[str, SplitName]) -> None:
    """Write a split that `read_split` gives back."""
    sides = {name: [sample_id for sample_id, side in split.items() if side == name] for name in SPLIT_NAMES}
    write_text(
        path, json.dumps({name: found for name, found in sides.items() if found}, indent=1, ensure_ascii=False) + "\n"
    )


def find_groups(ids: Sequence[str], spec: str) -> tuple[str | None, ...]:
    """The group of each id.

    Args:
        ids: of the images.
        spec: a regular expression searched in each id (its first group, or all it matches, names the group), or a
            .npy, .npz or .json file with one group an image (a JSON may also map ids to groups). A file may be shorter
            than `ids` where ids are row numbers: it then tells the groups of the first rows.

    Raises:
        SplitError: the expression is wrong or does not match an id; the file is of another length.
        DataError: the file cannot be read.
    """
    if spec.endswith((".npy", ".npz", ".json")):
        return _groups_of_file(ids, Path(spec))
    try:
        pattern = re.compile(spec)
    except re.error as error:
        raise SplitError(
            f"groups '{spec}' is no regular expression ({error})", mend="mend it, or name a file"
        ) from None
    found = []
    for sample_id in ids:
        match = pattern.search(sample_id)
        if match is None:
            raise SplitError(f"groups '{spec}' does not match id '{sample_id}'", mend="let it match every id")
        found.append(match.group(1) if pattern.groups else match.group(0))
    return tuple(found)


def _groups_of_file(ids: Sequence[str], path: Path) -> tuple[str | None, ...]:
    if path.suffix == ".json":
        tree = read_json(path)
        if isinstance(tree, dict):
            names = _Names(ids, path)
            named = {names.find(key): str(value) for key, value in tree.items()}
            return tuple(named.get(sample_id) for sample_id in ids)
        values = tree if isinstance(tree, list) else []
    else:
        arrays = read_arrays(path)
        values = np.ravel(next(iter(arrays.values()))).tolist() if len(arrays) == 1 else []
    if len(values) == len(ids):
        return tuple(str(value) for value in values)
    rows = [int(sample_id) if sample_id.isdecimal() else None for sample_id in ids]
    if (
        not values
        or len(values) != sum(row is not None for row in rows)
        or max(row or 0 for row in rows) >= len(values)
    ):
        raise SplitError(
            f"holds {len(values)} groups for {len(ids)} images", mend="give one group an image, in order", file=path
        )
    return tuple(None if row is None else str(values[row]) for row in rows)


def indices_of(split: Mapping[str, SplitName], ids: Sequence[str], side: SplitName) -> list[int]:
    """Positions among `ids` of the images on one side, in order."""
    return [i for i, sample_id in enumerate(ids) if split.get(sample_id) == side]
