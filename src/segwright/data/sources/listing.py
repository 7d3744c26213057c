"""What a reader found on disk, before the masks are looked at.

Each reader (`folder`, `arrays`, `voc`, `manifest`) turns a path into a `Listing`; `open_source` makes it a `Source` by
finding out how the masks are coded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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


StrayKind = Literal["missing_mask", "missing_image", "double_mask", "double_name", "broken_line"]


@dataclass(frozen=True)
class Stray:
    """A file or a line that fits nowhere, noticed while listing.

    Attributes:
        kind: what is wrong with it.
        id: as a card may drop it: that of its image, or the name that its image would have.
        error: raised where the source is to be read as it is.
        harmless: it may be passed over.
    """

    kind: StrayKind
    id: str
    error: DataError
    harmless: bool = False


@dataclass(frozen=True)
class ArrayTable:
    """Arrays brought into one layout; views, so nothing is copied.

    Attributes:
        images: key -> (N, C, H, W) uint8, uint16 or float32.
        masks: key -> (N, H, W) integers, the values as stored.
        mask_of: key of images -> key of their masks; images without masks stand not in it.
    """

    images: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    mask_of: dict[str, str] = field(default_factory=dict)


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
        strays: what fits nowhere.
        arrays: the pixels, where they are arrays.
    """

    root: Path
    format: SourceFormat
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    hint: ClassHint | None = None
    strays: tuple[Stray, ...] = ()
    arrays: ArrayTable = field(default_factory=ArrayTable)


def pictures_below(folder: Path, *, recursive: bool = True) -> list[Path]:
    """All pictures in a folder in the order of their names; hidden files and folders are passed over.

    Links are followed: people keep their images on another disk.

    Raises:
        DataError: a folder cannot be read, a link leads back to a folder above it, or what is named like a picture
            cannot be one.
    """
    return sorted(_pictures(folder, above=frozenset(), recursive=recursive))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones.

    Raises:
        DataError: it cannot be read.
    """
    return [folder / entry.name for entry in _entries(folder) if _is_folder(entry)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", mend="check its rights", file=folder) from None


def _pictures(folder: Path, *, above: frozenset[tuple[int, int]], recursive: bool) -> Iterator[Path]:
    children = _entries(folder)
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError("is a link that leads back to a folder above it", mend="delete the link", file=folder)
    for child in children:
        path = folder / child.name
        named_so = child.name.lower().endswith(IMAGE_SUFFIXES)
        if _is_folder(child):
            inside = list(_pictures(path, above=above | {here}, recursive=True)) if recursive or named_so else []
            if named_so and not inside:
                raise DataError("is a folder, named like a picture", mend="rename or delete it", file=path)
            if recursive:
                yield from inside
        elif named_so:
            _require_file(child)
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _require_file(entry: os.DirEntry[str]) -> None:
    """A pipe would be waited for without end; a name that is no Unicode can stand in no JSON.

    Raises:
        DataError: it is one of these.
    """
    if not entry.is_symlink() and not entry.is_file():
        raise DataError("is no file, but a pipe or a device", mend="take it away", file=entry.path)
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError("has a name that is no Unicode (UTF-8)", mend="rename it", file=entry.path) from None


def without_ending(path: Path, *, below: Path) -> str:
    """The id of a file: its path below a folder, without its ending, with forward slashes."""
    return path.relative_to(below).with_suffix("").as_posix()


def some(names: Sequence[str], *, most: int = 3) -> str:
    """The first few of many names, for a message."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def told_apart(samples: Sequence[Sample], *, root: Path) -> tuple[tuple[Sample, ...], list[Stray]]:
    """Let no two images share an id: the second one keeps its ending in its id, and is a stray."""
    seen: dict[str, Sample] = {}
    strays = []
    for sample in samples:
        first = seen.setdefault(sample.id, sample)
        if first is not sample:
            renamed = replace(sample, id=sample.image)
            seen[renamed.id] = renamed
            error = DataError(
                f"'{first.image}' and '{sample.image}' share the name '{sample.id}'",
                mend="rename or delete one of them; if one is a mask, put it into a folder named masks",
                file=root,
            )
            strays.append(Stray("double_name", renamed.id, error))
    return tuple(seen.values()), strays


def without_mask(samples: Sequence[Sample], *, root: Path) -> list[Stray]:
    """Where some images are labelled, only those of the test side may go without a mask; here are the others."""
    if not any(sample.mask is not None for sample in samples):
        return []
    bare = [sample for sample in samples if sample.mask is None and sample.split != "test"]
    count = f"{len(bare)} image{'s have' if len(bare) > 1 else ' has'}"
    error = DataError(
        f"{count} no mask: {some([sample.image for sample in bare])}",
        mend="add the masks, take these images away, or move them into a folder named test",
        file=root,
    )
    return [Stray("missing_mask", sample.id, error) for sample in bare]


def require_whole(strays: Iterable[Stray]) -> None:
    """Refuse a source in which something fits nowhere.

    Raises:
        DataError: that of the first stray that cannot be passed over.
    """
    for stray in strays:
        if not stray.harmless:
            raise stray.error
