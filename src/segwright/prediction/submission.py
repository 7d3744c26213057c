"""Submission files: predicted masks as one CSV, as contests take them.

    labels   id,0,1,...,H*W-1    a line an image: the value of each pixel, row by row; all images are of one size
    runs     id,class,runs       a line an image and class in it: first pixel and length of each run, then of the next;
                                 pixels count from 1, row by row, so `1 3 10 2` are the pixels 1, 2, 3, 10 and 11

Values of pixels and classes are those of the masks that the model was trained on, or that these were made from. Names
stand as they are, with quotes only where CSV asks for them: a contest compares them letter by letter. Both readers give
the masks back, and what was written is read again before it takes its name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from segwright.errors import DataError, OutputError, RunError, brief
from segwright.files import atomic
from segwright.types import MaskArray

CsvForm = Literal["labels", "runs"]
AskedCsvForm = Literal["auto", "labels", "runs"]
Size = tuple[int, int]
"""Height and width in pixels."""

Values = Int64[np.ndarray, "_ _"]
"""Stored values of a mask; masks of one file may differ in size."""

MOST_LABELS = 16_384
"""Tables with more columns are refused by spreadsheets, and runs are much shorter by then."""

RUNS_HEAD = "id,class,runs"


def form_for(sizes: Iterable[Size], *, asked: AskedCsvForm, file: Path) -> CsvForm:
    """The form of a file: as asked, or `labels` where images are small and of one size, else `runs`.

    Raises:
        OutputError: labels are asked for images of several sizes.
    """
    if asked == "runs":
        return "runs"
    first: Size | None = None
    for size in sizes:
        first = first or size
        if size != first and asked == "labels":
            raise _of_several_sizes(first, size, file=file)
        if asked == "auto" and (size != first or size[0] * size[1] > MOST_LABELS):
            return "runs"
    return "labels"


def stored_values(info: Mapping[str, Any], *, num_classes: int) -> tuple[int, ...]:
    """The value of each class in the masks behind a bundle's model, or as their card says; 0..K-1 of masks in colours.

    Raises:
        RunError: what the bundle keeps of them is damaged.
    """
    told = info.get("mask_values")
    if told is None:
        return tuple(range(num_classes))
    whole = isinstance(told, list) and all(type(value) is int and abs(value) < 2**31 for value in told)
    if not whole or len(told) != num_classes or len(set(told)) != num_classes:
        raise RunError(f"the mask values in bundle.json are damaged ({brief(told)})", mend="copy the bundle again")
    return tuple(told)


def write_submission(
    path: Path, masks: Iterable[tuple[str, MaskArray]], *, form: CsvForm, values: Sequence[int]
) -> None:
    """Write masks as they come; one is held at a time. Where there are none, no file is made.

    Args:
        path: the file.
        masks: name and labels 0..K-1 of each image; no name stands twice.
        form: see the head of this file.
        values: what stands for each label.

    Raises:
        OutputError: images differ in size in the form `labels`, the disk is full, or what was written cannot be read
            again as it was.
    """
    coming = iter(masks)
    first = next(coming, None)
    if first is None:
        return
    table = np.array(values, dtype=np.int64)
    size = first[1].shape
    sizes: dict[str, Size] = {}
    digests: list[bytes] = []
    with atomic(path) as stream:
        head = RUNS_HEAD if form == "runs" else ",".join(["id", *map(str, range(first[1].size))])
        stream.write(f"{head}\n".encode())
        for name, mask in chain([first], coming):
            assert name not in sizes, f"'{name}' comes twice"
            if form == "labels" and mask.shape != size:
                raise _of_several_sizes(size, mask.shape, file=path)
            stored = table[mask]
            lines = _label_lines(name, stored) if form == "labels" else _run_lines(name, stored)
            stream.write("".join(lines).encode())
            sizes[name] = mask.shape
            digests.append(_digest(name, stored))
        stream.flush()
        if not _is_same(Path(stream.name), form=form, sizes=sizes, digests=digests):
            raise OutputError(
                "could not be read again as it was written", mend="check the disk, then repeat", file=path
            )


def _of_several_sizes(one: Size, other: Size, *, file: Path) -> OutputError:
    sizes = f"images of {one[0]} x {one[1]} and of {other[0]} x {other[1]} pixels"
    return OutputError(f"would need one column a pixel for {sizes}", mend="take run lengths (--csv runs)", file=file)


def _label_lines(name: str, stored: Values) -> Iterator[str]:
    yield f"{_quoted(name)},{','.join(map(str, stored.ravel().tolist()))}\n"


def _run_lines(name: str, stored: Values) -> Iterator[str]:
    flat = stored.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    runs = np.stack([starts + 1, np.diff(starts, append=flat.size)], axis=1)
    for value in np.unique(flat[starts]).tolist():
        own = runs[flat[starts] == value].ravel().tolist()
        yield f"{_quoted(name)},{value},{' '.join(map(str, own))}\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if re.search(r'[",\r\n]', name) else name


def _is_same(path: Path, *, form: CsvForm, sizes: Mapping[str, Size], digests: Sequence[bytes]) -> bool:
    """Read what was written; a table that a disk spoiled would only be noticed by its score."""
    size = next(iter(sizes.values()))
    read = read_labels_csv(path, size=size) if form == "labels" else read_runs_csv(path, sizes=sizes)
    try:
        return [_digest(name, stored) for name, stored in read] == list(digests)
    except DataError:
        return False


def _digest(name: str, stored: Values) -> bytes:
    return hashlib.blake2b(name.encode() + b"\0" + stored.tobytes(), digest_size=16).digest()


def read_labels_csv(path: Path, *, size: Size) -> Iterator[tuple[str, Values]]:
    """Name and stored values of each image of a file of `labels`, line by line.

    Args:
        path: the file.
        size: height and width of its images, which it does not tell.

    Raises:
        DataError: the file cannot be read, or a line does not fit its head or the size.
    """
    columns = size[0] * size[1]
    lines = _lines(path)
    if next(lines, (1, ""))[1] != ",".join(["id", *map(str, range(columns))]):
        raise DataError(f"is no table of {columns} labels an image", mend="its head is id,0,1,2 ...", file=path)
    seen: set[str] = set()
    for number, line in lines:
        name, rest = _named(line, number=number, path=path)
        labels = _numbers(rest.split(","), number=number, path=path)
        if labels.size != columns:
            raise _fault(f"has {labels.size} labels for {columns} pixels", number=number, path=path)
        if name in seen:
            raise _fault(f"names '{name}' for the second time", number=number, path=path)
        seen.add(name)
        yield name, labels.reshape(size)


def read_runs_csv(path: Path, *, sizes: Size | Mapping[str, Size]) -> Iterator[tuple[str, Values]]:
    """Name and stored values of each image of a file of `runs`, image by image.

    Args:
        path: the file; the lines of an image follow one another.
        sizes: height and width of all images, or of each by its name.

    Raises:
        DataError: the file cannot be read, or the runs of an image do not cover each of its pixels once.
    """
    lines = _lines(path)
    if next(lines, (1, ""))[1] != RUNS_HEAD:
        raise DataError("is no table of runs", mend=f"its head is {RUNS_HEAD}", file=path)
    named = ((number, *_named(line, number=number, path=path)) for number, line in lines)
    seen: set[str] = set()
    for name, rows in groupby(named, key=lambda row: row[1]):
        texts = [(number, rest) for number, _, rest in rows]
        number = texts[0][0]
        size = sizes if isinstance(sizes, tuple) else sizes.get(name)
        if name in seen or size is None:
            fault = f"comes back to '{name}'" if name in seen else f"names '{name}', whose size is not known"
            raise _fault(fault, number=number, path=path)
        seen.add(name)
        yield name, _painted(texts, size=size, path=path)


def _painted(texts: Sequence[tuple[int, str]], *, size: Size, path: Path) -> Values:
    """One image from its lines, `class,runs` each."""
    pixels = size[0] * size[1]
    flat, known, classes = np.zeros(pixels, dtype=np.int64), np.zeros(pixels, dtype=bool), set()
    for number, text in texts:
        value, _, runs = text.partition(",")
        label, numbers = (
            _numbers([value], number=number, path=path)[0],
            _numbers(runs.split(), number=number, path=path),
        )
        starts, lengths = numbers[::2] - 1, numbers[1::2]
        if not numbers.size or numbers.size % 2 or label in classes:
            fault = f"gives class {label} twice" if label in classes else "holds no pairs of first pixel and length"
            raise _fault(fault, number=number, path=path)
        classes.add(label)
        outside = (starts < 0) | (starts >= pixels) | (lengths < 1) | (lengths > pixels - starts)
        if outside.any():
            run = f"{starts[outside][0] + 1} {lengths[outside][0]}"
            raise _fault(f"holds a run ({run}) beyond the image's {pixels} pixels", number=number, path=path)
        before, total = int(known.sum()), int(lengths.sum())
        if before + total <= pixels:  # else the places of all runs might not fit into the memory
            places = np.arange(total) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
            flat[places], known[places] = label, True
        if int(known.sum()) != before + total:
            raise _fault("names a pixel that has a class already", number=number, path=path)
    if not known.all():
        fault = f"ends an image whose pixel {int(np.argmin(known)) + 1} has no class"
        raise _fault(fault, number=texts[-1][0], path=path)
    return flat.reshape(size)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line; a quoted name may hold the end of one."""
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            text, start = "", 1
            for number, line in enumerate(stream, start=1):
                text += line
                if text.count('"') % 2 == 0:
                    yield start, text.removesuffix("\n").removesuffix("\r")
                    text, start = "", number + 1
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", mend="check the path", file=path) from None
    except UnicodeDecodeError:
        raise DataError("is no UTF-8 text", mend="check that this is the right file", file=path) from None
    if text:
        raise _fault("has a quote that does not end", number=start, path=path)


_LINE = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*)),(.*)', re.DOTALL)


def _named(line: str, *, number: int, path: Path) -> tuple[str, str]:
    """The name that a line begins with, and the rest."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise _fault("does not begin with a name", number=number, path=path)
    quoted, plain, rest = found.groups()
    return (plain if quoted is None else quoted.replace('""', '"')), rest


def _numbers(texts: Sequence[str], *, number: int, path: Path) -> Int64[np.ndarray, " M"]:
    try:
        return np.fromiter(map(int, texts), dtype=np.int64, count=len(texts))
    except (ValueError, OverflowError):
        raise _fault("holds something that is no whole number", number=number, path=path) from None


def _fault(problem: str, *, number: int, path: Path) -> DataError:
    return DataError(f"line {number} {problem}", mend="write the file again", file=path)
