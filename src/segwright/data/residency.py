"""How much of a pack stays in memory while it is read through the map of its files.

Pages of a mapped file that a process has touched count as its memory (RSS, PSS) until the system needs them elsewhere,
so that reading a large pack from end to end would look like holding it, and a limit on a container would treat it so.
`MADV_DONTNEED` gives such pages back (https://man7.org/linux/man-pages/man2/madvise.2.html): they stay in the system's
cache, views stay valid, and the next touch finds the page again; a crop of 512 pixels took a millisecond longer for it.
Small packs keep all pages.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

MAPPED_AT_ONCE_BYTES = 256 << 20
"""Of a pack larger than this, about so much at most counts as memory of the process."""

LARGEST_SHARE = 0.5
"""A pack is copied into memory, or read ahead, where it takes no more than this share of the memory that is left."""


@final
class Residency:
    """Counts what was handed out of some maps and lets go of their pages when it comes to too much.

    Args:
        maps: read-only maps of files.
    """

    def __init__(self, maps: Sequence[mmap.mmap]) -> None:
        large = sum(len(one) for one in maps) > MAPPED_AT_ONCE_BYTES and hasattr(mmap, "MADV_DONTNEED")
        self._maps = tuple(maps) if large else ()
        self._handed_bytes = 0

    def hand_out(self, count_bytes: int) -> None:
        """Tell that a view of so many bytes is about to be read; views handed out before stay valid."""
        if not self._maps:
            return
        self._handed_bytes += count_bytes
        if self._handed_bytes > MAPPED_AT_ONCE_BYTES:
            self._handed_bytes = count_bytes
            for one in self._maps:
                one.madvise(mmap.MADV_DONTNEED)


def map_file(path: Path, *, dtype: np.dtype[Any]) -> tuple[np.ndarray, mmap.mmap]:
    """The values of a file that is not empty, read-only, and the map behind them."""
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype=dtype), mapped


def read_ahead(maps: Sequence[mmap.mmap]) -> None:
    """Ask the system to read the files into its cache meanwhile."""
    for one in maps:
        if hasattr(mmap, "MADV_WILLNEED"):
            one.madvise(mmap.MADV_WILLNEED)


def read_file(path: Path, *, dtype: np.dtype[Any]) -> np.ndarray:
    """The values of a file, read-only, in memory."""
    values = np.fromfile(path, dtype=dtype)
    values.flags.writeable = False
    return values
