"""A CSV manifest: one image a line, under the headings image, mask, split and group (only the first is needed).

    image,mask,split,group
    flight1/0001.jpg,labels/0001.png,train,flight1

Paths are relative to the CSV and stay below its folder. Commas, semicolons and tabs are all taken as separators.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

from segwright.data.sources.classes import find_classes
from segwright.data.sources.listing import SPLIT_WORDS, Listing, Stray, told_apart
from segwright.errors import DataError, nearest
from segwright.files import confined, read_text
from segwright.types import Sample, SplitName

_COLUMNS = ("image", "mask", "split", "group")


def list_manifest(path: Path) -> Listing:
    """Read a manifest; lines with a file that is missing or outside the folder, or with an unknown side, are strays.

    Raises:
        DataError: no column `image`, or no image at all.
    """
    rows = _rows(path)
    headings = {name.strip().lower(): place for place, name in enumerate(rows[0][1] if rows else [])}
    if "image" not in headings:
        raise DataError(
            f"has no column 'image' (its columns are {', '.join(headings) or 'none'})",
            mend="start it with: image,mask,split,group",
            file=path,
        )
    samples: list[Sample] = []
    strays: list[Stray] = []
    for line, row in rows[1:]:
        found = dict(enumerate(cell.strip() for cell in row))
        cells = {name: found.get(headings.get(name, -1), "") for name in _COLUMNS}
        if not any(cells.values()):
            continue
        try:
            if len(row) > len(rows[0][1]):
                mend = "put a name that holds the separator into quotes"
                raise DataError(f"line {line} has more cells than there are columns", mend=mend, file=path)
            samples.append(_sample(cells, line=line, path=path))
        except DataError as error:
            strays.append(Stray("broken_line", _id_of(cells["image"]) or f"line {line}", error))
    if not samples and not strays:
        raise DataError("names no image", mend="write one image a line", file=path)
    different, twins = told_apart(samples, root=path)
    others = [name for name in headings if name and name not in _COLUMNS]
    notes = (f"columns that are not used: {', '.join(others)}",) if others else ()
    hint = find_classes(path.parent)
    files = (path,) if hint is None or hint.file is None else (path, hint.file)
    return Listing(
        root=path.parent, format="manifest", samples=different, notes=notes, files=files, hint=hint,
        strays=(*strays, *twins),
    )  # fmt: skip


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Cells of each line that is not empty, with the number of the line on which they end; the first are the headings.

    Raises:
        DataError: it is no CSV, or two columns have one name.
    """
    text = read_text(path).removeprefix("\ufeff")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    # A cell in quotes may hold line ends of its own, so the text is not cut into lines here.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} is no CSV ({error})", mend="mend it", file=path) from None
    names = [name.strip().lower() for name in rows[0][1] if name.strip()] if rows else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"has two columns '{twice}'", mend="rename one of them", file=path)
    return rows


def _id_of(image: str) -> str:
    path = PurePosixPath(image)
    return path.with_suffix("").as_posix() if path.name else image


def _sample(cells: dict[str, str], *, line: int, path: Path) -> Sample:
    for kind in ("image", "mask"):
        if kind == "image" and not cells[kind]:
            raise DataError(f"line {line} names no image", mend="fill in the column image", file=path)
        if not cells[kind]:
            continue
        try:
            target = confined(path.parent, cells[kind])
        except DataError as error:
            raise DataError(f"line {line}: {error.problem}", mend=error.mend, file=path) from None
        if not target.is_file():
            raise DataError(
                f"line {line} names {kind} '{cells[kind]}', which is not there",
                mend="check the path; it is relative to the CSV",
                file=path,
            )
        cells[kind] = target.relative_to(path.parent).as_posix()
    return Sample(
        id=_id_of(cells["image"]),
        image=cells["image"],
        mask=cells["mask"] or None,
        split=_side(cells["split"], line=line, path=path),
        group=cells["group"] or None,
    )


def _side(word: str, *, line: int, path: Path) -> SplitName | None:
    if not word:
        return None
    if word.lower() not in SPLIT_WORDS:
        raise DataError(f"line {line} has split '{word}'", mend=nearest(word.lower(), SPLIT_WORDS), file=path)
    return SPLIT_WORDS[word.lower()]
