"""Print a study's results.csv as the table of its README.

    python studies/table.py studies/000-mars/results.csv --class big_rock --figure val_miou
    python studies/table.py studies/004-flood/results.csv --also studies/004-flood/test.csv dice_per_image_label

`--also` takes a column of what `collect.py` wrote, the mean over seeds. The last columns are the report's figures, as
`figure` of the study file has them.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--class", dest="classes", action="append", default=[], metavar="CLASS")
    parser.add_argument("--figure", action="append", default=[])
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("FILE", "COLUMN"))
    asked = parser.parse_args()
    with asked.results.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    head = ["row", "seeds", "mIoU", "95 % interval", "against the baseline", *asked.classes]
    also = {f"{column} ({Path(file).stem})": means_of(Path(file), column) for file, column in asked.also}
    head += [*also, "minutes", "images/s"]
    head += [f"report: {name}" for name in asked.figure]
    print("|".join(["", *(f" {name} " for name in head), ""]))
    print("|".join(["", *["---"] * len(head), ""]))
    for row in rows:
        cells = [
            name := row_name(row),
            row["seeds"],
            number(row["miou"]),
            between(row["low"], row["high"]),
            difference(row),
            *(number(row[f"iou {one}"], 2) for one in asked.classes),
            *(number(str(means.get(name, "")), 0 if max(means.values()) > 2 else 3) for means in also.values()),
            number(row["minutes"], 1),
            number(row["images_per_second"], 0),
            *(number(row.get(f"paper {one}", ""), 4) for one in asked.figure),
        ]
        print("|".join(["", *(f" {cell} " for cell in cells), ""]))


def row_name(row: dict[str, str]) -> str:
    return row["row"].removeprefix("'")  # which keeps a spreadsheet from reading it as a formula


def means_of(file: Path, column: str) -> dict[str, float]:
    """The mean of a column over the seeds of each row."""
    values: dict[str, list[float]] = defaultdict(list)
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            values[row["row"]].append(float(row[column]))
    return {name: fmean(some) for name, some in values.items()}


def number(text: str, digits: int = 3) -> str:
    return f"{float(text):.{digits}f}" if text else ""


def between(low: str, high: str) -> str:
    return f"{float(low):.3f} to {float(high):.3f}" if low and high else ""


def difference(row: dict[str, str]) -> str:
    if not row["to_baseline difference"]:
        return ""
    ends = f"{float(row['to_baseline low']):+.3f} to {float(row['to_baseline high']):+.3f}"
    return f"{float(row['to_baseline difference']):+.3f} ({ends})"


if __name__ == "__main__":
    main()
