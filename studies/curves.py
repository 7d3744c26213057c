"""Draw how the rows of a study learnt: validation mIoU against minutes of training, the best rows by name.

    python studies/curves.py studies-runs/000-mars studies/000-mars/curves.svg [--best 6] [--row ROW]

A line is a run; rows with several seeds have several. The others are gray.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.figure import Figure

from segwright.studies.entries import plan_of

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe & Ito."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--best", type=int, default=6)
    parser.add_argument("--row", action="append", default=[], help="named too; can be repeated")
    asked = parser.parse_args()
    lines: dict[str, list[list[tuple[float, float]]]] = {}
    for entry in plan_of(asked.study).entries:
        if points := learnt(entry.run):
            lines.setdefault(entry.row, []).append(points)
    ends = {row: fmean(max(value for _, value in points) for points in runs) for row, runs in lines.items()}
    for row in asked.row:
        if row not in ends:
            parser.error(f"no run of the row '{row}' was validated")
    best = sorted(ends, key=ends.__getitem__)[::-1][: asked.best]
    named = sorted(dict.fromkeys([*best, *asked.row]), key=ends.__getitem__)[::-1]
    draw(lines, named, asked.out)


def learnt(run: Path) -> list[tuple[float, float]]:
    """Minutes and mIoU of every validation."""
    file = run / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [(row["seconds"] / 60, row["val_miou"]) for row in rows if row.get("val_miou") is not None]


def draw(lines: dict[str, list[list[tuple[float, float]]]], named: list[str], out: Path) -> None:
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": out.name, "font.size": 9}):
        figure = Figure(layout="constrained", figsize=(7.2, 4.0))
        axes = figure.add_subplot()
        for row in sorted(lines, key=lambda row: row in named):
            color = COLORS[named.index(row) % len(COLORS)] if row in named else "#cccccc"
            for place, points in enumerate(lines[row]):
                label = row if row in named and place == 0 else None
                axes.plot(*zip(*points, strict=True), color=color, marker=".", linewidth=1.3, label=label)
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda place: named.index(labels[place]))
        axes.legend([handles[k] for k in order], [labels[k] for k in order], frameon=False, loc="center left",
                    bbox_to_anchor=(1.0, 0.5))  # fmt: skip
        axes.set_xlabel("minutes of training")
        axes.set_title("mIoU on validation images", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
