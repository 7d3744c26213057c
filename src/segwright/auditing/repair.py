"""The repaired card: how to read a data set so that what the audit found does no harm.

It leaves images out (each with its reason), reads masks with soft edges by the nearest class, keeps pictures of one
place together and divides them anew where the division leaked. Pictures and masks stay as they are: a card only names
things. Beside `clean.yaml` stand `clean-groups.json` (id to group) and `clean-split.json` (ids of each side).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.auditing.duplicates import TEST
from segwright.auditing.findings import KINDS, Finding
from segwright.auditing.survey import Look, Survey
from segwright.auditing.verdict import Audit
from segwright.data.card import CARD_SUFFIXES, write_card
from segwright.data.splits import Split, make_split, write_split
from segwright.errors import DataError, OutputError, SplitError
from segwright.files import read_text, read_yaml, write_json
from segwright.types import SPLIT_NAMES, SplitName

HEAD = "# Written by segwright audit."
"""Starts the first line of a repaired card: only a file that has it is replaced."""

VAL_SHARE = 0.2
"""Of a new division, where the data brings none of its own."""


@dataclass(frozen=True)
class Repaired:
    """A card that was written.

    Attributes:
        card: where it stands.
        changes: what it changes, in sentences.
        left: headings of what must be mended and no card can mend.
    """

    card: Path
    changes: tuple[str, ...]
    left: tuple[str, ...]


def require_free(path: Path) -> None:
    """Make sure that a card may be written there.

    Raises:
        OutputError: the name is none of a card, or another file has it or would have that of its lists.
    """
    if path.suffix.lower() not in CARD_SUFFIXES:
        raise OutputError("is no name of a card", mend="let it end in .yaml", file=path)
    ours = path.is_file() and read_text(path).startswith(HEAD)
    if path.exists() and not ours:
        raise OutputError("stands there and was not written by an audit", mend="choose another name", file=path)
    named = read_yaml(path) if ours else {}
    for key, beside in (("groups", _groups_file(path)), ("split", _split_file(path))):
        if beside.exists() and named.get(key) != beside.name:
            raise OutputError(
                "stands there and was not written by an audit", mend="name the card otherwise", file=beside
            )


def _groups_file(card: Path) -> Path:
    return card.with_name(f"{card.stem}-groups.json")


def _split_file(card: Path) -> Path:
    return card.with_name(f"{card.stem}-split.json")


def write_fixed_card(audited: Audit, path: Path) -> Repaired:
    """Write a card that reads the data as the audit advises; `segwright train` takes it.

    Args:
        audited: the audit.
        path: a new .yaml, or an older one of an audit; its lists stand beside it.

    Raises:
        DataError: there is nothing that a card could name.
        OutputError: another file stands there.
    """
    require_free(path)
    survey = audited.survey
    source = survey.source or survey.reader
    if source is None:
        raise DataError("cannot be read in any way", mend="mend what the audit says first", file=survey.root)
    tree = source.as_card()
    drop = audited.drop
    drop |= _beside_test(audited, drop=drop)
    tree["dropped"] = {**tree["dropped"], **drop}
    told = [f"leaves out {_count(len(drop))}, each with its reason"] if drop else []
    told += _recoded(tree, audited, drop=drop)
    # What the data call test stays test, so test images bind no others to their side.
    free = {look.id for look in survey.looks if look.id not in drop and look.split != "test"}
    groups = _joined_groups(survey, found=_found_groups(audited), free=free)
    split, sentence = _division(survey, groups, drop=drop)
    tree["groups"] = tree["split"] = None
    if groups:
        write_json(_groups_file(path), groups)
        tree["groups"] = str(_groups_file(path).resolve())
        told.append(f"keeps {len(set(groups.values())):,} groups of pictures together")
    if split:
        write_split(_split_file(path), split)
        tree["split"] = str(_split_file(path).resolve())
    told += [sentence] if sentence else []
    write_card(path, tree, head=f"{HEAD} Pictures and masks are as they were; under 'dropped' stands why.\n")
    left = [KINDS[one.kind].title for one in audited.findings if one.gravity == "mend" and not _cured(one, drop=drop)]
    return Repaired(path, tuple(told or ["changes nothing: there was nothing to repair"]), tuple(left))


def _cured(finding: Finding, *, drop: Mapping[str, str]) -> bool:
    """Whether the card mends a finding: by another division or reading, or by leaving all of it out."""
    recoded = ("leak", "neighbours", "soft_mask", "unknown_label")
    return finding.kind in recoded or (bool(finding.ids) and all(name in drop for name in finding.ids))


def _recoded(tree: dict[str, Any], audited: Audit, *, drop: Mapping[str, str]) -> list[str]:
    """Let the card read values of kept masks that mean nothing so far; sentences about it."""
    kept = {
        look.fault.kind for look in audited.survey.looks if look.fault is not None and look.id not in drop
    }  # fmt: skip
    told = []
    if "soft_mask" in kept:
        tree["nearest"] = True
        told.append("reads values in between as the nearest class")
    integrity = audited.answers.get("integrity")
    strays = integrity.facts.get("void_values", []) if integrity is not None and "unknown_label" in kept else []
    if strays:
        tree["void_values"] = sorted({*tree["void_values"], *strays})
        told.append(f"counts nothing where a mask has {', '.join(map(str, strays))}")
    return told


def _count(images: int) -> str:
    return f"{images:,} image{'s' * (images != 1)}"


def _found_groups(audited: Audit) -> Mapping[str, str]:
    answer = audited.answers.get("duplicates")
    return {} if answer is None else answer.facts.get("groups", {})


def _joined_groups(survey: Survey, *, found: Mapping[str, str], free: AbstractSet[str]) -> dict[str, str]:
    """Groups of free images by id: those that the data name, and those that were found, joined where they overlap."""
    named = {look.id: look.group for look in survey.looks}
    ids = [name for name in survey.ids if name in free]
    parent = {name: name for name in ids}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for of in (named, found):
        first: dict[str, str] = {}
        for name in ids:
            group = of.get(name)
            if group is not None:
                parent[root(name)] = root(first.setdefault(group, name))
    counts = Counter(root(name) for name in ids)
    return {name: root(name) for name in ids if counts[root(name)] > 1}


def _beside_test(audited: Audit, *, drop: Mapping[str, str]) -> dict[str, str]:
    """Copies of test images, which go because the test side stays: that of the data, or other test data."""
    tested = {look.id for look in audited.survey.looks if look.split == "test"}
    found: dict[str, str] = {}
    for finding in audited.findings:
        if finding.kind == "copies":
            for members in finding.groups:
                test = [name for name in members if name in tested]
                found |= {name: f"copy of the test image {test[0]}" for name in members if test and name not in tested}
        elif finding.kind == "leak":
            for examined, learnt in finding.groups:
                if finding.notes[examined].startswith(f"in {TEST};"):
                    found[learnt] = f"copy of {examined} in the test data"
    return {name: reason for name, reason in found.items() if name not in drop}


def _division(survey: Survey, groups: Mapping[str, str], *, drop: Mapping[str, str]) -> tuple[Split, str]:
    """The side of each image that is kept, and a sentence about it; no sides where none can be made."""
    looks = [
        look for look in survey.looks if look.id not in drop and (look.mask_file is not None or look.split == "test")
    ]
    sides = {look.id: look.split for look in looks if look.split is not None}
    if {"train", "val"} <= set(sides.values()) and not _leaks(sides, groups):
        return sides, f"keeps the division that the data brings: {_sizes(sides)}"
    if not groups and not {"train", "val"} & set(sides.values()):
        return {}, ""
    learnt = sum(side != "test" for side in sides.values())
    val = sum(side == "val" for side in sides.values()) / max(learnt, 1)
    try:
        split = make_split(
            [look.id for look in looks],
            kind="stratified",
            given=["test" if look.split == "test" else None for look in looks],
            groups=[groups.get(look.id) for look in looks],
            presence=_presence(looks, survey.classes.num_classes),
            val=val if 0 < val < 1 else VAL_SHARE,
        )
    except SplitError as error:
        return {}, f"makes no division: {error.problem}"
    return split, f"divides the images anew{', pictures of one place together' * bool(groups)}: {_sizes(split)}"


def _sizes(split: Mapping[str, SplitName]) -> str:
    counts = Counter(split.values())
    return ", ".join(f"{counts[side]:,} {side}" for side in SPLIT_NAMES if counts[side])


def _leaks(sides: Mapping[str, SplitName], groups: Mapping[str, str]) -> bool:
    first: dict[str, SplitName] = {}
    return any(first.setdefault(groups[name], side) != side for name, side in sides.items() if name in groups)


def _presence(looks: Sequence[Look], num_classes: int) -> np.ndarray:
    """(N, K) which classes each image holds."""
    empty = np.zeros(num_classes, dtype=np.int64)
    return np.stack([empty if look.labels is None else look.labels.pixels for look in looks]) > 0
