"""Where relative paths of a study lead: to the folder of its file, or of the recipe that it names as its base.

All are kept in words of the study's folder: so a study that is moved together with its images stays the same study.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

_PATHS = (
    "data.path", "data.split.file", "data.split.groups", "augment.match_to", "model.weights", "model.branches",
)  # fmt: skip


def in_words_of(tree: Mapping[str, Any], *, origin: Path, folder: Path) -> dict[str, Any]:
    """The tree with paths that lie relative to `origin` made relative to the study's folder; others stay."""
    told: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    for key in _PATHS:
        *steps, last = key.split(".")
        branch: Any = told
        for step in steps:
            branch = branch.get(step) if isinstance(branch, dict) else None
        if isinstance(branch, dict) and last in branch:
            branch[last] = _paths(key, branch[last], origin=origin, folder=folder)
    return told


def changes_in_words_of(folder: Path, changes: Mapping[str, Any], *, origin: Path | None = None) -> dict[str, Any]:
    """A row's changes, whose paths are relative to the study's folder; those given were relative to `origin`."""
    return {
        key: _paths(key, value, origin=origin or folder, folder=folder) if key in _PATHS else value
        for key, value in changes.items()
    }


def _paths(key: str, value: Any, *, origin: Path, folder: Path) -> Any:
    """A path, or each of several, relative to the study's folder; anything else as it is."""
    if isinstance(value, list | tuple):
        return [_paths(key, one, origin=origin, folder=folder) for one in value]
    return path_in_words_of(value, key=key, origin=origin, folder=folder) if isinstance(value, str) else value


def path_in_words_of(text: str, *, key: str = "data.path", origin: Path, folder: Path) -> str:
    """A path relative to the study's folder; what is no path stays as it is.

    Args:
        text: as given.
        key: of the recipe, which decides whether it is a path.
        origin: what it is relative to; else to the working directory, where it is there alone.
        folder: of the study.
    """
    path = Path(text).expanduser()
    if path.is_absolute() or not _is_path(key, text):
        return text
    place = path if not (origin / path).exists() and path.exists() else origin / path
    return Path(os.path.relpath(place.absolute(), folder)).as_posix()


def _is_path(key: str, text: str) -> bool:
    """Weights may be `imagenet`, and groups an expression."""
    if key == "model.weights":
        return os.sep in text or text.endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt"))
    return key != "data.split.groups" or text.endswith((".npy", ".npz", ".json"))


def absolute(
    tree: dict[str, Any], folder: Path, *, elsewhere: Mapping[str, Path] = MappingProxyType({})
) -> dict[str, Any]:
    """The tree with paths that hold from anywhere; what is named in `elsewhere`, and all below it, lies there."""
    moved = {Path(path): place for path, place in elsewhere.items()}
    for key in _PATHS:
        *steps, last = key.split(".")
        branch = tree
        for step in steps:
            branch = branch[step]
        branch[last] = _absolute(key, branch[last], folder, moved)
    return tree


def _absolute(key: str, value: Any, folder: Path, moved: Mapping[Path, Path]) -> Any:
    if isinstance(value, list | tuple):
        return [_absolute(key, one, folder, moved) for one in value]
    if isinstance(value, str) and _is_path(key, value):
        path = Path(value).expanduser()
        around = [known for known in moved if path.is_relative_to(known)]
        above = max(around, key=lambda known: len(known.parts), default=None)  # the nearest
        return os.path.normpath(folder / path if above is None else moved[above] / path.relative_to(above))
    return value
