"""What a model says of images that it was not trained on, as a file: probabilities of every class at every pixel.

One npz: `ids` (texts), `classes` (texts), and for the image at place i an array `p<i>` (K, h, w) uint8, probabilities
times 255, at the size of the image or scaled down. Arrays are read one at a time, so a file may be larger than memory.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from segwright.errors import DataError
from segwright.files import atomic

FULL = 255
LONGER_SIDE_PX = 512
"""Probabilities of larger images are kept at this size; borders between classes are not told finer than that."""


class Opinions:
    """An open file of probabilities; see `open_opinions`.

    Attributes:
        ids: of the images.
        classes: names, in the order of the first axis.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self.ids = tuple(str(name) for name in self._array("ids").tolist())
        self.classes = tuple(str(name) for name in self._array("classes").tolist())
        self._places = {name: place for place, name in enumerate(self.ids)}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def of(self, name: str) -> Float32[np.ndarray, "K h w"]:
        """The probabilities of an image, at least half a step of the file, so that their logarithm is finite.

        Raises:
            DataError: the array is of another form.
        """
        array = self._array(f"p{self._places[name]}")
        if array.ndim != 3 or array.dtype != np.uint8 or len(array) != len(self.classes):
            problem = f"holds {array.dtype} {array.shape} for image '{name}'"
            raise DataError(problem, mend=f"give uint8 ({len(self.classes)}, rows, columns)", file=self._path)
        return np.maximum(array.astype(np.float32) / FULL, 0.5 / FULL)

    def _array(self, key: str) -> np.ndarray:
        try:
            data = self._archive.read(f"{key}.npy")
            return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
        except KeyError:
            raise DataError(f"has no array '{key}'", mend=_FORM, file=self._path) from None
        except (ValueError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"array '{key}' is damaged ({error})", mend=_FORM, file=self._path) from None


_FORM = "let segwright audit --quick write the file"


@contextmanager
def open_opinions(path: Path) -> Iterator[Opinions]:
    """Open a file of probabilities.

    Raises:
        DataError: it is missing, damaged, or of another form.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", mend="check the path", file=path) from None
    except zipfile.BadZipFile:
        raise DataError("is no npz", mend=_FORM, file=path) from None
    with archive:
        yield Opinions(path, archive)


def predicted(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The labels that the model sees in some images, for pictures of them."""
    with open_opinions(path) as opinions:
        return {name: opinions.of(name).argmax(axis=0).astype(np.uint8) for name in names if name in opinions}


def write_opinions(
    path: Path, opinions: Iterable[tuple[str, Float32[np.ndarray, "K h w"]]], *, classes: Sequence[str]
) -> None:
    """Write probabilities as they come; see the file's head.

    Args:
        path: the npz.
        opinions: id and (K, h, w) probabilities of each image.
        classes: names of the K classes.
    """
    ids: list[str] = []
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, probs in opinions:
            stored: UInt8[np.ndarray, "K h w"] = np.rint(probs * FULL).astype(np.uint8)
            _add(archive, f"p{len(ids)}", stored)
            ids.append(name)
        _add(archive, "ids", np.array(ids, dtype=np.str_))
        _add(archive, "classes", np.array(list(classes), dtype=np.str_))


def _add(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
    with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
