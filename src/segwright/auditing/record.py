"""An audit as files: `audit.json`, and small pictures of what was found in `examples/`.

    audit.json    verdict, counts, drop, reasons, answers, findings; also which pictures show each finding
    examples/     the pictures; see `examples`

Pages and terminals are made from these files; neither the data nor a model is needed again.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segwright.auditing.examples import choose_examples, write_examples
from segwright.auditing.findings import KINDS, Answer, Finding
from segwright.auditing.noise import tones_by_position
from segwright.auditing.oddness import comparable
from segwright.auditing.opinions import predicted
from segwright.auditing.repair import Repaired
from segwright.auditing.survey import Survey
from segwright.auditing.tones import Tones
from segwright.auditing.verdict import Audit, sides_of
from segwright.errors import DataError, OutputError
from segwright.files import read_json, write_json

FORMAT = "segwright audit 1"
"""Stands first in audit.json: a folder without it is not ours and is never written to."""

CURVES = {"brightness": 255.0, "contrast": None, "sharpness": None, "saturation": 1.0}
"""What is drawn of training and test pictures, with the end of its scale; None for the largest value."""

BINS = 32


def require_ours(out: Path) -> None:
    """Make sure that writing an audit there overwrites nothing but an older audit.

    Raises:
        OutputError: a file, or a folder that holds something else.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError("is a file", mend="name a folder with -o", file=out)
    if any(out.iterdir()) and not _is_audit(out / "audit.json"):
        raise OutputError("holds other files than an audit", mend="name a new folder with -o", file=out)


def _is_audit(path: Path) -> bool:
    try:
        tree = read_json(path)
    except DataError:
        return False
    return isinstance(tree, dict) and str(tree.get("format")).startswith("segwright audit")


def write_audit(audited: Audit, out: Path, *, repaired: Repaired | None = None) -> Path:
    """Write an audit, and what a repaired card does about it, and return its audit.json.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    require_ours(out)
    examples = choose_examples(audited)
    shown = [place.look.id for place in examples.places.values()]
    seen = {} if audited.probabilities is None else predicted(audited.probabilities, shown)
    tree = as_tree(audited)
    tree["repair"] = None if repaired is None else {**asdict(repaired), "card": str(repaired.card.resolve())}
    for finding, sets in zip(tree["findings"], examples.shown, strict=True):
        finding["shown"] = sets
    tree["pictures"] = examples.described
    # First the list: a folder that is left half written is known as ours.
    write_json(out / "audit.json", tree)
    write_examples(examples, out / "examples", predictions=seen)
    return out / "audit.json"


def as_tree(audited: Audit) -> dict[str, Any]:
    """An audit as plain values: counts, what to drop and why, and each finding in words."""
    survey, findings = audited.survey, audited.findings
    levels = [finding.gravity for finding in findings]
    drop = audited.drop
    return {
        "format": FORMAT,
        "source": str(audited.path.resolve()),
        "test": None if audited.test is None else str(audited.test.root.resolve()),
        "images": len(survey.looks),
        "labelled": sum(look.mask_file is not None for look in survey.looks),
        "classes": {"names": list(survey.classes.names), "colors": [list(color) for color in survey.classes.colors]},
        "verdict": audited.verdict,
        "counts": {
            "mend": levels.count("mend"),
            "look": levels.count("look"),
            "kinds": {finding.kind: len(finding.ids) for finding in findings},
        },
        "drop": list(drop),
        "reasons": drop,
        "answers": {question: dict(answer.facts) for question, answer in audited.answers.items()},
        "curves": _curves(audited),
        "findings": [_told(finding) for finding in findings],
    }


def _curves(audited: Audit) -> dict[str, Any]:
    """Shares of the training pictures, and of those they were compared with, in bins of what was measured."""
    facts = audited.answers.get("shift", Answer()).facts
    train, test = (_comparable(survey) for survey in sides_of(audited.survey, audited.test))
    sides = {"train": train, "test": test} if facts.get("compared") else {"train": train}
    if not facts or not train:
        return {}
    found = {}
    for name, end in CURVES.items():
        values = {side: [getattr(one, name) for one in tones] for side, tones in sides.items()}
        edges = np.linspace(0, max(1e-6, *map(max, values.values())) if end is None else end, BINS + 1)
        counts = {side: np.histogram(these, edges)[0] / len(these) for side, these in values.items()}
        found[name] = {"edges": edges.round(6).tolist()} | {side: n.round(6).tolist() for side, n in counts.items()}
    return found


def _comparable(survey: Survey) -> list[Tones]:
    tones = tones_by_position(survey)
    return [tones[i] for i in comparable(survey)]


def _told(finding: Finding) -> dict[str, Any]:
    kind = KINDS[finding.kind]
    return {
        "kind": finding.kind,
        "level": finding.gravity,
        "title": kind.title,
        "summary": finding.summary,
        "cause": kind.cause,
        "cure": kind.cure,
        "ids": list(finding.ids),
        "notes": dict(finding.notes),
        "groups": [list(group) for group in finding.groups],
        "numbers": dict(finding.numbers),
    }
