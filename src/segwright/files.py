"""Files: images, masks, arrays, JSON and YAML; read safely, written atomically.

Everything is written under a temporary name in the same folder, synced and renamed, and the folder is synced: a killed
run or a power cut leaves either the old file or the new one. Nothing read here can run code: arrays without pickle,
YAML by the safe loader.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import yaml
from PIL import Image, ImageOps, UnidentifiedImageError

from segwright.errors import DataError, OutputError, SegwrightError
from segwright.types import ImageArray

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
MAX_IMAGE_PIXELS = 1_000_000_000
"""A 30,000-pixel square is allowed; a picture that claims more is refused before it is decoded (decompression bomb)."""

_HIGH_DEPTH = {"I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16, "F": np.float32}


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` whole, or not at all.

    Raises:
        OutputError: the folder cannot be written to or the disk is full.
    """
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror or error})", mend="free some space or choose another folder", file=path
        ) from error
    finally:
        if name and os.path.exists(name):
            os.unlink(name)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as stream:
        stream.write(text.encode("utf-8"))


def write_json(path: Path, tree: Any) -> None:
    """Write JSON; NaN and infinity become null, because no other reader takes them."""
    write_text(path, json.dumps(_finite(tree), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(tree: Any) -> Any:
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    if isinstance(tree, Mapping):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_finite(value) for value in tree]
    return tree


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DataError: the file is missing or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"is no JSON ({error.msg} at line {error.lineno})", mend="mend or delete the file", file=path
        ) from None


def write_yaml(path: Path, tree: Any) -> None:
    write_text(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def read_yaml(path: Path) -> Any:
    """Read YAML with the safe loader.

    Raises:
        DataError: the file is missing or is no YAML.
    """
    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"is no YAML ({reason})", mend="mend the line that is named", file=path) from None


def read_text(path: Path) -> str:
    """Read a UTF-8 text.

    Raises:
        DataError: the file is missing, unreadable or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", mend="check the path", file=path) from None
    except UnicodeDecodeError:
        raise DataError("is no UTF-8 text", mend="check that this is the right file", file=path) from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed npz."""
    with atomic(path) as stream:
        np.savez_compressed(stream, **dict(arrays))  # type: ignore[arg-type]  # the stub takes the first name for `allow_pickle`


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an npz, or an npy as `{"array": ...}`; never unpickles.

    Raises:
        DataError: the file is missing, damaged, or holds Python objects.
    """
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"array": loaded}
            return {key: loaded[key] for key in loaded.files}
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", mend="check the path", file=path) from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise DataError(
                "holds Python objects, which could run code when read",
                mend="save plain numeric arrays, all images of one size",
                file=path,
            ) from None
        raise DataError(
            f"is damaged or no NumPy file ({error})", mend="write it again with numpy.savez", file=path
        ) from None


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
    with open_picture(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in _HIGH_DEPTH:
            return np.asarray(np.array(upright).astype(_HIGH_DEPTH[upright.mode])[None])
        if upright.mode == "I":
            return np.asarray(np.clip(np.array(upright), 0, 65535).astype(np.uint16)[None])
        if upright.mode in ("1", "L", "LA"):
            return np.array(upright.convert("L"), dtype=np.uint8)[None]
        wanted = "RGBA" if upright.mode == "RGBA" else "RGB"
        return np.ascontiguousarray(np.array(upright.convert(wanted), dtype=np.uint8).transpose(2, 0, 1))


def read_raw_mask(path: Path) -> np.ndarray:
    """Read a mask's stored values: (H, W) integers (palette indices stay indices), or (H, W, 3) colours.

    Raises:
        DataError: as `read_image`.
    """
    with open_picture(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode == "1":
            return np.array(upright, dtype=np.uint8)
        if upright.mode in ("P", "L"):
            return np.array(upright, dtype=np.uint8)
        if upright.mode == "LA":
            return np.array(upright.getchannel(0), dtype=np.uint8)
        if upright.mode in ("I", *_HIGH_DEPTH):
            return np.array(upright).astype(np.int64)
        return np.array(upright.convert("RGB"), dtype=np.uint8)


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open and decode a picture; everything Pillow may raise becomes one `DataError`."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > MAX_IMAGE_PIXELS:
                raise DataError(
                    f"claims {width} x {height} pixels, more than {MAX_IMAGE_PIXELS:,}",
                    mend="cut it into pieces; if it is small on disk, do not trust it",
                    file=path,
                )
            picture.load()
            yield picture
    except SegwrightError:
        raise
    except FileNotFoundError:
        raise DataError("is missing", mend="check the path", file=path) from None
    except UnidentifiedImageError:
        raise DataError("is empty or no picture", mend="delete it or save it again as PNG", file=path) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot be decoded ({error})", mend="the file seems cut short; copy it again", file=path
        ) from None


# Pillow's own limit is a third of ours and only warns; `open_picture` decides before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


def _read_many_bands(path: Path) -> ImageArray | None:
    """A TIFF that Pillow cannot hold (over four bands, or 16-bit colour) as (C, H, W); None where Pillow can."""
    import tifffile  # noqa: PLC0415  # only needed for such files, and slow to import

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


def write_mask(path: Path, mask: np.ndarray, palette: np.ndarray) -> None:
    """Write (H, W) labels as an indexed PNG whose palette shows the class colours; label 255 is white."""
    picture = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8), mode="P")
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    if len(palette) < 256:
        table[255] = 255
    picture.putpalette(table.tobytes())
    with atomic(path) as stream:
        picture.save(stream, format="PNG", optimize=False)


def digest(path: Path) -> str:
    """BLAKE2 of a file's bytes, read in pieces."""
    total = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def confined(root: Path, relative: str) -> Path:
    """`root / relative` without any `..`, refused where that would leave `root`, by its words or by a link.

    Raises:
        DataError: the path is absolute or climbs out of its folder.
    """
    plain = Path(os.path.normpath(relative))
    leaves = plain.is_absolute() or plain.parts[:1] == (os.pardir,)
    if leaves or not (root / plain).resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"path '{relative}' leaves its folder", mend="use paths below the file that names them", file=root
        )
    return root / plain
