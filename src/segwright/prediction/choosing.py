"""Which images of a source are predicted, and what a submission file calls them.

A file may hold several arrays: some to learn from and some to predict. One is chosen by its key; else those without
masks are taken where there are any, for masks are what is wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import ExifTags

from segwright.data.sources import Source, open_source
from segwright.errors import DataError, SegwrightError, nearest
from segwright.files import open_picture
from segwright.types import Sample

_LYING = (5, 6, 7, 8)
"""Values of the EXIF note by which height and width change places."""

_PNG_MARK = b"\x89PNG\r\n\x1a\n"


def open_images(path: Path, *, key: str | None) -> Source:
    """Open a source for its images alone.

    Args:
        path: anything that can be trained on, and pictures without masks.
        key: the array to take; None for those without masks, or all where every one has masks or none has.

    Raises:
        DataError: it holds no images, or no such array.
    """
    opened = open_source(path, masks=False)
    if not opened.samples:
        raise DataError("holds no images", mend="give a picture, a folder of pictures or an npz", file=path)
    if opened.format != "arrays":
        if key is None:
            return opened
        raise DataError(f"is no file of arrays, so there is no '{key}' in it", mend="leave the key out", file=path)
    keys = tuple(dict.fromkeys(sample.image for sample in opened.samples))
    if key is not None and key not in keys:
        raise DataError(f"holds no images named '{key}'", mend=nearest(key, keys), file=path)
    bare = tuple(one for one in keys if one not in opened.arrays.mask_of)
    chosen = bare or keys if key is None else (key,)
    samples = tuple(sample for sample in opened.samples if sample.image in chosen)
    left = [one for one in keys if one not in chosen]
    told = f"{', '.join(chosen)} of {', '.join(keys)} is predicted; --key takes another"
    return replace(opened, samples=samples, notes=(*opened.notes, told) if left and key is None else opened.notes)


def submission_names(samples: Sequence[Sample], *, file: Path) -> tuple[str, ...]:
    """What a submission file calls each image: its number in its array, or its file's name.

    Where two files share a name, all are called by their paths below the source.

    Raises:
        DataError: rows of several arrays would share their numbers.
    """
    if len({sample.image for sample in samples if sample.row is not None}) > 1:
        keys = ", ".join(dict.fromkeys(sample.image for sample in samples))
        raise DataError(f"holds several arrays of images: {keys}", mend="choose one with --key", file=file)
    names = [PurePosixPath(sample.image).name if sample.row is None else str(sample.row) for sample in samples]
    twice = max(Counter(names).values()) > 1
    return tuple(sample.image for sample in samples) if twice else tuple(names)


def sizes_of(source: Source) -> Iterator[tuple[int, int]]:
    """Height and width of each image, mostly by its header alone; images that cannot be read are passed over."""
    for sample in source.samples:
        try:
            yield _size(source, sample)
        except SegwrightError:
            continue


def _size(source: Source, sample: Sample) -> tuple[int, int]:
    if sample.row is not None:
        height, width = source.arrays.images[sample.image].shape[2:]
        return height, width
    place = source.root / sample.image
    try:
        with open_picture(place, decode=False) as picture:
            size = (picture.height, picture.width)
            # Of a PNG, Pillow decodes all pixels to see whether a note follows them.
            upright = size[0] == size[1] or (
                picture.format == "PNG" and not _noted(picture.info) and not _has_notes_at_its_end(place)
            )
            lies = not upright and picture.getexif().get(ExifTags.Base.Orientation) in _LYING
            return size[::-1] if lies else size
    except SegwrightError:  # Pillow cannot hold every TIFF
        image = source.read_image(sample)
        return image.shape[1], image.shape[2]


def _noted(info: Mapping[Any, Any]) -> bool:
    """Whether Pillow has met with a place where the orientation may stand."""
    return any(str(key).lower().endswith(("exif", "xmp")) for key in info)


def _has_notes_at_its_end(png: Path) -> bool:
    """Whether a PNG keeps anything behind its pixels, by the heads of its chunks alone."""
    with png.open("rb") as stream:
        stream.seek(len(_PNG_MARK))
        behind = False
        while len(head := stream.read(8)) == 8:
            kind = head[4:]
            if behind and kind not in (b"IDAT", b"IEND"):
                return True
            behind = behind or kind == b"IDAT"
            stream.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False
