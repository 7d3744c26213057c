"""The table of predictions: JSON lines that remember which files segwright wrote.

A line an image: id, image, mask, prevalent, shares, and `written`, the digest of each file. While images are predicted
the table grows under `.<name>.part`, so that a killed run can be repeated: its files are known as ours. Files that are
written before their image has its line stand there in notes, which are lines without an image.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

from segwright.errors import OutputError
from segwright.files import atomic, digest


def refuse_foreign(table: Path, *, targets: Iterable[Path]) -> None:
    """Make sure that every target is new, or ours and untouched since.

    Raises:
        OutputError: naming the first file that would be lost.
    """
    ours = _ours(table)
    if ours is None:
        raise OutputError("is no table of segwright", mend="choose another folder", file=table)
    seen: set[Path] = set()
    for target in targets:
        if target in seen:
            raise OutputError("would be written twice", mend="give the images different names", file=target)
        seen.add(target)
        if target.exists() and not (target.is_file() and ours.get(target.resolve()) == digest(target)):
            mend = "choose another folder, or move the file away"
            raise OutputError("exists, and segwright did not write it as it is now", mend=mend, file=target)


@final
class PredictionTable:
    """JSON lines that grow as files are written, and stand under their name once all are.

    Rows of an earlier run stay unless the same image is predicted again. Where it fails before any file is written, not
    even the folder is left behind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = _part(path)
        self._images: set[str] = set()
        self._files: dict[str, set[str]] = {}
        self._digests: dict[str, str] = {}
        self._wrote = False

    def __enter__(self) -> PredictionTable:
        for row in (*_rows(self._path), *_rows(self._part)):
            self._files.setdefault(row.get("image", ""), set()).update(row["written"])
            self._digests |= row["written"]
        self._new_folders = [folder for folder in self._path.parents if not folder.exists()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._part.open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror})", mend="choose another", file=self._path) from None
        self._goes_on = self._stream.tell() > 0
        if self._goes_on:
            self._stream.write("\n")  # the last line of a killed run may be cut short
        self._start = self._stream.seek(0, 2)
        return self

    def note(self, written: Mapping[Path, str]) -> None:
        """Keep in mind that files are ours, whose images get their lines later."""
        if written:
            self._write({"id": "", "written": self._named(written)})

    def add(self, row: dict[str, Any], *, written: Mapping[Path, str]) -> None:
        """Add the line of an image."""
        # What an earlier run wrote beside it (an overlay, a mask of an image that is damaged now) stays known as ours;
        # a file that all images share may have been written anew since.
        names = self._files.get(row["image"], set()) | self._named(written).keys()
        self._write({**row, "written": {name: self._digests[name] for name in sorted(names)}})
        self._images.add(row["image"])

    def _named(self, written: Mapping[Path, str]) -> dict[str, str]:
        named = {path.relative_to(self._path.parent).as_posix(): value for path, value in written.items()}
        self._digests |= named
        self._wrote = self._wrote or bool(named)
        return named

    def _write(self, row: dict[str, Any]) -> None:
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._stream.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._stream.seek(self._start)
            with atomic(self._path) as whole:
                whole.writelines(self._kept())
                whole.writelines(line.encode("utf-8") for line in self._stream if not line.startswith(_NOTE))
            self._part.unlink()
        self._stream.close()
        if kind is not None and not self._wrote and not self._goes_on:
            self._part.unlink(missing_ok=True)
            for folder in self._new_folders:
                with contextlib.suppress(OSError):  # the first mask may have been on its way
                    folder.rmdir()

    def _kept(self) -> Iterator[bytes]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as old:
            yield from (line for line in old if line.strip() and json.loads(line)["image"] not in self._images)


def _ours(table: Path) -> dict[Path, str] | None:
    """Digest of each file that earlier runs wrote; None where the table is not ours."""
    known: dict[Path, str] = {}
    for file in (table, _part(table)):
        if not file.exists():
            continue
        if not file.is_file():
            return None
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                written = dict(json.loads(line)["written"]) if line else {}
            except (ValueError, KeyError, TypeError, RecursionError):
                # The growing table of a killed run may end within a line.
                if file == table or not line.startswith(_START[: len(line)]):
                    return None
                continue
            known.update({(table.parent / name).resolve(): str(value) for name, value in written.items()})
    return known


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a table that is ours; those that a killed run cut short are passed over."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in text.split("\n"):
        try:
            row = json.loads(line)
            yield {**row, "written": dict(row["written"])}
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


_START = '{"id": "'
_NOTE = '{"id": "", '
"""How each line begins, and each that is of no image."""


def _part(table: Path) -> Path:
    return table.with_name(f".{table.name}.part")
