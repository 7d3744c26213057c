"""Arrays of NumPy on disk; nothing is unpickled."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib import format as npy

from segwright.errors import DataError
from segwright.files.disk import atomic


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed npz."""
    with atomic(path) as stream:
        np.savez_compressed(stream, **dict(arrays))  # type: ignore[arg-type]  # the stub takes the first name for `allow_pickle`


def read_arrays(path: Path, *, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an npz, or those of some names, or an npy as `{"array": ...}`; never unpickles.

    Raises:
        DataError: the file is missing, damaged, or holds Python objects.
    """
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as stream:
            if not stream.peek(len(_ZIP)).startswith(_ZIP):
                return {"array": np.asarray(npy.read_array(stream, allow_pickle=False))}
            with zipfile.ZipFile(stream) as archive:
                keys = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
                return {key: _unpacked(archive, name) for key, name in keys.items() if names is None or key in names}
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", mend="check the path", file=path) from None
    except MemoryError as error:
        mend = "save the images in smaller files, or as pictures in a folder"
        raise DataError(f"does not fit into the memory ({error})", mend=mend, file=path) from None
    except Exception as error:  # NumPy and zipfile raise many kinds on damaged files
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise DataError(
                "holds Python objects, which could run code when read",
                mend="save plain numeric arrays, all images of one size",
                file=path,
            ) from error
        raise DataError(
            f"is damaged or no NumPy file ({error})", mend="write it again with numpy.savez", file=path
        ) from error


_SMALL_BYTES = 1 << 20
_HEAD_BYTES = 10
_ZIP = b"PK"


def _unpacked(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz; a small one in one piece, in half of NumPy's time: tables read thousands of them."""
    if archive.getinfo(name).file_size > _SMALL_BYTES:
        with archive.open(name) as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False))
    content = archive.read(name)
    size = _HEAD_BYTES + int.from_bytes(content[8:_HEAD_BYTES], "little")
    if not content.startswith(npy.magic(1, 0)):
        return np.asarray(npy.read_array(io.BytesIO(content), allow_pickle=False))
    shape, is_fortran, dtype = _head(content[:size])
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    return np.ndarray(shape, dtype, buffer=content, offset=size, order=order).copy(order="K")


@lru_cache(maxsize=64)
def _head(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the columns come first, and kind of numbers."""
    stream = io.BytesIO(head)
    npy.read_magic(stream)
    return npy.read_array_header_1_0(stream)
