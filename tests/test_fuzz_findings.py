"""Every reader takes its own valid files, and refuses in one line what fuzzing once broke it with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_targets import TARGETS, fault

FOUND = sorted(path for path in (Path(__file__).parent / "fuzz_findings").glob("*/*") if path.is_file())


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "weights"])
def test_valid_files_are_read(target: str) -> None:
    for seed in TARGETS[target].seeds():
        TARGETS[target].feed(seed)


@pytest.mark.filterwarnings("ignore")  # decoders warn of damaged files in many ways; what they raise is what counts
@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name[:8]}")
def test_what_fuzzing_found_is_refused_in_one_line(path: Path) -> None:
    assert fault(path.parent.name, path.read_bytes()) is None
