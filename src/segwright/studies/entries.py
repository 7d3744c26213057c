"""Which runs stand in a table, and in which row: by the study that they were trained for, or by their recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segwright.errors import RecipeError, RunError, nearest
from segwright.files import read_yaml
from segwright.metrics import Definition
from segwright.studies.grid import named_by, read_study, trials
from segwright.studies.state import RUNS, STUDY_FILE, place_of, why_failed

_NO_ROW = ("training.seed", "training.devices", "data.resident", "data.split.fold", "training.tensorboard")
"""Keys that do not make another row."""


@dataclass(frozen=True)
class Entry:
    """A run and where it stands."""

    run: Path
    row: str
    seed: int
    fold: int | None = None


@dataclass(frozen=True)
class Plan:
    """The rows of a table and their runs.

    Attributes:
        folder: of the study, or of the runs.
        name, question: of the study.
        entries: the runs that are there.
        rows: names, in their order.
        folds: how many make one seed whole.
        baseline: the row that others are compared with.
        definition: of the score.
        figures: of a paper, by row.
        missing: what is said of rows with runs that failed or are not there.
    """

    folder: Path
    name: str
    entries: tuple[Entry, ...]
    rows: tuple[str, ...]
    question: str = ""
    folds: int = 1
    baseline: str | None = None
    definition: Definition = "declared"
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def plan_of(
    folder: Path, *, by: Sequence[str] = (), baseline: str | None = None, definition: Definition | None = None
) -> Plan:
    """The table of a study's folder, or of any folder of runs.

    Args:
        folder: what `segwright study` made, or a folder with runs in it.
        by: keys of the recipe whose values make the rows; else the rows of the study, or what differs in the recipes.
        baseline: a row, in place of the study's own.
        definition: of the score, in place of the study's own.

    Raises:
        RunError: there are no runs.
        RecipeError: there is no such key or row.
    """
    if (folder / STUDY_FILE).is_file() and not by:
        plan = _of_study(folder)
    else:
        plan = _of_recipes(folder / RUNS if (folder / RUNS).is_dir() else folder, by=by)
    wanted = plan.baseline if baseline is None else baseline
    if wanted is not None and wanted not in plan.rows:
        raise RecipeError(f"there is no row '{wanted}'", mend=nearest(wanted, plan.rows))
    return Plan(**{**plan.__dict__, "baseline": wanted, "definition": definition or plan.definition})


def _of_study(folder: Path) -> Plan:
    study = read_study(folder / STUDY_FILE)
    entries: list[Entry] = []
    left: dict[str, int] = {}
    there = {path.name for path in (folder / RUNS).iterdir()} if (folder / RUNS).is_dir() else set()
    failed: dict[str, list[str]] = {}
    for trial in trials(study):
        if trial.name in there:
            entries.append(Entry(place_of(folder, trial.name).run, trial.row, trial.seed, trial.fold))
        else:
            left[trial.row] = left.get(trial.row, 0) + 1
        if reason := why_failed(folder, trial.name):
            failed.setdefault(trial.row, []).append(reason)
    missing = {row: f"{len(reasons)} failed: {reasons[0]}" for row, reasons in failed.items()} | {
        row: f"{count} not trained yet" for row, count in left.items() if row not in failed
    }
    return Plan(
        folder=folder,
        name=study.name,
        entries=tuple(entries),
        rows=tuple(row.name for row in study.rows),
        question=study.question,
        folds=study.folds or 1,
        baseline=study.baseline,
        definition=study.definition,
        figures={row.name: row.figure for row in study.rows},
        missing=missing,
    )


def _of_recipes(folder: Path, *, by: Sequence[str]) -> Plan:
    """Rows by what differs in the recipes, but for their seeds and folds."""
    trees = {file.parent: flat(read_yaml(file)) for file in sorted(folder.glob("*/recipe.yaml"))}
    if not trees:
        raise RunError("holds no runs", mend="give the folder of a study, or of runs", file=folder)
    known = dict.fromkeys(key for tree in trees.values() for key in tree)
    for key in by:
        if key not in known:
            raise RecipeError(f"unknown key '{key}'", mend=nearest(key, known))
    differing = [key for key in known if len({repr(tree.get(key)) for tree in trees.values()}) > 1]
    keys = list(by) or [key for key in differing if key not in _NO_ROW]
    entries = []
    for run, tree in trees.items():
        row = named_by({key: tree.get(key) for key in keys}) or "all runs"
        fold = tree.get("data.split.fold") if tree.get("data.split.kind") == "kfold" else None
        entries.append(Entry(run, row, int(tree.get("training.seed", 0)), fold))
    folds = len({entry.fold for entry in entries} - {None})
    rows = tuple(dict.fromkeys(entry.row for entry in entries))
    return Plan(folder, folder.resolve().name, tuple(entries), rows, folds=max(1, folds))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys.

    >>> flat({"model": {"name": "unet"}})
    {'model.name': 'unet'}
    """
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value
    return rows
