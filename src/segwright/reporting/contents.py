"""What a run folder holds, read for its report; no model and no GPU is needed.

    recipe.yaml        the resolved recipe              environment.json   versions, hardware, seed
    metrics.jsonl      a line an epoch                  data.yaml          the data card
    split.json         ids of each side                 scores/            see `evaluation.evaluate`
    bundle/bundle.json the best model's description

Only the scores are needed (of a refit not even they): a section whose file is missing is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from segwright.errors import DataError, RunError
from segwright.files import read_arrays, read_json, read_text, read_yaml
from segwright.metrics import score
from segwright.recipe import Recipe
from segwright.runs import is_refit
from segwright.types import ClassSet, ImageArray, MaskArray

_FIRST_SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class Shown:
    """An image that stands in the report."""

    id: str
    score: float
    kind: str
    image: ImageArray
    mask: MaskArray
    pred: MaskArray


@dataclass(frozen=True)
class SplitScores:
    """The evaluation of one split: its summary, the mIoU of each image, and the images to show."""

    name: str
    summary: dict[str, Any]
    classes: ClassSet
    image_miou: Float[np.ndarray, " N"]
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class RunContents:
    """A run as it lies on disk; pairs are (key, value) for a table."""

    name: str
    recipe: dict[str, Any]
    recipe_text: str
    changed: list[tuple[str, str]]
    epochs: list[dict[str, Any]]
    environment: list[tuple[str, str]]
    card: list[tuple[str, str]]
    split_sizes: dict[str, int]
    info: dict[str, Any]
    splits: tuple[SplitScores, ...]


def read_run(run: Path) -> RunContents:
    """Read a run folder.

    Raises:
        RunError: there is no such folder, nothing in it was evaluated, or it is a refit that is not trained to its end.
        DataError: a file in it is damaged.
    """
    if not run.is_dir():
        raise RunError("is no run folder", mend="give a folder that 'segwright train' made", file=run)
    names = sorted((path.stem for path in (run / "scores").glob("*.json")), key=_order)
    recipe_file = run / "recipe.yaml"
    recipe = _mapping(read_yaml(recipe_file)) if recipe_file.is_file() else {}
    info = _mapping(_json(run / "bundle" / "bundle.json").get("info"))
    if not names:
        _require_whole_refit(run, recipe, info)
    defaults = dict(flat(Recipe().as_dict()))
    return RunContents(
        name=run.resolve().name,
        recipe=recipe,
        recipe_text=read_text(recipe_file) if recipe else "",
        changed=[(key, value) for key, value in flat(recipe) if value != defaults.get(key, "")],
        epochs=_epochs(run / "metrics.jsonl"),
        environment=flat(_json(run / "environment.json")),
        card=_card(run / "data.yaml"),
        split_sizes=_split_sizes(run / "split.json"),
        info=info,
        splits=tuple(_read_split(run / "scores", name) for name in names),
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows of a table: dotted keys, values as short texts."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            rows.append((f"{prefix}{key}", ", ".join(_word(item) for item in value) or "none"))
        else:
            rows.append((f"{prefix}{key}", _word(value)))
    return rows


def _word(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_word(item) for item in value) + ")"
    return str(value)


def _require_whole_refit(run: Path, recipe: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """A run without scores must be one that kept nothing to be scored on, trained to its end: its report says so.

    Raises:
        RunError: it is not.
    """
    if not is_refit(recipe):
        raise RunError("holds no scores", mend=f"run 'segwright evaluate {run}' first", file=run)
    asked, done = _mapping(recipe.get("training")).get("epochs"), info.get("epoch")
    if not isinstance(done, int) or (isinstance(asked, int) and done < asked):
        raise RunError("is not trained to its end", mend=f"run 'segwright train {run} --resume' first", file=run)


def _order(name: str) -> tuple[int, str]:
    return (_FIRST_SPLITS.index(name) if name in _FIRST_SPLITS else len(_FIRST_SPLITS), name)


def _mapping(tree: Any) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    return _mapping(read_json(path)) if path.is_file() else {}


def _epochs(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a killed run left cut is passed over."""
    rows = []
    for line in read_text(path).splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("epoch"), (int, float)):
            rows.append(row)
    return rows


def _card(path: Path) -> list[tuple[str, str]]:
    """The data card without what the report shows elsewhere; of dropped images only how many and why."""
    tree = _mapping(read_yaml(path)) if path.is_file() else {}
    rows = flat({key: value for key, value in tree.items() if key not in ("dropped", "split", "colors")})
    reasons: dict[str, int] = {}
    for reason in _mapping(tree.get("dropped")).values():
        reasons[str(reason)] = reasons.get(str(reason), 0) + 1
    return rows + [("dropped", f"{count} images: {reason}") for reason, count in reasons.items()]


def _split_sizes(path: Path) -> dict[str, int]:
    return {side: len(ids) for side, ids in _json(path).items() if isinstance(ids, list)}


def _read_split(folder: Path, name: str) -> SplitScores:
    file = folder / f"{name}.json"
    summary = _mapping(read_json(file))
    try:
        classes = ClassSet.from_dict(summary["classes"])
        confusion = read_arrays(folder / f"{name}.npz")["confusion"]
        shown = _shown(folder / f"{name}_examples.npz")
        image_miou = score(confusion, classes).miou
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"does not fit the scores beside it ({error!r})", mend="evaluate again", file=file) from None
    return SplitScores(name, summary, classes, image_miou, shown)


def _shown(path: Path) -> tuple[Shown, ...]:
    if not path.is_file():
        return ()
    arrays = read_arrays(path)
    heads = zip(arrays["ids"].tolist(), arrays["scores"].tolist(), arrays["kinds"].tolist(), strict=True)
    return tuple(
        Shown(name, value, kind, *(arrays[f"{part}_{position}"] for part in ("image", "mask", "pred")))
        for position, (name, value, kind) in enumerate(heads)
    )
