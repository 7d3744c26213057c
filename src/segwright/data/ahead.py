"""Work through many items in threads, a few ahead, in their order: memory stays small however many there are."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

READERS = min(8, os.cpu_count() or 1)

WAITING_BYTES = 1 << 30
"""Items that are large enough to fill this are worked on in smaller numbers, the largest alone."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    text: str,
    progress: bool,
    bytes_of: Callable[[Item], int] = lambda item: 0,
) -> Iterator[Result]:
    """What `work` gives for each item, in order.

    Args:
        work: called in several threads at once; the first item is worked on alone, so that what is loaded once (arrays)
            is not loaded by threads that race for it.
        items: what to work on.
        text: beside the progress bar, which shows the time left.
        progress: show a bar, where there is a terminal.
        bytes_of: what working on an item takes; no more than `WAITING_BYTES` are worked on at once (but one item).
    """
    results = _ahead(work, items, bytes_of=bytes_of)
    if not progress:
        yield from results
        return
    console = Console(stderr=True)
    yield from track(
        results, description=text, total=len(items), console=console, transient=True, disable=not console.is_terminal
    )


def _ahead(
    work: Callable[[Item], Result], items: Sequence[Item], *, bytes_of: Callable[[Item], int]
) -> Iterator[Result]:
    with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
        try:
            for item in items[:1]:
                yield work(item)
            waiting: deque[tuple[Future[Result], int]] = deque()
            held = 0
            for item in items[1:]:
                size = bytes_of(item)
                while waiting and (len(waiting) == 2 * READERS or held + size > WAITING_BYTES):
                    held -= waiting[0][1]
                    yield waiting.popleft()[0].result()
                waiting.append((pool.submit(work, item), size))
                held += size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            pool.shutdown(cancel_futures=True)
