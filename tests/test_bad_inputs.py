"""Every bad input of the table is answered in one line, and leaves nothing behind."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from bad_inputs import CASES, Case, faults
from bad_place import Place

sys.path.pop()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    # Not among pytest's folders: those are closed to others, and some cases are called as somebody else.
    with tempfile.TemporaryDirectory(prefix="segwright-") as base:
        place = Place(Path(base))
        yield place
        place.clear()


@pytest.mark.parametrize("case", [case for case in CASES if not case.slow], ids=lambda case: case.name)
def test_a_bad_input(place: Place, case: Case) -> None:
    answer, found = faults(case, place)
    assert not found, f"{found}\n{answer.error}"


def test_every_case_has_its_own_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
