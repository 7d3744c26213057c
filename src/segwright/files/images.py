"""Pictures and masks: decoded whole, in their own depth, or refused with what is wrong."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segwright.errors import DataError, SegwrightError
from segwright.files.disk import atomic
from segwright.types import ImageArray

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
MAX_IMAGE_PIXELS = 1_000_000_000
"""A 30,000-pixel square is allowed; a picture that claims more is refused before it is decoded (decompression bomb)."""

LARGE_IMAGE_PIXELS = 100_000_000
"""Before a picture of more is decoded, it is said how much memory that takes."""

_log = logging.getLogger(__name__)
_HIGH_DEPTH = {"I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16, "F": np.float32}


def read_image(path: Path) -> ImageArray:
    """Read a picture as (C, H, W): upright by its EXIF note, palettes as colours, in its own bit depth.

    Raises:
        DataError: the file is missing, empty, truncated, no picture, or larger than `MAX_IMAGE_PIXELS`.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        bands = _read_many_bands(path)
        if bands is not None:
            return bands
    if path.suffix.lower() == ".png" and _is_deep_png(path):
        return _read_deep_png(path)
    with open_picture(path) as upright:
        ImageOps.exif_transpose(upright, in_place=True)
        if upright.mode in _HIGH_DEPTH:
            return np.asarray(np.array(upright).astype(_HIGH_DEPTH[upright.mode])[None])
        if upright.mode == "I":
            return np.asarray(np.clip(np.array(upright), 0, 65535).astype(np.uint16)[None])
        if upright.mode in ("1", "L", "LA"):
            return _pixels(upright, mode="L")[None]
        return _pixels(upright, mode="RGBA" if upright.mode == "RGBA" else "RGB").transpose(2, 0, 1)


def read_raw_mask(path: Path) -> np.ndarray:
    """Read a mask's stored values: (H, W) integers (palette indices stay indices), or (H, W, 3) colours.

    Raises:
        DataError: as `read_image`.
    """
    with open_picture(path) as upright:
        ImageOps.exif_transpose(upright, in_place=True)
        if upright.mode == "1":
            return np.array(upright, dtype=np.uint8)
        if upright.mode in ("P", "L"):
            return _pixels(upright, mode=upright.mode)
        if upright.mode == "LA":
            return np.array(upright.getchannel(0), dtype=np.uint8)
        if upright.mode in ("I", *_HIGH_DEPTH):
            return np.array(upright).astype(np.int64)
        return _pixels(upright, mode="RGB")


def read_palette(path: Path) -> list[int] | None:
    """Red, green and blue of each index of a palette picture, one after the other; None where there is no palette.

    Raises:
        DataError: as `read_image`.
    """
    with open_picture(path, decode=False) as picture:
        return picture.getpalette("RGB") if picture.mode == "P" else None


def decoded_bytes(path: Path) -> int:
    """About what a picture takes in memory while it is decoded, by its header alone; 0 where it cannot be told.

    Pillow holds four bytes a pixel, and the array that is made of them comes on top.
    """
    try:
        with open_picture(path, decode=False) as picture:
            return 8 * picture.width * picture.height
    except DataError:
        return 0


def _pixels(picture: Image.Image, *, mode: str) -> np.ndarray:
    """Bytes (H, W) or (H, W, C) of a decoded picture, four times as fast as `np.array` and without its second copy.

    Strips of rows stay in the processor's cache on their way through Pillow's hands.
    """
    if picture.mode != mode:
        picture = picture.convert(mode)
    width, height = picture.size
    rows = max(1, _STRIP_BYTES // (width * len(mode)))
    if rows >= height:
        return np.array(picture)
    pixels = np.empty((height, width, len(mode)) if len(mode) > 1 else (height, width), dtype=np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    return pixels


_STRIP_BYTES = 1 << 18


@contextmanager
def open_picture(path: Path, *, decode: bool = True) -> Iterator[Image.Image]:
    """Open and decode a picture, or read its header alone; everything Pillow may raise becomes one `DataError`."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > MAX_IMAGE_PIXELS:
                raise DataError(
                    f"claims {width} x {height} pixels, more than {MAX_IMAGE_PIXELS:,}",
                    mend="cut it into pieces; if it is small on disk, do not trust it",
                    file=path,
                )
            if decode:
                if width * height > LARGE_IMAGE_PIXELS and picture.size not in _told:
                    _told.add(picture.size)
                    gibibytes = width * height * _BYTES_A_PIXEL.get(picture.mode, 8) / 2**30
                    _log.warning("%s: %d x %d pixels take up to %.1f GiB to read", path, width, height, gibibytes)
                picture.load()
            yield picture
    except SegwrightError:
        raise
    except FileNotFoundError:
        link = "is a link to a file that is not there" if path.is_symlink() else "is missing"
        raise DataError(link, mend="check the path", file=path) from None
    except UnidentifiedImageError:
        raise DataError("is empty or no picture", mend="delete it or save it again as PNG", file=path) from None
    except Exception as error:  # Pillow raises many kinds on damaged files
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"cannot be read ({error.strerror})", mend="check the file", file=path) from error
        if isinstance(error, MemoryError):
            raise DataError("does not fit into the memory", mend="cut it into pieces", file=path) from error
        raise DataError(
            f"cannot be decoded ({error})", mend="the file seems cut short; copy it again", file=path
        ) from error


_BYTES_A_PIXEL = {"1": 3, "L": 2}
_told: set[tuple[int, int]] = set()
"""Sizes that were spoken of: a folder of a hundred such pictures needs one word."""


# Pillow's own limit is a third of ours and only warns; `open_picture` decides before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


def _read_many_bands(path: Path) -> ImageArray | None:
    """A TIFF that Pillow cannot hold (over four bands, or 16-bit colour) as (C, H, W); None where Pillow can."""
    import tifffile  # noqa: PLC0415  # only needed for such files, and slow to import

    _refuse_endless_pages(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.series[0]
            photometric = getattr(tiff.pages.first.photometric, "name", "")
            colours = photometric == "RGB" and page.shape[-1] == 3
            plain = page.dtype == np.uint8 and (page.ndim == 2 or colours or photometric == "PALETTE")
            if plain or page.ndim not in (2, 3) or page.dtype not in (np.uint8, np.uint16, np.float32):
                return None
            if math.prod(page.shape) > MAX_IMAGE_PIXELS * 4:
                raise DataError(f"claims {page.shape} values", mend="cut it into pieces", file=path)
            array = page.asarray()
    except SegwrightError:
        raise
    except Exception as error:  # tifffile raises many kinds on damaged files
        # Pillow would quietly give eight bits and three bands of what it can read of such a file.
        raise DataError(f"cannot be decoded ({error})", mend="copy it again, or save it as PNG", file=path) from error
    if array.ndim == 2:
        return array[None]
    return np.ascontiguousarray(array if array.shape[0] < array.shape[-1] else array.transpose(2, 0, 1))


def _refuse_endless_pages(path: Path) -> None:
    """A damaged TIFF whose list of pages leads back to itself would be read forever.

    Raises:
        DataError: it does.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
            order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
            large = head[2:4] in (b"+\0", b"\0+")
            count_bytes, entry_bytes, place_bytes = (8, 20, 8) if large else (2, 12, 4)
            place = int.from_bytes(head[8:16] if large else head[4:8], order)
            seen: set[int] = set()
            while place:
                if place in seen:
                    raise DataError(
                        "its pages lead back to themselves", mend="copy it again, or save it as PNG", file=path
                    )
                seen.add(place)
                stream.seek(place)
                count = int.from_bytes(stream.read(count_bytes), order)
                stream.seek(place + count_bytes + count * entry_bytes)
                place = int.from_bytes(stream.read(place_bytes), order)
    except OverflowError:
        raise DataError("its pages lie beyond its end", mend="copy it again, or save it as PNG", file=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", mend="check the path", file=path) from None


def _is_deep_png(path: Path) -> bool:
    """Whether a PNG holds 16-bit colours, of which Pillow keeps eight bits: bytes 24 and 25 of its header."""
    try:
        with path.open("rb") as stream:
            header = stream.read(26)
    except OSError:
        return False
    return header[:8] == b"\x89PNG\r\n\x1a\n" and header[24:25] == b"\x10" and header[25:26] in b"\x02\x04\x06"


def _read_deep_png(path: Path) -> ImageArray:
    with open_picture(path):
        pass  # size and wholeness are checked there
    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise DataError("cannot be decoded", mend="save it again as PNG", file=path)
    order = [2, 1, 0, 3][: array.shape[2]]
    return np.ascontiguousarray(array.transpose(2, 0, 1)[order])


def save_image(stem: Path, image: ImageArray, *, sync: bool = True) -> Path:
    """Write (C, H, W) without loss, so that `read_image` gives it back; the path with its ending.

    Bytes and 16-bit values of one, three or four channels become a PNG, all else a TIFF. For `sync`, see `atomic`.
    """
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(len(image))
    if order is not None and image.dtype in (np.uint8, np.uint16):
        path = stem.with_name(f"{stem.name}.png")
        done, packed = cv2.imencode(".png", np.ascontiguousarray(image.transpose(1, 2, 0)[:, :, order]))
        assert done, "OpenCV packs every such array"
        content = packed.tobytes()
    else:
        path, content = stem.with_name(f"{stem.name}.tif"), _as_tiff(image)
    with atomic(path, sync=sync) as stream:
        stream.write(content)
    return path


def _as_tiff(image: ImageArray) -> bytes:
    import tifffile  # noqa: PLC0415  # only needed for such images, and slow to import

    stream = io.BytesIO()  # tifffile asks a file for its name, which one without a path has not
    if len(image) == 1:
        tifffile.imwrite(stream, image[0], photometric="minisblack")
    else:
        tifffile.imwrite(stream, np.ascontiguousarray(image), photometric="minisblack", planarconfig="separate")
    return stream.getvalue()


def write_mask(path: Path, mask: np.ndarray, palette: np.ndarray, *, sync: bool = True) -> None:
    """Write (H, W) labels as an indexed PNG whose palette shows the class colours; label 255 is white.

    For `sync`, see `atomic`.
    """
    picture = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8), mode="P")
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    if len(palette) < 256:
        table[255] = 255
    picture.putpalette(table.tobytes())
    with atomic(path, sync=sync) as stream:
        picture.save(stream, format="PNG", optimize=False)
