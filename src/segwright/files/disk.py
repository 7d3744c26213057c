"""Whole files or none: written under a temporary name, synced and renamed. Digests, and paths that stay inside."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from segwright.errors import DataError, OutputError


@contextmanager
def atomic(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` whole, or not at all; until then it is `stream.name`.

    Args:
        path: the file.
        sync: make it survive a power cut; False for one of many in a folder that is synced and renamed as a whole.

    Raises:
        OutputError: the folder cannot be written to or the disk is full.
    """
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        short = path.name.encode()[:100].decode(errors="ignore")  # a name may be as long as the system takes already
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{short}.", suffix=".part")
        with open(name, "wb", opener=lambda *_: handle) as stream:  # as `os.fdopen`, but the stream knows its name
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        if sync:
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


def digest(path: Path) -> str:
    """BLAKE2 of a file's bytes, read in pieces."""
    total = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def real(path: Path) -> Path:
    """The absolute path without links; as `Path.resolve`, which does not bear a link that leads to itself."""
    return Path(os.path.realpath(path))


def confined(root: Path, relative: str) -> Path:
    """`root / relative` without any `..`, refused where that would leave `root`, by its words or by a link.

    Raises:
        DataError: the path is absolute or climbs out of its folder.
    """
    plain = Path(os.path.normpath(relative))
    leaves = plain.is_absolute() or plain.parts[:1] == (os.pardir,)
    if "\0" in relative:
        raise DataError("a path holds a byte that no path can hold (NUL)", mend="write the file again", file=root)
    if leaves or not real(root / plain).is_relative_to(real(root)):
        raise DataError(
            f"path '{relative}' leaves its folder", mend="use paths below the file that names them", file=root
        )
    return root / plain
