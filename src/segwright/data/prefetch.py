"""Make training batches ahead of time in one background thread.

It pays where the device computes while Python waits (a GPU), or where images come from a disk that is slow.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from typing import final

from segwright.data.loader import TrainLoader
from segwright.tensors import Batch


@final
class PrefetchLoader:
    """A `TrainLoader` that works ahead in one background thread; the same batches in the same order.

    Args:
        loader: the loader; it must not be iterated by anyone else meanwhile.
        ahead: batches that are kept ready.
    """

    def __init__(self, loader: TrainLoader, *, ahead: int = 2) -> None:
        self._loader, self._ahead = loader, ahead

    def __len__(self) -> int:
        return len(self._loader)

    def state_dict(self) -> dict[str, int]:
        """As of the batches that were delivered, not of those that are ready."""
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._loader.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch."""
        first = self._loader.state_dict()
        count = len(self) - first["step"] % len(self)
        ready: queue.Queue[Batch | BaseException] = queue.Queue(self._ahead)
        stop = threading.Event()

        def work() -> None:
            try:
                for step in range(first["step"], first["step"] + count):
                    _put(ready, self._loader.batch(step), stop=stop)
                    if stop.is_set():
                        return
            except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits for the batch
                _put(ready, error, stop=stop)

        thread = threading.Thread(target=work, name="prefetch", daemon=True)
        thread.start()
        try:
            for delivered in range(count):
                batch = ready.get()
                if isinstance(batch, BaseException):
                    raise batch
                self._loader.load_state_dict({**first, "step": first["step"] + delivered + 1})
                yield batch
        finally:
            stop.set()
            thread.join()


def _put(ready: queue.Queue[Batch | BaseException], item: Batch | BaseException, *, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
            return
        except queue.Full:
            continue
