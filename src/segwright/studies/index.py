"""An index of a project's runs, so that a thousand of them are filtered and sorted in no time.

It is one SQLite file, made from the run folders and made anew, folder by folder, when one has changed since: the
folders are the truth, the index can be deleted at any time. Tags stand in the run folders too (`tags.json`). A run that
is removed is moved to `.trash/`, with the date in its name, and never deleted.
"""

from __future__ import annotations

import json
import math
import operator
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.errors import DataError, OutputError, RecipeError, RunError, nearest
from segwright.files import read_json, read_yaml, sync_folder, write_json
from segwright.runs import is_ended_refit, stages_folder
from segwright.studies.entries import flat
from segwright.studies.results import minutes_of, parameters_of
from segwright.training.lock import locked

INDEX_FILE, TRASH, TAGS_FILE = ".runs.sqlite", ".trash", "tags.json"
_VERSION = 1
_PLACES = ("*", "runs/*", "*/runs/*", "studies-runs/*/runs/*")
"""Where runs lie below a project's folder."""

SHORT = {
    "model": "model.name", "encoder": "model.encoder", "loss": "loss.formula", "lr": "optimizer.lr",
    "optimizer": "optimizer.name", "schedule": "schedule.name", "augment": "augment.preset",
    "seed": "training.seed", "data": "data.path", "batch_size": "training.batch_size",
}  # fmt: skip
"""Short words for keys of the recipe."""

FACTS = ("name", "folder", "state", "miou", "dice", "pixel_accuracy", "minutes", "epochs", "parameters", "date", "tag")
"""What is known of a run beside its recipe."""

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "=": operator.eq, ">": operator.gt, "<": operator.lt,
    "~": lambda value, part: str(part).lower() in str(value).lower(),
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A run as the index knows it.

    Attributes:
        run: its folder.
        facts: of `FACTS` but the tags.
        recipe: its recipe with dotted keys.
        tags: that it was given.
    """

    run: Path
    facts: Mapping[str, Any]
    recipe: Mapping[str, Any]
    tags: tuple[str, ...]

    def value(self, key: str) -> Any:
        """A fact or a value of the recipe, by its key or a short word for it."""
        if key == "tag":
            return self.tags
        return self.facts[key] if key in self.facts else self.recipe.get(SHORT.get(key, key))


def known_runs(root: Path) -> list[Known]:
    """All runs of a project, from the index, which is brought up to date first.

    Args:
        root: the project's folder, or a folder of runs.

    Raises:
        RunError: it holds no run.
        OutputError: the index cannot be written.
    """
    folders = {str(run.relative_to(root)): run for run in _folders(root)}
    if not folders:
        raise RunError("holds no runs", mend="make one with: segwright train DATA", file=root)
    try:
        with closing(_open(root / INDEX_FILE)) as index, index:
            before = dict(index.execute("SELECT folder, stamp FROM runs"))
            index.executemany("DELETE FROM runs WHERE folder = ?", [(name,) for name in before.keys() - folders])
            stamps = {name: _stamp(run) for name, run in folders.items()}
            stale = [name for name, stamp in stamps.items() if before.get(name) != stamp]
            index.executemany(
                "REPLACE INTO runs VALUES (?, ?, ?)",
                ((name, stamps[name], json.dumps(_look(folders[name]), default=str)) for name in stale),
            )
            rows = dict(index.execute("SELECT folder, told FROM runs"))
    except sqlite3.Error as error:
        mend = "delete it, it is made anew"
        raise OutputError(f"cannot be used ({error})", mend=mend, file=root / INDEX_FILE) from None
    return [_known(folders[name], name, json.loads(rows[name])) for name in sorted(folders)]


def known(root: Path, run: Path) -> Known:
    """One run as it stands on disk now."""
    return _known(run, str(run.relative_to(root)), _look(run))


def _open(path: Path) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=30)
    if index.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        index.execute("DROP TABLE IF EXISTS runs")
        index.execute(f"PRAGMA user_version = {_VERSION}")
    index.execute("CREATE TABLE IF NOT EXISTS runs (folder TEXT PRIMARY KEY, stamp TEXT, told TEXT)")
    return index


def _folders(root: Path) -> Iterator[Path]:
    written = {file.parent for place in _PLACES for file in root.glob(f"{place}/recipe.yaml")}
    # A recipe alone may be a user's own, beside whatever else; a run has both from its beginning.
    found = {folder for folder in written if (folder / "environment.json").is_file()}
    yield from sorted(run for run in found if not any(part.startswith(".") for part in run.relative_to(root).parts))


def _stamp(run: Path) -> str:
    """Changes when a file of the run is written: files are replaced, which their folder notes."""
    return " ".join(
        str(path.stat().st_mtime_ns) if path.exists() else "-" for path in (run, run / "scores", run / "bundle")
    )


def _look(run: Path) -> dict[str, Any]:
    """What the index keeps of a run; what is damaged or not there yet is left out."""
    summary = _json(run / "scores" / "val.json")
    declared = summary.get("definitions", {}).get("declared", {})
    scores = {key: declared.get(key, {}).get("estimate") for key in ("miou", "dice", "pixel_accuracy")}
    try:
        tree = read_yaml(run / "recipe.yaml")
        recipe = flat(tree) if isinstance(tree, dict) else {}
    except DataError:
        recipe = {}
    state = "done" if summary or is_ended_refit(run) else "half"
    tags = _json(run / TAGS_FILE).get("tags", [])
    facts = {**scores, "state": state, "minutes": minutes_of(run), "parameters": parameters_of(run)}
    facts["epochs"] = (_json(run / "bundle" / "bundle.json").get("info") or {}).get("epoch")
    facts["date"] = time.strftime("%Y-%m-%d %H:%M", time.localtime((run / "recipe.yaml").stat().st_mtime))
    return {"facts": facts, "recipe": recipe, "tags": tags}


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = read_json(path) if path.is_file() else {}
    except DataError:
        return {}
    return tree if isinstance(tree, dict) else {}


def _known(run: Path, folder: str, told: Mapping[str, Any]) -> Known:
    return Known(run, {"name": run.name, "folder": folder, **told["facts"]}, told["recipe"], tuple(told["tags"]))


def choose(runs: Sequence[Known], conditions: Iterable[str]) -> list[Known]:
    """The runs for which all conditions hold, such as `model=unet`, `miou>0.6`, `tag=good` or `name~night`.

    Raises:
        RecipeError: a condition has no sign, or an unknown key.
    """
    tests = [_test(text, runs) for text in conditions]
    return [run for run in runs if all(test(run) for test in tests)]


def _test(text: str, runs: Sequence[Known]) -> Callable[[Known], bool]:
    parts = re.fullmatch(r"\s*([\w.-]+?)\s*(>=|<=|!=|=|>|<|~)\s*(.*?)\s*", text)
    if parts is None:
        raise RecipeError(f"'{text}' is no condition", mend="write key=value, key>value or key~part, such as miou>0.6")
    key, sign, wanted = parts.groups()
    require_key(key, runs)
    if key == "tag" and sign in ("=", "!="):
        return lambda run: (wanted in run.tags) == (sign == "=")
    return lambda run: _holds(run.value(key), sign, wanted)


def require_key(key: str, runs: Sequence[Known]) -> None:
    """Refuse a key that no run knows.

    Raises:
        RecipeError: with the nearest one.
    """
    if key not in {*FACTS, *SHORT} and not any(key in run.recipe for run in runs):
        raise RecipeError(f"unknown key '{key}'", mend=nearest(key, [*FACTS, *SHORT]))


def _holds(value: Any, sign: str, wanted: str) -> bool:
    """Numbers are compared as numbers, all else as texts; nothing is known of what is not there, so nothing holds."""
    if value is None:
        return sign in ("=", "!=") and (wanted in ("none", "null")) == (sign == "=")
    if sign == "~":
        return _SIGNS[sign](value, wanted)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return _SIGNS[sign](float(value), float(wanted))
        except ValueError:
            return sign == "!="
    return _SIGNS[sign](str(value).lower() if isinstance(value, bool) else str(value), wanted)


def ordered(runs: Sequence[Known], key: str) -> list[Known]:
    """Sorted by a key, the largest first with a `-` in front; runs without a value stand at the end.

    Raises:
        RecipeError: no run knows the key.
    """
    name = key.removeprefix("-")
    require_key(name, runs)
    there = [run for run in runs if not _unknown(run.value(name))]
    numbers = all(isinstance(run.value(name), (int, float)) for run in there)
    there.sort(key=lambda run: run.value(name) if numbers else str(run.value(name)), reverse=key.startswith("-"))
    return [*there, *(run for run in runs if _unknown(run.value(name)))]


def _unknown(value: Any) -> bool:
    return value is None or value == () or (isinstance(value, float) and math.isnan(value))


def tag(runs: Iterable[Known], names: Sequence[str], *, take_away: bool = False) -> None:
    """Give runs tags, or take them away.

    Raises:
        RecipeError: a name is empty or has a comma.
        OutputError: a folder cannot be written to.
    """
    for name in names:
        if not name.strip() or "," in name or not name.isprintable():
            raise RecipeError(f"'{name}' is no tag", mend="use a word without commas")
    for run in runs:
        left = [one for one in run.tags if one not in names]
        write_json(run.run / TAGS_FILE, {"tags": left if take_away else [*left, *names]})


def remove(runs: Iterable[Known], root: Path) -> list[Path]:
    """Move runs to the trash and return where they lie now.

    Raises:
        RunError: a run is being written.
        OutputError: it cannot be moved.
    """
    moved = []
    for known in runs:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        base = root / TRASH / f"{stamp}-{known.run.name}"
        target, number = base, 1
        while target.exists():
            number += 1
            target = base.with_name(f"{base.name}-{number}")
        try:
            target.parent.mkdir(exist_ok=True)
            with locked(known.run):
                known.run.rename(target)
                if (stages := stages_folder(known.run)).is_dir():
                    stages.rename(stages_folder(target))
            sync_folder(target.parent)
        except OSError as error:
            problem = f"cannot be moved to {target} ({error.strerror})"
            raise OutputError(problem, mend="check its rights", file=known.run) from None
        moved.append(target)
    return moved
