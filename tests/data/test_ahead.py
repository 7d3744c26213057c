"""Items are worked on ahead and in order, but never more at once than memory and threads allow."""

from __future__ import annotations

import threading

import pytest

from segwright.data import ahead
from segwright.data.ahead import READERS, in_order


class Counter:
    """Counts what is worked on, or done and not yet taken."""

    def __init__(self) -> None:
        self.held = self.most = 0
        self._lock = threading.Lock()

    def work(self, item: int) -> int:
        with self._lock:
            self.held += 1
            self.most = max(self.most, self.held)
        return item * item

    def taken(self) -> None:
        with self._lock:
            self.held -= 1


@pytest.mark.parametrize(("size", "most"), [(0, 2 * READERS + 1), (10, 2 * READERS + 1), (40, 3), (99, 2), (500, 2)])
def test_order_stays_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, size: int, most: int) -> None:
    monkeypatch.setattr(ahead, "WAITING_BYTES", 100)
    counter = Counter()
    results = []
    for result in in_order(counter.work, range(30), text="", progress=False, bytes_of=lambda item: size):
        results.append(result)
        counter.taken()
    assert results == [item * item for item in range(30)]
    assert counter.most <= most


def test_a_fault_arrives_in_its_turn() -> None:
    def work(item: int) -> float:
        return 1 / (item - 5)

    results = in_order(work, range(20), text="", progress=False)
    assert [next(results) for _ in range(5)] == [1 / (item - 5) for item in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(results)
