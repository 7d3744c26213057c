"""Deal a test set out of the training images of the Mars stand-in's split: whole groups, as the audit finds them.

    python studies/tune-on-the-standin/split.py

A search chooses by the validation images, so that its winner has to be judged on others. Writes split.json.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

from segwright.auditing.verdict import audit
from segwright.files import write_text

HERE = Path(__file__).parent
IMAGES = 400


def main() -> None:
    data = Path(os.environ.get("SEGWRIGHT_DATA", HERE.parents[2] / "shared/data")) / "mars_standin"
    found = audit(data / "mars_standin.npz")
    groups = found.answers["duplicates"].facts["groups"]
    given = json.loads((data / "split.json").read_text())
    val = {groups.get(f"{row:05d}") for row in given["val"]}
    free: dict[str, list[int]] = {}
    for row in given["train"]:
        group = groups.get(f"{row:05d}", str(row))
        if group not in val:
            free.setdefault(group, []).append(row)
    names = sorted(free)
    random.Random(0).shuffle(names)
    test: list[int] = []
    while len(test) < IMAGES:
        test += free[names.pop()]
    train = sorted(set(given["train"]) - set(test))
    sides = {"train": train, "val": given["val"], "test": sorted(test)}
    write_text(HERE / "split.json", json.dumps(sides))
    print(f"{len(train)} train, {len(given['val'])} val, {len(test)} test")


if __name__ == "__main__":
    main()
