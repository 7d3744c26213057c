"""What a search may change: keys of the recipe, each with a range or a menu.

A study file says it as its `random.keys`. Where it says nothing, a space is taken that matters for most images: the
learning rate first of all, then regularisation, the loss and the augmentation (Bergstra & Bengio 2012,
https://www.jmlr.org/papers/v13/bergstra12a.html, on how few keys matter, and that it is not known before which).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from segwright.errors import RecipeError, brief, nearest
from segwright.files import read_yaml
from segwright.metrics import Definition
from segwright.models import MODELS
from segwright.recipe import Recipe, make_recipe, override
from segwright.runs import assignments, recipe_for, stem_of
from segwright.studies.grid import Row, read_study, trials
from segwright.studies.needs import require_needs
from segwright.studies.study_file import Range
from segwright.studies.tuned import Objective

Space = Mapping[str, Range | list[Any]]

MODEL_KEY = "model"
"""Stands in a space for model and encoder together, as `fpn:resnet18`."""


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        base: with absolute paths; its own values are tried first.
        space: what may change.
        objectives: what counts, the most important one first.
        definition: which score counts.
    """

    base: Recipe
    space: Space
    objectives: tuple[Objective, ...] = ("miou",)
    definition: Definition = "declared"


_BATCHES = (4, 8, 16, 32)
_SPREAD = math.sqrt(1000)


def searched(
    source: Path, *, models: Sequence[str] = (), objectives: tuple[Objective, ...] = ("miou",)
) -> tuple[str, Search]:
    """A name, and what is searched of a study file (its base and its `random.keys`), a recipe, or data.

    Args:
        source: any of these.
        models: to choose from as well, as `fpn:resnet18`, or `unet` for a model without an encoder.
        objectives: what counts, the most important one first.

    Raises:
        SegwrightError: the source cannot be used, or there is no such model.
    """
    keys: Mapping[str, Range | list[Any]] | None = None
    definition: Definition = "declared"
    if _is_study(source):
        study = read_study(source)
        require_needs(study.needs, study.folder)
        name, definition = study.name, study.definition
        alone = replace(study, rows=(Row("base", {}),), seeds=(), folds=None, random=None)
        base = make_recipe(trials(alone)[0].recipe)
        keys = None if study.random is None else study.random.keys
    else:
        name = stem_of(source)
        base = recipe_for(source, start_from=None, budget=(None, None), overrides=())
    space = usual_space(base) if keys is None else _with_own(base, keys)
    if models:
        space[MODEL_KEY] = _with(_model_of(base), checked_models(models))
    return name, Search(base, space, objectives, definition)


def _is_study(source: Path) -> bool:
    if source.suffix.lower() not in (".yaml", ".yml"):
        return False
    tree = read_yaml(source)
    return isinstance(tree, dict) and ("base" in tree or "like" in tree)


def usual_space(base: Recipe) -> dict[str, Range | list[Any]]:
    """What is searched where nobody says: three decades of learning rate around the base's, and what regularises.

    The base's own values are part of every menu.
    """
    rate = base.optimizer.lr
    return {
        "optimizer.lr": Range(log=(rate / _SPREAD, rate * _SPREAD)),
        "optimizer.weight_decay": Range(log=(1e-5, 1e-1)),
        "loss.formula": _with(base.loss.formula, ["ce", "dice + ce", "dice + 2*ce", "jaccard + ce", "lovasz + ce"]),
        "augment.preset": _with(base.augment.preset, ["light", "medium", "strong"]),
        "training.ema": _with(base.training.ema, [0.9, 0.99, 0.999]),
        "training.batch_size": _with(base.training.batch_size, list(_BATCHES)),
    }


def _with_own(base: Recipe, keys: Mapping[str, Range | list[Any]]) -> dict[str, Range | list[Any]]:
    """The keys as asked, with the base's own value in every menu, so that the search can begin there."""
    tree = base.as_dict()
    return {key: _with(at(tree, key), menu) if isinstance(menu, list) else menu for key, menu in keys.items()}


def checked_models(models: Sequence[str]) -> list[Any]:
    """The same models, once each.

    Raises:
        RecipeError: there is no such model, or one takes no encoder.
    """
    for model in models:
        name, _, encoder = model.partition(":")
        if name not in MODELS:
            raise RecipeError(f"there is no model '{name}'", mend=nearest(name, MODELS))
        if encoder and not MODELS[name].takes_encoder:
            mend = "leave the encoder out" + (f", or take smp_unet:{encoder}" if name == "unet" else "")
            raise RecipeError(f"model '{name}' takes no encoder, such as '{encoder}'", mend=mend)
    return list(dict.fromkeys(models))


def require_sound(base: Recipe, space: Space) -> None:
    """Try both ends of every range and every entry of every menu.

    Raises:
        RecipeError: an unknown key, a value that it may not have, or a refit, which has no score to search by.
    """
    tried = [
        changed(base, {key: value})
        for key, menu in space.items()
        for value in (menu if isinstance(menu, list) else ends_of(menu))
    ]
    for recipe in (base, *tried):
        if recipe.data.split.refit is not None:
            problem = f"'data.split.refit' = {brief(recipe.data.split.refit)}: a refit has no score to search by"
            raise RecipeError(problem, mend="search with the recipe of the run itself, and refit the best run then")


def ends_of(span: Range) -> tuple[float, float]:
    """The smallest and the largest value of a range."""
    ends = span.log or span.uniform or span.whole
    assert ends is not None, "one of three ways"
    return ends


def changed(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The base with those values; another model takes its own usual arguments.

    Raises:
        RecipeError: an unknown key, or a value that it may not have.
    """
    plain = {key: value for key, value in values.items() if key != MODEL_KEY}
    if MODEL_KEY in values:
        name, _, encoder = str(values[MODEL_KEY]).partition(":")
        plain |= {"model.name": name, "model.encoder": encoder or None}
        if name != base.model.name:
            plain["model.arguments"] = {}
    return override(base, assignments(plain))


def values_of(base: Recipe, space: Space) -> dict[str, Any] | None:
    """The base's own values as a point of the space; None where it lies outside."""
    tree = base.as_dict()
    values = {}
    for key, menu in space.items():
        value = _model_of(base) if key == MODEL_KEY else at(tree, key)
        if isinstance(menu, list):
            inside = value in menu
            value = next((entry for entry in menu if entry == value), value)  # as the menu writes it: 0 is not 0.0
        else:
            low, high = ends_of(menu)
            inside = isinstance(value, int | float) and low <= value <= high
        if not inside:
            return None
        values[key] = value
    return values


def one_changed(own: Mapping[str, Any], space: Space, *, seed: int) -> list[dict[str, Any]]:
    """Points that differ from one in a single key: each other model, then one step of each other key.

    A step is half a decade of a logarithmic range, but at most a third of it, a quarter of another range, and any other
    entry of a menu. What they teach is plain to read, and a search of few trials is not spent on random points, of
    which nearly each has one bad value among many keys.

    Args:
        own: the point, within the space.
        space: the space.
        seed: of the directions and entries.
    """
    chance = Random(f"one changed {seed}")
    models = [{**own, MODEL_KEY: other} for other in space.get(MODEL_KEY, ()) if other != own[MODEL_KEY]]
    others = []
    for key, menu in space.items():
        if isinstance(menu, list):
            entries = [entry for entry in menu if entry != own[key]]
            value = chance.choice(entries) if entries and key != MODEL_KEY else own[key]
        else:
            value = _step(own[key], menu, up=chance.random() < 0.5)
        if value != own[key]:
            others.append({**own, key: value})
    return models + others


def _step(value: float, span: Range, *, up: bool) -> float:
    """A step from a value, to the other side where it would leave the range."""
    low, high = ends_of(span)
    ways = (up, not up)
    if span.log is not None:
        decades = min(0.5, math.log10(high / low) / 3)
        steps = [value * 10 ** (decades if way else -decades) for way in ways]
    else:
        size = (high - low) / 4 if span.whole is None else max(1, round((high - low) / 4))
        steps = [value + (size if way else -size) for way in ways]
    return next((step for step in steps if low <= step <= high), value)


def at(tree: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    value: Any = tree
    for step in key.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def as_text(value: Any) -> str:
    """An entry of a menu as a text that `from_text` gives back; Optuna's own menus hold no lists."""
    return json.dumps(value, sort_keys=True)


def from_text(text: str) -> Any:
    return json.loads(text)


def _model_of(base: Recipe) -> str:
    return base.model.name if base.model.encoder is None else f"{base.model.name}:{base.model.encoder}"


def _with(value: Any, menu: list[Any]) -> list[Any]:
    return menu if value in menu else [value, *menu]
