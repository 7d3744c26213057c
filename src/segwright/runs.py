"""Run folders: their names and their recipes.

A run is known by its `recipe.yaml`, which is resolved: all is filled in, and data are named by absolute path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segwright.data.card import read_card
from segwright.errors import DataError, RecipeError, RunError, brief
from segwright.files import read_json, read_yaml
from segwright.recipe import Recipe, make_recipe, override, read_recipe, read_resolved

STAGED_FILE, STAGES = "staged.yaml", ".stages"
"""The recipe of a run in stages, and what the name of the folder beside the run ends in, where it stands."""


def recipe_for(
    source: Path,
    *,
    start_from: Path | None,
    budget: tuple[float | None, int | None],
    overrides: Mapping[str, object] | Iterable[str],
) -> Recipe:
    """The recipe that training this source means: its own, that of the run to start from, or the usual one.

    Args:
        source: data or a recipe.
        start_from: a run.
        budget: minutes and epochs; at most one is given.
        overrides: see `train`.

    Raises:
        RecipeError: a key or value is wrong, or the recipe names no data.
    """
    existing(source)
    file = source if is_recipe(source) else None
    if file is not None:
        tree = read_recipe(file).as_dict()
        tree["model"]["branches"] = _beside(tree["model"]["branches"], file.parent)
    else:
        tree = (Recipe() if start_from is None else recipe_of(start_from)).as_dict()
        if start_from is not None and _is_same(tree["data"]["path"], source):
            # Divided otherwise, the run would be judged by images that its weights have learnt from.
            tree["data"]["split"]["refit"] = None
        else:
            usual = Recipe().as_dict()["data"]["split"]
            tree["data"] |= {"path": str(source), "format": "auto", "drop": [], "split": usual}
        # What the other run began from, and in which stages, is done.
        tree["model"]["branches"], tree["stages"] = None, []
        tree["training"]["trainable"], tree["loss"]["heads"] = [], []
        if start_from is not None and recipe_of(start_from).data.split.refit is not None:
            tree["training"]["keep"] = Recipe().training.keep  # the new run has something to choose the best by
    if start_from is not None and file is None and (start_from / "data.yaml").is_file():
        card = read_card(start_from / "data.yaml")
        tree["classes"] |= {"names": card.classes, "colors": card.colors}
    minutes, epochs = budget
    if minutes is not None or epochs is not None:
        tree["training"] |= {"minutes": minutes, "epochs": epochs}
    base = make_recipe(tree, file=file)
    recipe = override(base, assignments(overrides))
    if start_from is not None and file is None:
        _refuse_other_architecture(base, recipe, start_from)
    return make_recipe(_with_absolute_paths(recipe.as_dict(), file=file))


def _is_same(path: str | None, source: Path) -> bool:
    return path is not None and Path(path).resolve() == source.resolve()


def _refuse_other_architecture(base: Recipe, recipe: Recipe, start_from: Path) -> None:
    for key in ("name", "encoder", "arguments"):
        had, asked = getattr(base.model, key), getattr(recipe.model, key)
        if had != asked:
            raise RecipeError(
                f"'model.{key}' = {brief(asked)}, but {start_from} was trained with {brief(had)}",
                mend="its weights fit no other architecture: leave this key or --from out",
            )


def assignments(
    overrides: Mapping[str, object] | Iterable[str], *, budget: tuple[float | None, int | None] = (None, None)
) -> list[str]:
    """Keys and values, and a budget in minutes or epochs where one is given, as `key.path=value` texts."""
    if isinstance(overrides, Mapping):
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    else:
        texts = list(overrides)
    minutes, epochs = budget
    if minutes is None and epochs is None:
        return texts
    return [*texts, f"training.minutes={json.dumps(minutes)}", f"training.epochs={json.dumps(epochs)}"]


def is_recipe(source: Path) -> bool:
    """Whether a YAML is a recipe; a data card has the key `source`."""
    if source.suffix.lower() not in (".yaml", ".yml"):
        return False
    tree = read_yaml(source)
    return not (isinstance(tree, dict) and "source" in tree)


def new_run(out: Path, *, name: str | None, source: Path) -> Path:
    """The folder of a new run, which is not there yet.

    Raises:
        RunError: the name is taken or is no name.
    """
    if name is None:
        stem = stem_of(source) if source.exists() else source.name
        number = next(number for number in range(1, 1_000_000) if not _taken(out / f"{stem}-{number}"))
        return out / f"{stem}-{number}"
    if not name or not name.isprintable() or Path(name).name != name or name.startswith("."):
        raise RunError(f"'{name}' is no name for a run", mend="use letters, digits, '-' and '_'; --out says where")
    if _taken(out / name):
        free = new_run(out, name=None, source=Path(name)).name
        mend = f"call this one '{free}', or go on with the old one: segwright train {out / name} --resume"
        raise RunError("this run exists", mend=mend, file=out / name)
    return out / name


def _taken(run: Path) -> bool:
    """Whether a run of that name is there, or in its stages still."""
    return run.exists() or stages_folder(run).exists()


def stages_folder(run: Path) -> Path:
    """Where the stages of a run lie, beside it."""
    named = run.resolve() if run.name in ("", "..") else run
    return named.with_name(named.name + STAGES)


def started_from(run: Path) -> Path | None:
    """The run or bundle whose weights a run began with; None where it began afresh.

    A stage is found beside the run, wherever both were brought since.
    """
    origin = read_json(run / "environment.json")["start_from"]
    if origin is None:
        return None
    told, beside = Path(origin), run.parent if run.parent.name.endswith(STAGES) else stages_folder(run)
    stage = beside / told.name
    moved = not told.exists() and told.parent.name == beside.name and stage.is_dir() and stage != run
    return stage if moved else told


def is_refit(tree: Any) -> bool:
    """Whether a recipe's tree leaves nothing to score the model on, since it learns from the validation images too."""
    for step in ("data", "split", "refit"):
        tree = tree.get(step) if isinstance(tree, Mapping) else None
    return tree is not None


def is_ended_refit(run: Path) -> bool:
    """Whether a run is a refit that came to its end: it has no score then, but a report."""
    try:
        return (run / "report.html").is_file() and is_refit(read_yaml(run / "recipe.yaml"))
    except DataError:
        return False


def find_run(run: Path) -> Path:
    """The folder of a run.

    Raises:
        RunError: there is no run there; those beside it are named.
    """
    if (run / "recipe.yaml").is_file():
        return run
    beside = sorted(path.parent.name for path in run.parent.glob("*/recipe.yaml")) if run.parent.is_dir() else []
    there = f"there are: {', '.join(beside)}" if beside else "make one with: segwright train DATA"
    raise RunError("is no run" if run.exists() else "is missing", mend=there, file=run)


def recipe_of(run: Path) -> Recipe:
    """The resolved recipe of a run.

    Raises:
        RunError: there is no such run.
    """
    return read_resolved(find_run(run) / "recipe.yaml")


def existing(path: Path) -> Path:
    """The same path.

    Raises:
        DataError: nothing is there.
    """
    if not path.exists():
        raise DataError("is missing", mend="check the path", file=path)
    return path


def _with_absolute_paths(tree: dict[str, Any], *, file: Path | None) -> dict[str, Any]:
    """A run must find its data again from anywhere; a recipe may name them from its own folder."""
    data = tree["data"]
    if data["path"] is None:
        raise RecipeError("names no data", mend="add data.path to it, or -o data.path=FOLDER", file=file)
    data["path"] = str(_absolute(data["path"], file=file))
    for key in ("file", "groups"):
        value = data["split"][key]
        if value is not None and (key == "file" or value.endswith((".npy", ".npz", ".json"))):
            data["split"][key] = str(_absolute(value, file=file))
    if tree["augment"]["match_to"] is not None:
        tree["augment"]["match_to"] = str(_absolute(tree["augment"]["match_to"], file=file))
    weights = tree["model"]["weights"]
    if weights.endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt")) or os.sep in weights:
        tree["model"]["weights"] = str(_absolute(weights, file=file))
    if tree["model"]["branches"] is not None:
        tree["model"]["branches"] = [str(_absolute(text, file=file)) for text in tree["model"]["branches"]]
    return tree


def _beside(paths: Sequence[str] | None, folder: Path) -> list[str] | None:
    """Runs that a recipe names from its own folder, whatever runs of these names lie where it is read."""
    if paths is None:
        return None
    places = [folder / Path(text).expanduser() for text in paths]
    return [str(place.resolve()) if place.exists() else text for text, place in zip(paths, places, strict=True)]


def _absolute(text: str, *, file: Path | None) -> Path:
    path = Path(text).expanduser()
    beside = path if file is None else file.parent / path
    return (path if path.exists() else existing(beside)).resolve()


def stem_of(path: Path) -> str:
    """What data or a recipe are called; `recipe.yaml` and `data.yaml` by their folder."""
    resolved = path.resolve()
    if resolved.is_dir():
        name = resolved.name or "run"
    else:
        name = resolved.parent.name if resolved.name in ("recipe.yaml", "data.yaml") else resolved.stem
    return "".join(mark if mark.isprintable() else "_" for mark in name)
