"""What runs left on disk, as far as a table of them needs it: counts of every image, and what they cost.

Nothing here opens a model or an image: `scores/<split>.npz` and `.json`, the last lines of `metrics.jsonl` and the head
of the weights file are read, a few milliseconds a run.

    N images   K classes
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from segwright.errors import DataError
from segwright.files import read_arrays, read_json
from segwright.metrics import Definition, class_counts, dropped_classes, score_counts, scored_classes
from segwright.runs import stages_folder
from segwright.types import ClassSet

_TAIL_BYTES = 4096
"""Of metrics.jsonl: some lines."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Cost:
    """What a run cost.

    Attributes:
        minutes: of training, with all stages.
        parameters: of the model.
        images_per_second: that it labels, as measured when it was scored.
    """

    minutes: float | None
    parameters: int | None
    images_per_second: float | None


@dataclass(frozen=True)
class Scored:
    """One run on one split.

    Attributes:
        run: its folder.
        ids: of the images, as one key; runs with the same key were scored on images of the same names.
        truth: a digest of the true pixels of each class in each image: where it differs, other masks were scored.
        counts: right, true and predicted pixels of each class in each image, in the order of the sorted ids.
        totals: the same of all images, exact.
        groups: of each image; None where each is by itself.
        classes: with the rules of the score.
        cost: of the run.
    """

    run: Path
    ids: tuple[str, ...]
    truth: bytes
    counts: Float32[np.ndarray, "N 3 K"]
    totals: Int64[np.ndarray, "3 K"]
    groups: tuple[str, ...] | None
    classes: ClassSet
    cost: Cost

    @property
    def images(self) -> tuple[tuple[str, ...], bytes]:
        """Equal where the same images were scored, with the same masks."""
        return self.ids, self.truth


def shown_iou(runs: Sequence[Scored], definition: Definition) -> Float64[np.ndarray, "S K"]:
    """IoU of each class in runs of the same classes.

    NaN of one that does not occur, or whose true pixels are dropped and that is in no mean.
    """
    classes = runs[0].classes
    iou = np.array(score_counts(np.stack([one.totals for one in runs]), classes, definition).iou)
    apart = set(dropped_classes(classes, definition)) - set(scored_classes(classes, definition))
    iou[:, sorted(apart)] = math.nan
    return iou


def rules(classes: ClassSet, definition: Definition) -> tuple[frozenset[int], frozenset[int]]:
    """Which classes a score is of, and whose pixels it drops."""
    return frozenset(scored_classes(classes, definition)), frozenset(dropped_classes(classes, definition))


@dataclass
class Reader:
    """Reads runs one after the other; names of images that many runs share are kept once.

    Attributes:
        split: whose scores are read.
        definition: of the score.
    """

    split: str
    definition: Definition = "declared"
    _orders: dict[bytes, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)
    _groups: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    _classes: dict[str, ClassSet] = field(default_factory=dict)

    def read(self, run: Path) -> Scored:
        """One run.

        Raises:
            DataError: it was not scored on this split, or its scores are damaged.
        """
        file = run / "scores" / f"{self.split}.npz"
        arrays = read_arrays(file, names=("ids", "confusion", "groups"))
        summary = read_json(file.with_suffix(".json"))
        try:
            ids, order = self._order(arrays["ids"])
            classes = self._class_set(summary["classes"])
            counts = class_counts(arrays["confusion"], classes, self.definition)
            truth = blake2b(np.einsum("nij->ni", arrays["confusion"])[order].astype("<i8").tobytes()).digest()
            groups = self._groups_of(arrays.get("groups"), order)
            speed = summary.get("images_per_second")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"is damaged ({error!r})", mend=f"run 'segwright evaluate {run}' again", file=file
            ) from None
        cost = Cost(minutes_of(run), parameters_of(run), speed)
        return Scored(run, ids, truth, counts[order].astype(np.float32), counts.sum(0), groups, classes, cost)

    def _order(self, ids: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        """The sorted names of images, and where each stands.

        Copies of a data set keep the names of its files in other folders: where the names alone tell images apart, the
        folders do not count.
        """
        key = ids.tobytes()
        if key not in self._orders:
            names = [name.rpartition("/")[2] for name in ids.tolist()]
            told = names if len(set(names)) == len(names) else ids.tolist()
            order = np.argsort(np.array(told), kind="stable")
            self._orders[key] = tuple(told[i] for i in order), order
        return self._orders[key]

    def _groups_of(self, groups: np.ndarray | None, order: np.ndarray) -> tuple[str, ...] | None:
        if groups is None:
            return None
        key = groups.tobytes()
        if key not in self._groups:
            self._groups[key] = tuple(groups[order].tolist())
        return self._groups[key]

    def _class_set(self, tree: Mapping[str, Any]) -> ClassSet:
        key = json.dumps(tree, sort_keys=True)
        if key not in self._classes:
            self._classes[key] = ClassSet.from_dict(tree)
        return self._classes[key]


def minutes_of(run: Path) -> float | None:
    """How long a run was trained, its stages included; None where nothing tells."""
    last = _minutes_of_part(run)
    if last is None:
        return None
    return last + sum(_minutes_of_part(stage) or 0.0 for stage in stages_folder(run).glob("*-*"))


def _minutes_of_part(run: Path) -> float | None:
    """Of a run or a stage, by the last line of its `metrics.jsonl` that is whole."""
    try:
        with (run / "metrics.jsonl").open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            lines = stream.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            seconds = json.loads(line)["seconds"]
        except (ValueError, KeyError, TypeError):
            continue
        return float(seconds) / 60 if isinstance(seconds, (int, float)) else None
    return None


def parameters_of(run: Path) -> int | None:
    """How many parameters a run's model has, by the head of its weights file; averages of batch norms are none."""
    try:
        with (run / "bundle" / "model.safetensors").open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            return _parameters_in(stream.read(min(length, 1 << 24)))
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=64)
def _parameters_in(head: bytes) -> int:
    """Of one head; the runs of a row have the same."""
    tree = json.loads(head)
    shapes = [
        value["shape"]
        for name, value in tree.items()
        if name != "__metadata__" and name.rpartition(".")[2] not in _STATISTICS
    ]
    return sum(int(math.prod(shape)) for shape in shapes)
