"""Scores in a terminal: the number, what it means, how sure it is, and the classes behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segwright.cli.text import say, show_table


def show(file: Path, *, score_as: str = "declared") -> None:
    """Print the scores that `segwright.evaluation` wrote; the mIoU under `score_as` first, where that is another."""
    from segwright.files import read_json

    summary = read_json(file)
    declared, asked = (summary["definitions"][name] for name in ("declared", score_as))
    if score_as != "declared":
        say(f"mIoU under '{score_as}' {_number(asked['miou'])} ({_range(asked['miou'])}): {asked['sentence']}")
    title = f"{summary['split']}: {summary['images']} images, {summary['level']:.0%} intervals"
    rows = [
        [row["name"] + ("" if row["in_mean"] else " (not in the mean)"), _number(row["iou"]), _range(row["iou"]),
         _number(row["dice"]), _share(row["true_share"]), str(row["images"])]
        for row in summary["per_class"]
    ]  # fmt: skip
    show_table(title, ["class", "IoU", "interval", "Dice", "pixels", "images"], rows, right=_RIGHT)
    ruled = summary["classes"]["ignore_in_score"] or summary["classes"]["leave_out_of_mean"]
    plain = f"the mean over {len(declared['in_mean'])} classes of TP / (TP + FP + FN), summed over all images"
    sentence = declared["sentence"] if ruled else plain
    say(f"mIoU {_number(declared['miou'])} ({_range(declared['miou'])}): {sentence}")
    for label, score in (
        ("pixel accuracy", declared["pixel_accuracy"]),
        ("mean pixel accuracy", declared["mean_pixel_accuracy"]),
        ("Dice", declared["dice"]),
        ("boundary F1", summary["boundary_f1"]),
    ):
        say(f"{label} {_number(score)} ({_range(score)})")
    pairs = summary["dice_per_image_label"]
    say(f"Dice per image and label {_number(pairs)} ({_range(pairs)}): {_PAIRS}")
    most = summary["prevalent_accuracy"]
    say(f"prevalent class {_number(most)} ({_range(most)}): images whose most frequent class is the predicted one")
    if "loss" in summary:
        say(f"loss {summary['loss']:.4f}: that of the run, as training computes it on the validation images")
    for name, other in summary["definitions"].items() if ruled else ():
        if name != score_as and (other["in_mean"] != declared["in_mean"] or name == "keras-mars"):
            say(f"mIoU under '{name}' {_number(other['miou'])} ({_range(other['miou'])}): {other['sentence']}")
    if declared["absent"]:
        say(f"Absent from truth and prediction, so not in the mean: {', '.join(declared['absent'])}")
    say("")


_PAIRS = "the mean over every image and every scored class; 1 where the class is in neither truth nor prediction"
_RIGHT = ("IoU", "interval", "Dice", "pixels", "images")


def _number(score: dict[str, Any]) -> str:
    return "-" if score["estimate"] is None else f"{score['estimate']:.3f}"


def _range(score: dict[str, Any]) -> str:
    return "-" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
