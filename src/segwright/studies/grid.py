"""From a study file to its rows and trials: what is trained, under which name.

A row is a set of changes to the base recipe; a trial is a row with one seed (and fold): one run. Its folder's name ends
in a digest of all that decides its result, so that a row that is changed is a new run, and an unchanged one is never
trained twice. What stands at its usual value is left out of the digest: a key that a later version adds changes none.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from segwright.errors import RecipeError, nearest
from segwright.files import read_yaml
from segwright.metrics import Definition
from segwright.recipe import Recipe, make_recipe, override
from segwright.runs import assignments
from segwright.studies.origins import absolute, changes_in_words_of, in_words_of
from segwright.studies.study_file import ROW_KEYS, Copies, RandomRows, Range, StudyFile, copies_of, read_study_file

_NO_RESULT = {
    "data": ("resident", "audit"),
    "training": ("devices", "tensorboard", "compile"),
}
"""Keys that change how a run is trained, and not what comes out of it."""

_DIGITS = 4
"""Of numbers that are drawn: as many as a name shows, and few enough to be the same on every machine."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: unlike that of any other row.
        changes: keys of the recipe to values.
        note: a remark.
        figure: what a paper says of it.
        copies: augmented copies that it is trained on.
    """

    name: str
    changes: Mapping[str, Any]
    note: str = ""
    figure: Mapping[str, Any] = field(default_factory=dict)
    copies: Copies | None = None


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Attributes:
        name: of the study.
        question: that it answers.
        folder: of relative paths.
        base: the recipe's tree that all rows share, as given, without usual values.
        rows: of the table.
        seeds: of each row; empty for the one of its recipe.
        folds: how many; None for the split of the recipe.
        baseline: the row that all others are compared with.
        definition: which score counts.
        random: what rows are drawn from, where they are.
        file: the tree that was read, with the base in place of its path.
    """

    name: str
    question: str
    folder: Path
    base: Mapping[str, Any]
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    folds: int | None
    baseline: str | None
    definition: Definition
    random: RandomRows | None
    file: Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        row: name of its row.
        seed: of the training.
        fold: that it is scored on; None where there are none.
        recipe: the tree to train, with absolute paths.
        name: of its folder.
        figure: what a paper says of the row.
        copies: to make and train on; `recipe` names the originals.
        copies_name: of their folder.
    """

    row: str
    seed: int
    fold: int | None
    recipe: Mapping[str, Any]
    name: str
    figure: Mapping[str, Any] = field(default_factory=dict)
    copies: Copies | None = None
    copies_name: str = ""


def read_study(path: Path) -> Study:
    """Read a study file and check every row of it.

    Raises:
        DataError: the file, or the recipe that it names, is missing or no YAML.
        RecipeError: an unknown key, a wrong value, or two rows of one name.
    """
    tree = read_study_file(path)
    folder = path.resolve().parent if tree.folder is None else Path(tree.folder)
    base, origin = _base_of(tree, folder)
    base = in_words_of(base, origin=origin, folder=folder)
    make_recipe(base, file=path)
    rows = tuple(_rows(tree, file=path, folder=folder))
    names = [row.name for row in rows]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise RecipeError(f"two rows are called '{twins[0]}'", mend="give each a 'name' of its own", file=path)
    if tree.baseline is not None and tree.baseline not in names:
        raise RecipeError(f"'baseline' = '{tree.baseline}' is no row", mend=nearest(tree.baseline, names), file=path)
    stem = path.resolve().parent.name if path.stem in ("study", "STUDY") else path.stem
    told = tree.model_dump(mode="json", by_alias=True, exclude_unset=True)
    study = Study(
        name=tree.name or stem,
        question=tree.question,
        folder=folder,
        base=base,
        rows=rows,
        seeds=tree.seeds or (),
        folds=tree.folds,
        baseline=tree.baseline,
        definition=tree.definition,
        random=tree.random,
        file={**told, "name": tree.name or stem, "base": base, "folder": str(folder)},
    )
    try:
        trials(study)
    except RecipeError as error:
        raise RecipeError(error.problem, mend=error.mend, file=path) from None
    return study


def trials(study: Study) -> tuple[Trial, ...]:
    """All runs of a study: all rows with the first seed come before the second, so that there is much to see early.

    Raises:
        RecipeError: a row's changes make no recipe.
    """
    recipes = {row.name: _recipe_of(study, row) for row in study.rows}
    folds: Sequence[int | None] = [None] if study.folds is None else range(study.folds)
    seeds: Sequence[int | None] = study.seeds or [None]
    return tuple(
        _trial(study, row, recipes[row.name], seed=seed, fold=fold)
        for seed, fold, row in itertools.product(seeds, folds, study.rows)
    )


def choose(every: Sequence[Trial], *, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> tuple[Trial, ...]:
    """Those of some rows and seeds; all where none is named.

    Raises:
        RecipeError: there is no such row or seed.
    """
    names, known = {trial.row for trial in every}, {trial.seed for trial in every}
    for name in rows:
        if name not in names:
            raise RecipeError(f"there is no row '{name}'", mend=nearest(name, names))
    for seed in seeds:
        if seed not in known:
            raise RecipeError(f"there is no seed {seed}", mend=nearest(str(seed), map(str, known)))
    return tuple(t for t in every if (not rows or t.row in rows) and (not seeds or t.seed in seeds))


def slug(name: str) -> str:
    """A name as a part of a folder's name.

    >>> slug("dice + 2*ce, 500 copies")
    'dice-2-ce-500-copies'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].rstrip("-") or "row"


def digest_of(recipe: Recipe, *, more: Mapping[str, Any] | None = None) -> str:
    """Eight digits that are the same for the same result, on every machine."""
    tree = recipe.model_dump(mode="json", exclude_defaults=True)
    for branch, keys in _NO_RESULT.items():
        for key in keys:
            tree.get(branch, {}).pop(key, None)
        if not tree.get(branch, True):
            del tree[branch]
    text = json.dumps([tree, dict(more or {})], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:8]


def _base_of(tree: StudyFile, folder: Path) -> tuple[dict[str, Any], Path]:
    """The base's tree, and the folder that its paths are relative to."""
    if isinstance(tree.base, dict):
        return tree.base, folder
    file = folder / Path(tree.base).expanduser()
    base = read_yaml(file)
    if not isinstance(base, dict):
        raise RecipeError("a recipe is a mapping of keys", mend="start it with 'data:' or 'model:'", file=file)
    return base, file.resolve().parent


def _rows(tree: StudyFile, *, file: Path, folder: Path) -> Iterator[Row]:
    grid = [dict(zip(tree.grid, values, strict=True)) for values in itertools.product(*tree.grid.values())]
    for given in tree.rows or ([{}] if tree.grid or tree.random is None else []):
        own = {key: value for key, value in given.items() if key not in ROW_KEYS}
        if "source" in given:
            own["data.path"] = given["source"]
        name, figure = given.get("name"), given.get("figure", {})
        if not isinstance(name, str | None) or not isinstance(figure, Mapping):
            raise RecipeError("a row's 'name' is a text and its 'figure' a mapping", mend=f"mend {given}", file=file)
        for more in grid:
            title = ", ".join(part for part in (name or named_by(own), named_by(more)) if part) or "base"
            copies = copies_of(given["copies"], row=title, file=file) if "copies" in given else None
            changes = changes_in_words_of(folder, {**own, **more})
            yield Row(title, changes, str(given.get("note", "")), figure, copies)
    if tree.random is not None:
        drawn = (draw(tree.random, number) for number in range(tree.random.trials))
        unlike = {named_by(changes): changes for changes in drawn}
        for name, changes in unlike.items():
            yield Row(name, changes_in_words_of(folder, changes))


def draw(asked: RandomRows, number: int) -> dict[str, Any]:
    """The values of the row of that number; more rows, or another key, change none that were drawn before."""
    values: dict[str, Any] = {}
    for key, menu in asked.keys.items():
        chance = Random(f"{asked.seed}/{number}/{key}")
        if not isinstance(menu, Range):
            values[key] = chance.choice(menu)
        elif menu.whole is not None:
            values[key] = chance.randint(*menu.whole)
        elif menu.uniform is not None:
            values[key] = _rounded(chance.uniform(*menu.uniform))
        else:
            assert menu.log is not None, "one of three ways"
            low, high = (math.log(edge) for edge in menu.log)
            values[key] = _rounded(math.exp(chance.uniform(low, high)))
    return values


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def named_by(changes: Mapping[str, Any]) -> str:
    """The name of a row that has none: its changed values.

    >>> named_by({"loss.formula": "dice", "optimizer.lr": 0.001})
    'loss.formula=dice, optimizer.lr=0.001'
    """
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changes.items()
    )


def _recipe_of(study: Study, row: Row) -> Recipe:
    try:
        return override(make_recipe(study.base), assignments(row.changes))
    except RecipeError as error:
        raise RecipeError(f"row '{row.name}': {error.problem}", mend=error.mend) from None


def _trial(study: Study, row: Row, recipe: Recipe, *, seed: int | None, fold: int | None) -> Trial:
    changes: dict[str, Any] = {} if seed is None else {"training.seed": seed}
    if fold is not None:
        changes |= {"data.split.kind": "kfold", "data.split.folds": study.folds, "data.split.fold": fold}
    recipe = override(recipe, assignments(changes))
    number = recipe.training.seed
    copies = None if row.copies is None else row.copies.model_dump(mode="json")
    of_fold = "" if fold is None else f"-f{fold}"
    name = f"{slug(row.name)}-s{number}{of_fold}-{digest_of(recipe, more={'copies': copies} if copies else None)}"
    # Copies are of the training images, whatever the network; their classes and their division decide them.
    of_copies = Recipe(data=recipe.data, classes=recipe.classes)
    return Trial(
        row=row.name,
        seed=number,
        fold=fold,
        recipe=absolute(recipe.as_dict(), study.folder),
        name=name,
        figure=row.figure,
        copies=row.copies,
        copies_name=f"{slug(row.name)}{of_fold}-{digest_of(of_copies, more={'copies': copies})}" if copies else "",
    )
