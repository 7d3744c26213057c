"""Audit a folder that `plant.py` wrote, and count what was found: recall and precision of each planted fault.

Faults of files and masks are judged by the findings of their kind. Moved masks and exchanged classes are judged by
their place in the ranking of `label_noise`, copies by whether one group of a finding holds both pictures. Intervals are
Wilson's, at 95 %. What the audit did not ask is called 'not run'.

python studies/audit-planted-faults/score.py FOLDER --quick --weights WEIGHTS
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from segwright import verbs
from segwright.files import read_json, write_csv

FIRST = 0.15
"""Part of the ranking that a person would look through."""

NOT_RUN = "not run"
HEADS = ("what", "judged by", "planted", "found", "recall", "low", "high", "reported", "right", "precision")

KINDS = {
    "truncated_image": ("integrity", ("broken_image",)),
    "truncated_mask": ("integrity", ("broken_mask",)),
    "wrong_size": ("integrity", ("size_mismatch",)),
    "soft_mask": ("integrity", ("soft_mask",)),
    "noise_mask": ("integrity", ("speckled_mask", "noise_mask")),
    "shifted_mask": ("label_noise", ("shifted_mask",)),
    "swapped_classes": ("label_noise", ("swapped_classes",)),
}
"""Planted fault -> the question that should find it, and the kinds of its findings."""

SAME_PLACE = ("copies", "leak", "overlaps")
"""A group of one of these must hold both pictures of a planted pair."""

ACROSS_FILMS = "neighbours"
"""Also counted: images of the films themselves that stand beside others across the split."""

Row = tuple[Any, ...]


def rows_of(audit: Mapping[str, Any], truth: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """The table, a row each."""
    for fault, (question, kinds) in KINDS.items():
        if question in audit["answers"]:
            yield searched(fault, ", ".join(kinds), truth[fault], named=ids_of(audit, kinds))
        else:
            yield not_run(fault, ", ".join(kinds), truth[fault])
    yield from _ranking_rows(audit, truth)
    yield from _duplicate_rows(audit, truth["duplicate"])
    planted = {name for fault, ones in truth.items() if fault != "duplicate" for name in ones}
    planted |= {*truth["duplicate"], *truth["duplicate"].values()}
    yield counted("left out by the card", "drop", reported=len(audit["drop"]), right=len(planted & set(audit["drop"])))


def _ranking_rows(audit: Mapping[str, Any], truth: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Shares of planted faults within the first part of the ranking, in all and apart."""
    shifted, swapped, noise = (truth[fault] for fault in ("shifted_mask", "swapped_classes", "noise_mask"))
    pairs = sorted({tuple(pair) for pair in swapped.values()})
    near = [name for name, by in shifted.items() if math.hypot(by["right"], by["down"]) < 6]
    parts: dict[str, Collection[str]] = {
        "shifted or swapped": [*shifted, *swapped],
        "shifted": shifted,
        "shifted by less than 6 px": near,
        "shifted by 6 px and more": set(shifted) - set(near),
        "swapped": swapped,
        **{f"swapped {a} and {b}": [name for name, pair in swapped.items() if pair == [a, b]] for a, b in pairs},
    }
    how = f"first {FIRST:.0%} of the ranking"
    with_noise, also = [*shifted, *swapped, *noise], f"{how}, or its finding"
    if "label_noise" not in audit["answers"]:
        yield from (not_run(what, how, planted) for what, planted in parts.items())
        yield not_run("shifted, swapped or noise", also, with_noise)
        return
    ranking = audit["answers"]["label_noise"]["ranking"]
    first = set(ranking[: math.ceil(FIRST * len(ranking))])
    for what, planted in parts.items():
        yield searched(what, how, planted, named=first)
    named = set(ids_of(audit, KINDS["noise_mask"][1]))
    yield searched("shifted, swapped or noise", also, with_noise, named=first | named)


def _duplicate_rows(audit: Mapping[str, Any], copies: Mapping[str, str]) -> Iterator[Row]:
    """Planted pairs that stand in one group, then what else is said to show one place."""
    if "duplicates" not in audit["answers"]:
        yield not_run("duplicate", ", ".join(SAME_PLACE), copies)
        return
    kinds = (*SAME_PLACE, ACROSS_FILMS)
    groups = {kind: groups_of(audit, kind) for kind in kinds}
    found = {kind: joined(copies, groups[kind]) for kind in kinds}
    yield row("duplicate", ", ".join(SAME_PLACE), len(copies), len(set().union(*(found[kind] for kind in SAME_PLACE))))
    for kind in kinds:
        right = sum(bool(joined(copies, [group])) for group in groups[kind])
        counts = {"reported": len(groups[kind]), "right": right}
        yield row("duplicate: groups", kind, len(copies), len(found[kind]), **counts)
    planted = {*copies, *copies.values()}
    for kind in kinds:
        named = set(ids_of(audit, [kind])).union(*groups[kind])
        yield counted("duplicate: images", kind, reported=len(named), right=len(named & planted))


def joined(copies: Mapping[str, str], groups: Collection[Collection[str]]) -> set[str]:
    """Planted copies that stand in one group with their original."""
    return {new for new, old in copies.items() if any(new in group and old in group for group in groups)}


def ids_of(audit: Mapping[str, Any], kinds: Collection[str]) -> list[str]:
    return [name for finding in audit["findings"] if finding["kind"] in kinds for name in finding["ids"]]


def groups_of(audit: Mapping[str, Any], kind: str) -> list[list[str]]:
    return [group for finding in audit["findings"] if finding["kind"] == kind for group in finding["groups"]]


def searched(what: str, how: str, planted: Collection[str], *, named: Collection[str]) -> Row:
    """Recall and precision where all that was named should be planted."""
    hits = len({*planted} & {*named})
    return row(what, how, len(planted), hits, reported=len({*named}), right=hits)


def row(what: str, how: str, planted: int, found: int, *, reported: int | None = None, right: int | None = None) -> Row:
    """Recall with its interval, and the share of what was reported that is right."""
    low, high = binomtest(found, planted).proportion_ci(method="wilson")
    shares = (round(float(value), 4) for value in (found / planted, low, high))
    return (what, how, planted, found, *shares, *_precision(reported, right))


def counted(what: str, how: str, *, reported: int, right: int) -> Row:
    return (what, how, "", "", "", "", "", *_precision(reported, right))


def _precision(reported: int | None, right: int | None) -> Row:
    if reported is None or right is None:
        return ("", "", "")
    return reported, right, round(right / reported, 4) if reported else ""


def not_run(what: str, how: str, planted: Collection[str]) -> Row:
    return (what, how, len(planted), NOT_RUN, "", "", "", "", "", "")


def run_audit(folder: Path, *, quick: bool, weights: Path | None) -> tuple[Path, Row]:
    """`segwright audit FOLDER/data.yaml -o FOLDER/audit --fix FOLDER/clean.yaml`; its audit.json, and a row of time."""
    start = time.perf_counter()
    out = verbs.audit(
        folder / "data.yaml", out=folder / "audit", fix=folder / "clean.yaml", quick=quick, weights=weights
    )
    seconds = round(time.perf_counter() - start)
    return out / "audit.json", ("seconds of the audit", "quick" if quick else "", "", seconds, "", "", "", "", "", "")


def main() -> None:
    """Audit unless that was done, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="as written by plant.py")
    parser.add_argument("--audit", type=Path, help="an audit.json of it; none: audit it now")
    parser.add_argument("--quick", action="store_true", help="train a small model, to find wrong masks")
    parser.add_argument("--weights", type=Path, help="weights of an encoder")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results.csv")
    asked = parser.parse_args()
    found, *took = [asked.audit] if asked.audit else run_audit(asked.folder, quick=asked.quick, weights=asked.weights)
    rows = [HEADS, *rows_of(read_json(found), read_json(asked.folder / "truth.json")["faults"]), *took]
    write_csv(asked.csv, rows)
    widths = [max(len(str(one[place])) for one in rows) for place in range(len(HEADS))]
    for one in rows:
        print("  ".join(f"{cell!s:<{width}}" for cell, width in zip(one, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
