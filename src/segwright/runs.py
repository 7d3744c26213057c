"""Run folders: their names, and what a run was trained on.

A run is known by its `recipe.yaml`, which is resolved (data by absolute path), and its `split.json`, which names the
images of each side; with both, any later verb finds the same images again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.data.card import read_card
from segwright.data.pack import Pack, open_pack
from segwright.data.sources import Source, open_source
from segwright.data.splits import find_groups, read_split
from segwright.errors import DataError, RecipeError, RunError, brief
from segwright.files import read_json, read_yaml
from segwright.recipe import Recipe, make_recipe, override, read_recipe, read_resolved
from segwright.types import SPLIT_NAMES, ClassSet


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
    else:
        tree = (Recipe() if start_from is None else recipe_of(start_from)).as_dict()
        tree["data"] |= {
            "path": str(source),
            "format": "auto",
            "drop": [],
            "split": Recipe().as_dict()["data"]["split"],
        }
        # What the other run began from, and in which stages, is done.
        tree["model"]["branches"], tree["stages"] = None, []
        tree["training"]["trainable"], tree["loss"]["heads"] = [], []
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
    return run.exists() or run.with_name(f"{run.name}.stages").exists()


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
    return tree


def _absolute(text: str, *, file: Path | None) -> Path:
    path = Path(text).expanduser()
    beside = path if file is None else file.parent / path
    return (path if path.exists() else existing(beside)).resolve()


def source_of(recipe: Recipe) -> Source:
    """The source that a recipe names, with its classes.

    Raises:
        RecipeError: it names none.
        DataError: the source cannot be read.
        MaskError: masks hold values that fit no classes.
    """
    if recipe.data.path is None:
        raise RecipeError("'data.path' is not set", mend="name the folder or file with the images")
    asked = recipe.classes
    return open_source(
        Path(recipe.data.path),
        format=recipe.data.format,
        names=asked.names,
        colors=asked.colors,
        mask_values=asked.mask_values,
        void_values=asked.void_values,
    )


@dataclass(frozen=True)
class Images:
    """Labelled images that a run is scored on.

    Attributes:
        pack: at native size.
        indices: positions in the pack.
        groups: of each image of the pack; None where no group is known. An image without one is its own.
    """

    pack: Pack
    indices: list[int]
    groups: list[str] | None


def own_images(recipe: Recipe, run: Path, *, side: str, progress: bool) -> Images:
    """The images of one side of a run's split.

    Raises:
        RunError: the run has none on that side.
        SplitError: images of the run are no longer there.
    """
    source = source_of(recipe)
    pack = open_pack(source, resident=recipe.data.resident, progress=progress)
    split = read_split(run / "split.json", pack.ids)
    indices = [i for i, name in enumerate(pack.ids) if split.get(name) == side]
    if not indices:
        there = ", ".join(sorted(set(split.values())))
        raise RunError(f"this run has no images in '{side}'", mend=f"there are: {there}", file=run)
    return Images(pack, indices, _groups(pack, indices, recipe.data.split.groups or source.groups))


def require_comparable(folders: Sequence[Path], classes: Sequence[ClassSet]) -> None:
    """Runs that are judged on the validation images of the first.

    Raises:
        RunError: one has other classes, or has learnt from such an image.
    """
    sides = [read_json(folder / "split.json") for folder in folders]
    held = set(sides[0]["val"])
    for folder, own, split in zip(folders[1:], classes[1:], sides[1:], strict=True):
        if own.names != classes[0].names:
            problem = f"has the classes {', '.join(own.names)}, and {folders[0]} {', '.join(classes[0].names)}"
            raise RunError(problem, mend="take runs of the same data", file=folder)
        if seen := held & set(split["train"]):
            problem = f"has learnt from {len(seen)} images that {folders[0]} is judged by, such as {min(seen)}"
            raise RunError(problem, mend="train both with one split (data.split.file)", file=folder)


def other_images(run: Path, data: Path, *, split: str | None, progress: bool) -> Images:
    """The labelled images of other data, or of the side that it names itself; masks are read as the run's own were.

    Raises:
        DataError: the data cannot be read, has no such images, or names other classes.
        MaskError: a mask holds a value that the run knows no class for.
    """
    card = read_card(run / "data.yaml")
    source = open_source(
        existing(data),
        names=card.classes,
        colors=card.colors,
        mask_values=card.mask_values,
        void_values=card.void_values,
        nearest=card.nearest,
    )
    source.require_classes(card.classes)
    pack = open_pack(source, progress=progress)
    indices = [i for i in range(len(pack.ids)) if pack.has_mask[i] and split in (None, pack.given_split[i])]
    if not indices:
        which = f"labelled images in '{split}'" if split else "labelled images"
        raise DataError(f"holds no {which}", mend="give images with masks", file=data)
    return Images(pack, indices, _groups(pack, indices, source.groups))


def _groups(pack: Pack, indices: list[int], spec: str | None) -> list[str] | None:
    found = pack.groups if spec is None else find_groups(pack.ids, spec)
    if all(found[i] is None for i in indices):
        return None
    return [f"image {name}" if group is None else group for name, group in zip(pack.ids, found, strict=True)]


def name_of_scores(data: Path, *, split: str | None) -> str:
    """How the scores of other data are called; never as one of the run's own sides."""
    name = stem_of(data) if split is None else f"{stem_of(data)}-{split}"
    # Beside NAME.csv stand NAME_images.csv and NAME_examples.npz, which must not be those of another name.
    name = re.sub(r"_(images|examples)$", r"-\1", name)
    return f"data-{name}" if name in SPLIT_NAMES else name


def stem_of(path: Path) -> str:
    """What data or a recipe are called; `recipe.yaml` and `data.yaml` by their folder."""
    resolved = path.resolve()
    if resolved.is_dir():
        name = resolved.name or "run"
    else:
        name = resolved.parent.name if resolved.name in ("recipe.yaml", "data.yaml") else resolved.stem
    return "".join(mark if mark.isprintable() else "_" for mark in name)
