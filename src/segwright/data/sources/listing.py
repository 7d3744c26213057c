"""What a reader found on disk, before the masks are looked at.

Each reader (`folder`, `arrays`, `voc`, `manifest`) turns a path into a `Listing`; `open_source` makes it a `Source` by
finding out how the masks are coded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from segwright.data.sources.classes import ClassHint
from segwright.errors import DataError
from segwright.files import IMAGE_SUFFIXES
from segwright.types import Sample, SplitName

SourceFormat = Literal["folder", "arrays", "voc", "manifest"]

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""How people call the three sides."""


@dataclass(frozen=True)
class ArrayTable:
    """Arrays brought into one layout; views, so nothing is copied.

    Attributes:
        images: key -> (N, C, H, W) uint8, uint16 or float32.
        masks: key -> (N, H, W) integers, the values as stored.
    """

    images: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The samples of a source and what was noticed on the way.

    Attributes:
        root: the folder, or the file of arrays; images and masks are named relative to it.
        format: the reader that made it.
        samples: labelled ones first where one file holds both kinds.
        notes: sentences for the user.
        files: files besides images and masks that decide what is read (a CSV, lists of ids).
        hint: class names and colours that lie beside the images.
        arrays: the pixels, where they are arrays.
    """

    root: Path
    format: SourceFormat
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    hint: ClassHint | None = None
    arrays: ArrayTable = field(default_factory=ArrayTable)


def pictures_below(folder: Path, *, recursive: bool = True) -> list[Path]:
    """All pictures in a folder in the order of their names; hidden files and folders are passed over."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        found += [Path(place, name) for name in files if _is_picture(name)]
    return sorted(found)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def without_ending(path: Path, *, below: Path) -> str:
    """The id of a file: its path below a folder, without its ending, with forward slashes."""
    return path.relative_to(below).with_suffix("").as_posix()


def some(names: Sequence[str], *, most: int = 3) -> str:
    """The first few of many names, for a message."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def require_unique_ids(samples: Sequence[Sample], *, root: Path) -> None:
    """Refuse two images that would share an id.

    Raises:
        DataError: naming the two files.
    """
    seen: dict[str, Sample] = {}
    for sample in samples:
        first = seen.setdefault(sample.id, sample)
        if first is not sample:
            raise DataError(
                f"'{first.image}' and '{sample.image}' share the name '{sample.id}'",
                mend="rename or delete one of them; if one is a mask, put it into a folder named masks",
                file=root,
            )


def require_masks(samples: Sequence[Sample], *, root: Path) -> None:
    """Where some images are labelled, only those of the test side may go without a mask.

    Raises:
        DataError: naming the first images that have none.
    """
    bare = [sample.image for sample in samples if sample.mask is None and sample.split != "test"]
    if bare and any(sample.mask is not None for sample in samples):
        count = f"{len(bare)} image{'s have' if len(bare) > 1 else ' has'}"
        raise DataError(
            f"{count} no mask: {some(bare)}",
            mend="add the masks, take these images away, or move them into a folder named test",
            file=root,
        )
