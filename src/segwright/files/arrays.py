"""Arrays of NumPy on disk; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

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
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"array": loaded}
            return {key: loaded[key] for key in loaded.files if names is None or key in names}
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
