"""Write the scores of runs as a table: one line a run, figures as they stand in the run folders.

python studies/collect.py runs/camvid-40-0 runs/camvid-40-1 > studies/camvid-40-minutes/results.csv
python studies/collect.py --split test runs/default runs/winner > studies/tune-on-the-standin/results.csv
python studies/collect.py --split test studies-runs/004-flood-standin > studies/004-flood/test.csv

Of a study's folder, every run that was evaluated is taken.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from segwright.studies.entries import plan_of


def row_of(run: Path, *, split: str) -> dict[str, Any]:
    """Scores under every definition, the intersection over union of every class, and what it cost."""
    summary = json.loads((run / "scores" / f"{split}.json").read_text(encoding="utf-8"))
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    row: dict[str, Any] = {"run": run.name, "seed": facts["seed"], "images": summary["images"]}
    for name, definition in summary["definitions"].items():
        score = definition["miou"]
        row |= {f"miou {name}": score["estimate"], f"{name} low": score["low"], f"{name} high": score["high"]}
    declared = summary["definitions"]["declared"]
    row |= {name: declared[name]["estimate"] for name in ("pixel_accuracy", "mean_pixel_accuracy")}
    row["dice_per_image_label"] = summary["dice_per_image_label"]["estimate"]
    row |= {f"iou {one['name']}": one["iou"]["estimate"] for one in summary["per_class"]}
    if "loss" in summary:
        row["loss"] = summary["loss"]
    row |= {
        "train_loss": epochs[-1]["train_loss"],
        "val_loss": epochs[-1]["val_loss"],
        "minutes": epochs[-1]["seconds"] / 60,
        "steps": epochs[-1]["step"],
        "epochs": epochs[-1]["epoch"],
        "images_per_second": statistics.median(epoch["images_per_second"] for epoch in epochs),
        "processor": facts["processor"],
        "cores": facts["cores"],
        "torch": facts["versions"]["torch"],
    }
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or one folder of a study")
    parser.add_argument("--split", default="val")
    asked = parser.parse_args()
    if (asked.runs[0] / "study.yaml").is_file():
        entries = plan_of(asked.runs[0]).entries
        scored = [one for one in entries if (one.run / "scores" / f"{asked.split}.json").is_file()]
        rows = [{"row": one.row} | row_of(one.run, split=asked.split) for one in scored]
    else:
        rows = [row_of(run, split=asked.split) for run in asked.runs]
    if not rows:
        parser.error(f"no run there has scores of '{asked.split}': segwright evaluate RUN --split {asked.split}")
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
