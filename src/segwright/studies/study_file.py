"""STUDY.yaml: the runs of a table, as one strict tree.

    question: Which loss, and does more width help?
    base: recipe.yaml                       # or a recipe's tree
    list:                                   # rows: a name, and what differs from the base
      - {name: ce, loss.formula: ce}
      - {name: dice, loss.formula: dice, figure: {miou: 0.5885}}
    grid: {optimizer.lr: [1e-3, 3e-3]}      # every combination, of every row of the list
    random: {trials: 20, keys: {optimizer.lr: {log: [1e-4, 1e-2]}}}
    seeds: [0, 1, 2]
    folds: 5
    baseline: ce
    always: {training.minutes: 5}           # in every row, whatever it says itself
    needs: [{path: mars.npz, what: the homework file, how: ask for it and put it here}]

Another file may stand on this one (`like`), see `segwright.studies.reading`. Relative paths are relative to the study
file; the copy of it in the study's folder says where that was (`folder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from segwright.errors import RecipeError, brief, nearest, plainly
from segwright.metrics import Definition
from segwright.recipe import Count, Part, Seed

ROW_KEYS = ("name", "note", "figure", "copies", "source")
"""What a row says of itself; all else in it is a key of the recipe."""


class Range(Part):
    """Numbers that a value is drawn from, in one of three ways; both ends belong to it."""

    log: tuple[float, float] | None = Field(None, description="uniform in the logarithm")
    uniform: tuple[float, float] | None = None
    whole: tuple[int, int] | None = Field(None, alias="int", description="whole numbers")

    @model_validator(mode="after")
    def _one_way(self) -> Range:
        given = [value for value in (self.log, self.uniform, self.whole) if value is not None]
        if len(given) != 1:
            raise ValueError("give one of 'log', 'uniform' and 'int'")
        if not given[0][0] < given[0][1]:
            raise ValueError("a range is a smallest and a largest value, in this order")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError("a range of 'log' lies above 0")
        return self


Values = Annotated[list[Any], Field(min_length=1)]


class RandomRows(Part):
    """Rows whose values are drawn by chance."""

    trials: Count = 20
    seed: Seed = 0
    keys: dict[str, Range | Values] = Field(min_length=1, description="key of the recipe to a range, or to a menu")


class Copies(Part):
    """Augmented copies that a row is trained on, beside the originals: made once, by `segwright augment`."""

    count: Count
    only_classes: tuple[str, ...] = Field((), description="copy only images that hold one of these")
    seed: Seed = 0
    preset: Literal["none", "light", "medium", "strong", "copies"] = "copies"
    overrides: dict[str, Any] = Field(default_factory=dict, description="keys of the recipe, while copies are made")


class Need(Part):
    """A file or folder that must be there before anything begins, see `segwright.studies.needs`."""

    path: str = Field(min_length=1)
    what: str = Field("", description="in words")
    how: str = Field("", description="where it is from, as an imperative sentence")
    in_data: str | None = Field(None, description="where it lies below SEGWRIGHT_DATA; none: at the same path")


class StudyFile(Part):
    """The whole tree."""

    name: str | None = Field(None, min_length=1)
    question: str = ""
    base: dict[str, Any] | str
    like: str | None = Field(None, description="another study file, whose keys hold unless they are given here")
    changes: dict[str, dict[str, Any] | None] = Field(
        default_factory=dict,
        description="what is different in rows of that file, by their names; null: they are left out",
    )
    folder: str | None = Field(None, description="that of relative paths; none: that of the file")
    grid: dict[str, Values] = Field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = Field((), alias="list")
    random: RandomRows | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    baseline: str | None = None
    definition: Definition = "declared"
    always: dict[str, Any] = Field(default_factory=dict, description="keys of the recipe in every row, after its own")
    needs: tuple[Need, ...] = Field((), description="what must be there before anything begins")

    @field_validator("changes")
    @classmethod
    def _of_another_file(cls, changes: dict[str, Any]) -> dict[str, Any]:
        if changes:
            raise ValueError("these are of rows of the file that 'like' names: change the rows themselves")
        return changes


def make_study_file(tree: Mapping[str, Any], *, file: Path) -> StudyFile:
    """Check what stands in a study file.

    Raises:
        RecipeError: it has an unknown key or a wrong value.
    """
    try:
        return StudyFile.model_validate(dict(tree))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    where = [str(step) for step in first["loc"]]
    key = ".".join(where)
    if first["type"] == "extra_forbidden":
        raise RecipeError(f"unknown key '{key}'", mend=nearest(where[-1], _keys_at(where[:-1])), file=file)
    if first["type"] == "missing":
        mend = "name the recipe that all rows share" if key == "base" else ""
        raise RecipeError(f"has no '{key}'", mend=mend, file=file)
    if first["type"] == "literal_error":
        menu = [one.strip(" '") for one in str(first["ctx"]["expected"]).replace(" or ", ",").split(",")]
        raise RecipeError(f"'{key}' = {brief(first['input'])}", mend=nearest(str(first["input"]), menu), file=file)
    raise RecipeError(f"'{key}' = {brief(first.get('input'))}: {plainly(first['msg'])}", file=file)


def copies_of(value: Any, *, row: str, file: Path) -> Copies:
    """What a row says of its copies.

    Raises:
        RecipeError: an unknown key or a wrong value.
    """
    try:
        return Copies.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    key = ".".join(["copies", *(str(step) for step in first["loc"])])
    if first["type"] == "extra_forbidden":
        mend = nearest(str(first["loc"][-1]), Copies.model_fields)
        raise RecipeError(f"row '{row}': unknown key '{key}'", mend=mend, file=file)
    raise RecipeError(f"row '{row}': '{key}' = {brief(first.get('input'))}: {plainly(first['msg'])}", file=file)


def _keys_at(path: list[str]) -> list[str]:
    parts: dict[str, type[Part]] = {"random": RandomRows, "keys": Range, "needs": Need}
    known = next((parts[step] for step in reversed(path) if step in parts), StudyFile)
    if path[:2] == ["random", "keys"]:
        known = Range
    return [field.alias or name for name, field in known.model_fields.items()]
