"""Where packs live: one folder a source and policy below the cache folder, locked while written, replaced whole.

The name of a folder is a digest of what is packed (source, samples, mask coding, working size). Its fingerprint is a
digest of path, size, time and inode of every file that is read: when that has changed, the folder is replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from segwright.data.sources import Source
from segwright.errors import DataError, OutputError
from segwright.files import read_json, sync_folder

READING_SECONDS = 0.5
"""Reading the index of a pack takes less; who holds a lock for longer is packing."""

_ENDINGS, _NAME_LENGTH = ("part", "old"), 24


@dataclass(frozen=True)
class CacheEntry:
    """One packed source.

    Attributes:
        folder: where it is.
        root: the source it was packed from.
        images: how many.
        size_bytes: on disk.
    """

    folder: Path
    root: str
    images: int
    size_bytes: int


@dataclass(frozen=True)
class Slot:
    """The place of one pack, and the fingerprint that its files have now."""

    folder: Path
    fingerprint: str

    @contextmanager
    def locked(self, *, shared: bool) -> Iterator[None]:
        """Hold the slot's lock, waiting for other processes (with a word about it).

        The system frees the lock of a process that ends, however it ends.
        """
        with _lock_file(self.folder).open("ab") as stream:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            if not _tried(stream, kind, seconds=READING_SECONDS):
                Console(stderr=True).print("Another process is packing the same images; waiting for it.")
                fcntl.flock(stream, kind)
            yield

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """A new empty folder that takes the slot's place when all went well; the lock must be held.

        Raises:
            OutputError: the disk is full or the cache cannot be written.
        """
        remove_stale(self.folder.parent)
        _remove_leftovers(self.folder)
        new = self.folder.with_name(f".{self.folder.name}.part")
        old = self.folder.with_name(f".{self.folder.name}.old")
        try:
            new.mkdir(parents=True)
            yield new
            sync_folder(new)
            if self.folder.exists():
                self.folder.rename(old)
            new.rename(self.folder)
            sync_folder(self.folder.parent)
        except OSError as error:
            raise _unwritable(self.folder.parent, error) from error
        finally:
            _remove_leftovers(self.folder)


def _tried(stream: BinaryIO, kind: int, *, seconds: float) -> bool:
    """Whether the lock was got within that time."""
    last = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= last:
                return False
            time.sleep(0.01)


def _remove_leftovers(folder: Path) -> None:
    for ending in _ENDINGS:
        shutil.rmtree(folder.with_name(f".{folder.name}.{ending}"), ignore_errors=True)


def remove_stale(root: Path) -> int:
    """Delete what killed processes left half-packed, which no process holds the lock of; how many bytes that frees."""
    freed = 0
    for ending in _ENDINGS:
        for left in root.glob(f".{'[0-9a-f]' * _NAME_LENGTH}.{ending}"):
            folder = root / left.name[1 : -len(ending) - 1]
            with _lock_file(folder).open("ab") as stream:
                if _tried(stream, fcntl.LOCK_EX, seconds=0):
                    freed += _size(left)
                    _remove_leftovers(folder)
    return freed


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be written ({error.strerror or error})",
        mend="free some space, or set SEGWRIGHT_CACHE to a folder that has some",
        file=folder,
    )


def cache_folder(cache: Path | None = None) -> Path:
    """The folder of packs: the one given, else `$SEGWRIGHT_CACHE/packs`, else `~/.cache/segwright/packs`."""
    if cache is not None:
        return cache
    named = os.environ.get("SEGWRIGHT_CACHE")
    return (Path(named) if named else Path.home() / ".cache" / "segwright") / "packs"


def _lock_file(folder: Path) -> Path:
    # The lock files stay: removing one that another process waits for would let two in.
    locks = folder.parent / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        (locks / folder.name).touch()
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    return locks / folder.name


def find_slot(source: Source, *, working_size_px: int | None, cache: Path | None) -> Slot:
    """The slot of a source under a policy.

    Raises:
        DataError: a file of the source has vanished.
    """
    samples = [
        (sample.id, sample.image, sample.mask, sample.row, sample.split, sample.group) for sample in source.samples
    ]
    policy = (str(source.root.resolve()), source.format, repr(source.coding), working_size_px, samples)
    name = hashlib.blake2b(repr(policy).encode(), digest_size=_NAME_LENGTH // 2).hexdigest()
    return Slot(cache_folder(cache) / name, _fingerprint(source))


def _fingerprint(source: Source) -> str:
    total = hashlib.blake2b(digest_size=16)
    for path in source.fingerprint_files():
        try:
            facts = path.stat()
        except OSError as error:
            raise DataError(
                f"cannot be read ({error.strerror})", mend="check that it is still there", file=path
            ) from None
        total.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ino}\n".encode())
    return total.hexdigest()


def cache_entries(cache: Path | None = None) -> list[CacheEntry]:
    """The packs in the cache, by folder name; folders that segwright did not write are not listed."""
    found = []
    for folder in _packed_folders(cache_folder(cache)):
        try:
            tree = read_json(folder / "index.json")
            found.append(CacheEntry(folder, str(tree["root"]), len(tree["samples"]), _size(folder)))
        except (DataError, KeyError, TypeError):
            continue
    return found


def _packed_folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/index.json") if not path.parent.name.startswith("."))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def clear_cache(cache: Path | None = None) -> tuple[int, int]:
    """Delete the packs that no process is opening or writing; how many, and how many bytes that frees."""
    count, size = 0, remove_stale(cache_folder(cache))
    for entry in cache_entries(cache):
        with _lock_file(entry.folder).open("ab") as stream:
            if not _tried(stream, fcntl.LOCK_EX, seconds=0):
                continue
            _remove_leftovers(entry.folder)
            shutil.rmtree(entry.folder, ignore_errors=True)
            if not entry.folder.exists():
                count, size = count + 1, size + entry.size_bytes
    return count, size
