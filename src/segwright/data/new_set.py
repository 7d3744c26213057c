"""A new data set on disk, made from one that is there: its originals written again, a manifest and a card.

    OUT/data.yaml           a card: `segwright train OUT/data.yaml` just works
    OUT/manifest.csv        image, mask, split, group, and more that is known of each
    OUT/images, OUT/masks   images keep their size and bit depth; masks hold labels 0..K-1 and 255 for void

All is written under a temporary name and renamed at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segwright.data.card import RULES, write_card
from segwright.data.contact_sheet import ContactSheet
from segwright.data.pack import Pack
from segwright.errors import OutputError
from segwright.files import atomic, confined, save_image, sync_folder, write_csv, write_mask
from segwright.pictures import to_png
from segwright.types import ClassSet, ImageArray, MaskArray, SplitName

HEADINGS = ("image", "mask", "split", "group")
"""The columns that a manifest is read by; others may follow."""


@dataclass(frozen=True)
class Originals:
    """The images that are there.

    Attributes:
        pack: all of them.
        classes: of their masks.
        split: side of each id; ids that stand on no side are left out.
        groups: of each image of the pack, or None.
        submission_values: of the classes, where they are known: as the source has them, not as a new mask will.
    """

    pack: Pack
    classes: ClassSet
    split: Mapping[str, SplitName]
    groups: Sequence[str | None]
    submission_values: Sequence[int] | None = None

    def group(self, i: int) -> str:
        """An image without a group is its own."""
        return self.groups[i] or self.pack.ids[i]

    def write(self, i: int, folder: Path) -> Sequence[Any]:
        """Write a picture and its mask as they are; the first cells of their line of the manifest."""
        name, image, mask = self.pack.ids[i], self.pack.image(i), self.pack.mask(i)
        places = write_pair(folder, name, (image, mask), classes=self.classes)
        return *places, self.split[name], self.group(i)


def write_pair(
    folder: Path, name: str, pair: tuple[ImageArray, MaskArray | None], *, classes: ClassSet
) -> tuple[str, str]:
    """Write a picture and its mask, where it has one, and return their places below the folder."""
    image, mask = pair
    place = save_image(confined(folder, f"images/{name}"), image, sync=False)
    if mask is not None:
        write_mask(confined(folder, f"masks/{name}.png"), mask, classes.palette(), sync=False)
    return place.relative_to(folder).as_posix(), "" if mask is None else f"masks/{name}.png"


def write_tables(folder: Path, rows: Sequence[Sequence[Any]], *, more: Sequence[str], originals: Originals) -> None:
    """Write the manifest, whose rows hold the cells of `HEADINGS` and of `more`, and the card."""
    write_csv(folder / "manifest.csv", [(*HEADINGS, *more), *rows])
    write_card(folder / "data.yaml", _card(originals))


def write_sheet(folder: Path, sheet: ContactSheet) -> None:
    """Write the pairs that were collected as contact-sheet.png."""
    with atomic(folder / "contact-sheet.png") as stream:
        stream.write(to_png(sheet.picture()))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that stands under a temporary name while it is filled, and under its own once it is whole.

    Raises:
        OutputError: something of that name is there already, or the disk is full.
    """
    if out.exists():
        raise OutputError("is there already", mend="name a new folder", file=out)
    fresh = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name[:60]}.", suffix=".part"))
        fresh.chmod(0o755)
        yield fresh
        os.sync()  # once for thousands of files, each of which would wait for the disk
        fresh.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        mend = "free some space or choose another folder"
        raise OutputError(f"cannot be written ({error.strerror or error})", mend=mend, file=out) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def counted_bar(shown: bool) -> Progress:
    """A bar that counts images, with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not shown, transient=True, console=Console(stderr=True))


def _card(originals: Originals) -> dict[str, Any]:
    classes = originals.classes
    labels = list(range(classes.num_classes))
    values = labels if originals.submission_values is None else [int(value) for value in originals.submission_values]
    rules = {rule: [classes.names[label] for label in getattr(classes, rule)] for rule in RULES}
    return {
        "source": "manifest.csv",
        "format": "manifest",
        "classes": list(classes.names),
        "colors": [list(color) for color in classes.colors],
        "mask_values": labels,
        "submission_values": [] if values == labels else values,
        **rules,
    }
