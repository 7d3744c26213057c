"""Downloading public data sets, through torchvision alone: it knows their addresses and checks what arrives.

    voc2007, voc2012    the development kits as they are
    oxford-pets         images/ and annotations/, and beside them a table of the pairs and a card that reads the trimaps

All is downloaded into a folder of its own, which is renamed when it is whole and removed when it is not.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from torchvision import datasets

from segwright.data.card import write_card
from segwright.data.public_sets import known_set, require_downloadable
from segwright.errors import DataError, OutputError
from segwright.files import read_text, sync_folder, write_csv

STALL_SECONDS = 60.0
"""A network that is silent for so long has gone."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

_PET_CARD = """\
# The Oxford-IIIT Pet Dataset, https://www.robots.ox.ac.uk/~vgg/data/pets/
# To leave the border out of loss and score: classes [pet, background], mask_values [1, 2], void_values [3].
"""


def fetch(name: str, folder: Path) -> Path:
    """Download a data set, if it is not there yet.

    Args:
        name: of `segwright.data.public_sets.PUBLIC_SETS`.
        folder: that it is put into.

    Returns:
        What to train on.

    Raises:
        DataError: no set has this name, it is to be had elsewhere, or the network fails.
        OutputError: the disk is full, or the folder cannot be written to.
    """
    known = known_set(name)
    place = folder / known.place
    if place.exists():
        return place
    require_downloadable(name, folder)
    top = place.parent if place.suffix else place
    if top.exists():
        problem = f"is in the way: it is no '{name}' as it is downloaded"
        raise OutputError(problem, mend="move it away, or choose another folder with -o", file=top)
    by_hand = f"or get it from {known.page} and unpack it as {top}"
    if os.environ.get("SEGWRIGHT_OFFLINE", "").lower() in ("1", "true", "yes"):
        raise DataError(f"'{name}' is not here, and SEGWRIGHT_OFFLINE is set", mend=f"unset it, {by_hand}", file=place)
    with _workshop(folder) as work:
        try:
            with _patience(STALL_SECONDS):
                made = _LOADERS[name](work)
        except (OSError, HTTPException, RuntimeError, EOFError, tarfile.TarError) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                problem = f"cannot be written to ({error.strerror})"
                raise OutputError(problem, mend="free some space or choose another folder", file=folder) from None
            reason = error.reason if isinstance(error, URLError) else error
            problem = f"'{name}' cannot be downloaded ({reason})"
            raise DataError(problem, mend=f"try again with a network, {by_hand}", file=place) from None
        _put(made, folder / made.relative_to(work))
    return place


def _voc2007(work: Path) -> Path:
    for image_set in ("trainval", "test"):
        datasets.VOCSegmentation(str(work), year="2007", image_set=image_set, download=True)
    return work / "VOCdevkit" / "VOC2007"


def _voc2012(work: Path) -> Path:
    datasets.VOCSegmentation(str(work), year="2012", image_set="trainval", download=True)
    return work / "VOCdevkit" / "VOC2012"


def _oxford_pets(work: Path) -> Path:
    datasets.OxfordIIITPet(str(work), target_types="segmentation", download=True)
    root = work / "oxford-iiit-pet"
    for archive in root.glob("*.tar.gz"):
        archive.unlink()
    rows = [("image", "mask", "split")]
    for side, file in (("", "trainval.txt"), ("test", "test.txt")):
        ids = [line.split()[0] for line in read_text(root / "annotations" / file).splitlines() if line.strip()]
        rows += [(f"images/{one}.jpg", f"annotations/trimaps/{one}.png", side) for one in ids]
    write_csv(root / "pairs.csv", rows)
    tree = {"source": "pairs.csv", "classes": ["pet", "background", "border"], "mask_values": [1, 2, 3]}
    write_card(root / "data.yaml", tree, head=_PET_CARD)
    return root


_LOADERS: dict[str, Callable[[Path], Path]] = {
    "voc2007": _voc2007,
    "voc2012": _voc2012,
    "oxford-pets": _oxford_pets,
}


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, with those that were made for it and stayed empty."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder, prefix=".fetching-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for one in made:
            with suppress(OSError):
                one.rmdir()


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let no connection wait without end; torchvision sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _put(made: Path, place: Path) -> None:
    """Give what is whole its name.

    Raises:
        OutputError: something else has this name already.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(place)
    except OSError as error:
        mend = "move it away, or choose another folder with -o"
        raise OutputError(f"is in the way ({error.strerror})", mend=mend, file=place) from None
    sync_folder(place.parent)
