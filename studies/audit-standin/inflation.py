"""What a naive split of the Mars stand-in flatters: the audit's groups against chance, on the same validation images.

    python studies/audit-standin/inflation.py [--minutes 4]

Two small models are trained on equally many images: one with, one without crops of the frames that the validation
images are cut from, as the audit groups them. Writes inflation.csv beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from segwright.auditing.quick import inflation
from segwright.auditing.repair import write_fixed_card
from segwright.auditing.verdict import audit
from segwright.files import write_csv

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="for both trainings together")
    options = parser.parse_args()
    data = Path(os.environ.get("SEGWRIGHT_DATA", HERE.parents[2] / "shared/data")) / "mars_standin"
    started = time.monotonic()
    found = audit(data / "mars_standin.npz")
    groups = found.answers["duplicates"].facts["groups"]
    seconds = time.monotonic() - started
    with tempfile.TemporaryDirectory(prefix="segwright-study-") as folder:
        card = write_fixed_card(found, Path(folder) / "clean.yaml").card
        result = inflation(card, groups, minutes=options.minutes)
    assert result is not None, "the stand-in has many crops of each frame"
    mixed = on_two_sides(groups, data / "split.json")
    head = ["naive miou", "grouped miou", "inflation", "low", "high", "validation images with neighbours", "groups",
            "largest group", "groups on two sides of split.json", "audit seconds", "training minutes"]  # fmt: skip
    numbers = [result.leaking, result.clean, result.difference, result.low, result.high]
    sizes = [list(groups.values()).count(name) for name in set(groups.values())]
    row = [*(f"{value:.4f}" for value in numbers), result.images, len(sizes), max(sizes), mixed, f"{seconds:.0f}",
           f"{options.minutes:g}"]  # fmt: skip
    write_csv(HERE / "inflation.csv", [head, row])
    print(*(f"{name}: {value}" for name, value in zip(head, row, strict=True)), sep="\n")


def on_two_sides(groups: dict[str, str], split: Path) -> int:
    """Groups that a split by frame, made by those who know the frames, would tear apart."""
    side = {f"{row:05d}": name for name, rows in json.loads(split.read_text()).items() for row in rows}
    sides: dict[str, set[str]] = {}
    for name, group in groups.items():
        if name in side:
            sides.setdefault(group, set()).add(side[name])
    return sum(len(found) > 1 for found in sides.values())


if __name__ == "__main__":
    main()
