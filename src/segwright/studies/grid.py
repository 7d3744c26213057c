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
from segwright.metrics import Definition
from segwright.recipe import Part, Recipe, make_recipe, override
from segwright.runs import assignments
from segwright.studies.needs import found_in_data
from segwright.studies.origins import absolute, changes_in_words_of, in_words_of, path_in_words_of
from segwright.studies.reading import base_of, name_of, read_study_file
from segwright.studies.study_file import ROW_KEYS, Copies, Need, RandomRows, Range, StudyFile, copies_of

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
        drawn: by chance, from the study's `random`.
    """

    name: str
    changes: Mapping[str, Any]
    note: str = ""
    figure: Mapping[str, Any] = field(default_factory=dict)
    copies: Copies | None = None
    drawn: bool = False


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
        file: the tree that was read, with the base in place of its path and the rows written out; its relative paths
            are told from `folder`.
        always: changes of every row, after its own.
        needs: what must be there before anything begins.
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
    always: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()


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
    base, origin = base_of(tree.base, folder)
    base = in_words_of(base, origin=origin, folder=folder)
    make_recipe(base, file=path)
    if tree.random is not None:
        keys = changes_in_words_of(folder, tree.random.keys)
        tree = tree.model_copy(update={"random": tree.random.model_copy(update={"keys": keys})})
    rows = tuple(_rows(tree, file=path, folder=folder))
    names = [row.name for row in rows]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise RecipeError(f"two rows are called '{twins[0]}'", mend="give each a 'name' of its own", file=path)
    if tree.baseline is not None and tree.baseline not in names:
        raise RecipeError(f"'baseline' = '{tree.baseline}' is no row", mend=nearest(tree.baseline, names), file=path)
    name = name_of(tree.name, path)
    always = changes_in_words_of(folder, tree.always)
    needs = tuple(_need_in_words_of(folder, need) for need in tree.needs)
    told = {"always": always, "needs": needs}
    study = Study(
        name=name,
        question=tree.question,
        folder=folder,
        base=base,
        rows=rows,
        seeds=tree.seeds or (),
        folds=tree.folds,
        baseline=tree.baseline,
        definition=tree.definition,
        random=tree.random,
        file=_written_out(tree.model_copy(update=told), rows) | {"name": name, "base": base, "folder": str(folder)},
        always=always,
        needs=needs,
    )
    try:
        for row in rows:
            _recipe_of(study, row)
    except RecipeError as error:
        raise RecipeError(error.problem, mend=error.mend, file=path) from None
    return study


def trials(study: Study) -> tuple[Trial, ...]:
    """All runs of a study: all rows with the first seed come before the second, so that there is much to see early.

    Raises:
        RecipeError: a row's changes make no recipe.
    """
    recipes = {row.name: _recipe_of(study, row) for row in study.rows}
    elsewhere = found_in_data(study.needs, study.folder)
    folds: Sequence[int | None] = [None] if study.folds is None else range(study.folds)
    seeds: Sequence[int | None] = study.seeds or [None]
    return tuple(
        _trial(study, row, recipes[row.name], seed=seed, fold=fold, elsewhere=elsewhere)
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


def _need_in_words_of(folder: Path, need: Need) -> Need:
    """A need whose path is told like that of the data which it is."""
    path = path_in_words_of(need.path, origin=folder, folder=folder)
    return need.model_copy(update={"path": path, "in_data": need.in_data or need.path})


def _written_out(tree: StudyFile, rows: Sequence[Row]) -> dict[str, Any]:
    """A study file's tree whose list and grid are the rows that they make; those that are drawn are drawn again."""
    told = tree.model_dump(mode="json", by_alias=True, exclude_unset=True)
    kept = {key: value for key, value in told.items() if key not in ("list", "grid") and value not in (None, {}, [])}
    listed = [_row_written_out(row) for row in rows if not row.drawn]
    return kept | ({"list": listed} if listed else {})


def _row_written_out(row: Row) -> dict[str, Any]:
    copies = None if row.copies is None else row.copies.model_dump(mode="json", exclude_unset=True)
    told = {"name": row.name, "note": row.note, "figure": dict(row.figure), "copies": copies}
    return {key: value for key, value in told.items() if value} | dict(row.changes)


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
            _require_nothing_undone(changes, row=title, file=file)
            yield Row(title, changes, str(given.get("note", "")), figure, copies)
    if tree.random is not None:
        drawn = (draw(tree.random, number) for number in range(tree.random.trials))
        unlike = {named_by(changes): changes for changes in drawn}
        for name, changes in unlike.items():
            yield Row(name, changes_in_words_of(folder, changes), drawn=True)


def _require_nothing_undone(changes: Mapping[str, Any], *, row: str, file: Path) -> None:
    """A branch that is given as a whole has usual values where it says nothing, so it undoes single keys before it.

    Raises:
        RecipeError: one does.
    """
    before: list[str] = []
    for key in changes:
        undone = next((one for one in before if one.startswith(f"{key}.")), None)
        if undone is not None:
            mend = f"name the keys one by one, as {undone}, or all of them in '{key}'"
            raise RecipeError(f"row '{row}': '{key}' as a whole would undo '{undone}'", mend=mend, file=file)
        before.append(key)


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
        # One list of texts: a key of 'always' comes after all of the row's, also where the row sets a branch around it.
        return override(make_recipe(study.base), [*assignments(row.changes), *assignments(study.always)])
    except RecipeError as error:
        with_always = " with 'always'" if study.always else ""
        raise RecipeError(f"row '{row.name}'{with_always}: {error.problem}", mend=error.mend) from None


def recipe_of_copies(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe's tree says of augmented copies: which images, and how they are read and divided.

    How they are changed, the row's `copies` alone decide, whatever the training does to its images. A refit has copies
    of its training images alone.
    """
    data = {**tree["data"], "split": {**tree["data"]["split"], "refit": None}}
    return {"data": data, "classes": tree["classes"]}


def _of_copies(row: Row, recipe: Recipe) -> dict[str, Any]:
    """What decides the results of a row beside its recipe: its copies."""
    if row.copies is None:
        return {}
    more: dict[str, Any] = {"copies": row.copies.model_dump(mode="json")}
    # The training's `augment` once changed the copies too: a row with one of its own is another run since.
    return more | ({"copies_by": "copies alone"} if recipe.augment.model_dump(exclude_defaults=True) else {})


def _trial(
    study: Study, row: Row, recipe: Recipe, *, seed: int | None, fold: int | None, elsewhere: Mapping[str, Path]
) -> Trial:
    recipe = _with_seed_and_fold(recipe, seed=seed, fold=fold, folds=study.folds)
    number, more = recipe.training.seed, _of_copies(row, recipe)
    of_fold = "" if fold is None else f"-f{fold}"
    name = f"{slug(row.name)}-s{number}{of_fold}-{digest_of(recipe, more=more)}"
    copies_name = ""
    if more:
        of_copies = make_recipe(recipe_of_copies(recipe.as_dict()))
        copies_name = f"{slug(row.name)}{of_fold}-{digest_of(of_copies, more=more)}"
    return Trial(
        row=row.name,
        seed=number,
        fold=fold,
        recipe=absolute(recipe.as_dict(), study.folder, elsewhere=elsewhere),
        name=name,
        figure=row.figure,
        copies=row.copies,
        copies_name=copies_name,
    )


def _with_seed_and_fold(recipe: Recipe, *, seed: int | None, fold: int | None, folds: int | None) -> Recipe:
    """The recipe of one run of a row; both were checked when the study was read, and rows have many runs."""
    changed: dict[str, Part] = {}
    if seed is not None:
        changed["training"] = recipe.training.model_copy(update={"seed": seed})
    if fold is not None:
        split = recipe.data.split.model_copy(update={"kind": "kfold", "folds": folds, "fold": fold})
        changed["data"] = recipe.data.model_copy(update={"split": split})
    return recipe.model_copy(update=changed)
