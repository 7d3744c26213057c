"""Where relative paths of a study lead: to the folder of its file, or of the recipe that it names as its base.

All are kept in words of the study's folder: so a study that is moved together with its images stays the same study.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PATHS = ("data.path", "data.split.file", "data.split.groups", "augment.match_to", "model.weights")


def in_words_of(tree: Mapping[str, Any], *, origin: Path, folder: Path) -> dict[str, Any]:
    """The tree with paths that lie relative to `origin` made relative to the study's folder; others stay."""
    told: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    for key in _PATHS:
        *steps, last = key.split(".")
        branch: Any = told
        for step in steps:
            branch = branch.get(step) if isinstance(branch, dict) else None
        if isinstance(branch, dict) and isinstance(branch.get(last), str):
            branch[last] = _path(key, branch[last], origin=origin, folder=folder)
    return told


def changes_in_words_of(folder: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A row's changes, whose paths are relative to the study's folder."""

    def fixed(key: str, value: Any) -> Any:
        return _path(key, value, origin=folder, folder=folder) if key in _PATHS and isinstance(value, str) else value

    return {key: fixed(key, value) for key, value in changes.items()}


def _path(key: str, text: str, *, origin: Path, folder: Path) -> str:
    """A path relative to the study's folder; what is no path stays as it is."""
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


def absolute(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with paths that hold from anywhere."""
    for key in _PATHS:
        *steps, last = key.split(".")
        branch = tree
        for step in steps:
            branch = branch[step]
        text = branch[last]
        if isinstance(text, str) and _is_path(key, text):
            branch[last] = os.path.normpath(folder / Path(text).expanduser())
    return tree
