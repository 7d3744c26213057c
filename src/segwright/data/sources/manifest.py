"""A CSV manifest: one image a line, under the headings image, mask, split and group (only the first is needed).

    image,mask,split,group
    flight1/0001.jpg,labels/0001.png,train,flight1

Paths are relative to the CSV and stay below its folder. Commas, semicolons and tabs are all taken as separators.
"""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from segwright.data.sources.classes import find_classes
from segwright.data.sources.listing import SPLIT_WORDS, Listing, require_unique_ids
from segwright.errors import DataError, nearest
from segwright.files import confined, read_text
from segwright.types import Sample, SplitName

_COLUMNS = ("image", "mask", "split", "group")


def list_manifest(path: Path) -> Listing:
    """Read a manifest.

    Raises:
        DataError: no column `image`, a file that is missing or outside the folder, an unknown side, an image twice.
    """
    text = read_text(path).removeprefix("\ufeff")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.DictReader(text.splitlines(), delimiter=separator, skipinitialspace=True)
    headings = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    if "image" not in headings:
        raise DataError(
            f"has no column 'image' (its columns are {', '.join(headings) or 'none'})",
            mend="start it with: image,mask,split,group",
            file=path,
        )
    samples = []
    for line, row in enumerate(reader, start=2):
        cells = {name: (row.get(headings.get(name, "")) or "").strip() for name in _COLUMNS}
        if any(cells.values()):
            samples.append(_sample(cells, line=line, path=path))
    if not samples:
        raise DataError("names no image", mend="write one image a line", file=path)
    require_unique_ids(samples, root=path)
    others = [name for name in headings if name and name not in _COLUMNS]
    notes = (f"columns that are not used: {', '.join(others)}",) if others else ()
    hint = find_classes(path.parent)
    files = (path,) if hint is None or hint.file is None else (path, hint.file)
    return Listing(root=path.parent, format="manifest", samples=tuple(samples), notes=notes, files=files, hint=hint)


def _sample(cells: dict[str, str], *, line: int, path: Path) -> Sample:
    for kind in ("image", "mask"):
        if kind == "image" and not cells[kind]:
            raise DataError(f"line {line} names no image", mend="fill in the column image", file=path)
        if not cells[kind]:
            continue
        target = confined(path.parent, cells[kind])
        if not target.is_file():
            raise DataError(
                f"line {line} names {kind} '{cells[kind]}', which is not there",
                mend="check the path; it is relative to the CSV",
                file=path,
            )
        cells[kind] = target.relative_to(path.parent).as_posix()
    return Sample(
        id=PurePosixPath(cells["image"]).with_suffix("").as_posix(),
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
