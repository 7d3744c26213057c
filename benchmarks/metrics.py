"""Speed of the scores: confusion counts against torchmetrics on the same pixels, and bootstraps of a data set.

    python benchmarks/metrics.py --out benchmarks/metrics.json

torchmetrics counts a batch in all; segwright counts each image of it, and the sums are compared. Both refuse wrong
labels; torchmetrics with `validate_args=False`, which looks at nothing, stands beside it. Both take the int64
tensors that an argmax and a data loader give, in turns, in one process. The best of the repeats stands in the table.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from rich.console import Console
from rich.table import Table
from torchmetrics.classification import MulticlassConfusionMatrix

from segwright.confusion import confusion_per_image
from segwright.evaluation.statistics import RESAMPLES, bootstrap, score_intervals
from segwright.files import write_json
from segwright.types import ClassSet

SHAPES = ((2, 8, 360, 480), (5, 32, 64, 128), (11, 8, 360, 480), (21, 16, 224, 224))
"""(classes, images, rows, columns)"""

WANTED_SPEEDUP = 5.0
WANTED_BOOTSTRAP_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    counts = [count(*shape, repeats=options.repeats) for shape in SHAPES]
    bootstraps = [
        resample(images=1000, num_classes=21, repeats=max(2, options.repeats // 5), everything=everything)
        for everything in (False, True)
    ]
    results = {
        "counts": counts,
        "bootstraps": bootstraps,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": options.threads,
            "torch": torch.__version__,
            "torchmetrics": torchmetrics.__version__,
            "numpy": np.__version__,
        },
        "passed": all(row["equal"] and row["speedup"] >= WANTED_SPEEDUP for row in counts)
        and all(row["seconds"] < WANTED_BOOTSTRAP_SECONDS for row in bootstraps),
    }
    show(results)
    if options.out is not None:
        write_json(options.out, results)
    if not results["passed"]:
        raise SystemExit(1)


def count(num_classes: int, images: int, height: int, width: int, *, repeats: int) -> dict[str, Any]:
    """Time one batch of pixels in both libraries, in turns."""
    masks, pred = labels(num_classes, images, height, width)
    peers = {
        "torchmetrics": MulticlassConfusionMatrix(num_classes, ignore_index=255),
        "torchmetrics_unchecked": MulticlassConfusionMatrix(num_classes, ignore_index=255, validate_args=False),
    }
    runs: dict[str, Callable[[], object]] = {
        "segwright": lambda: confusion_per_image(pred, masks, num_classes=num_classes),
        **{name: lambda peer=peer: peer.update(pred, masks) for name, peer in peers.items()},
    }
    seconds = best_seconds(runs, repeats=repeats)
    peer = peers["torchmetrics"]
    peer.reset()
    peer.update(pred, masks)
    ours = confusion_per_image(pred, masks, num_classes=num_classes)
    return {
        "num_classes": num_classes,
        "images": images,
        "height": height,
        "width": width,
        "equal": bool(torch.equal(peer.compute(), ours.sum(0))),
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "pixels_per_second": masks.numel() / seconds["segwright"],
        "speedup": seconds["torchmetrics"] / seconds["segwright"],
        "speedup_unchecked": seconds["torchmetrics_unchecked"] / seconds["segwright"],
    }


def labels(num_classes: int, images: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Patchy truth with 5 % void, and a prediction that is right on four pixels of five."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, num_classes, (images, height // 8 + 1, width // 8 + 1))
    truth = patches.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    pred = np.where(rng.random(truth.shape) < 0.8, truth, rng.integers(0, num_classes, truth.shape))
    return torch.from_numpy(np.where(rng.random(truth.shape) < 0.05, 255, truth)), torch.from_numpy(pred)


def resample(*, images: int, num_classes: int, repeats: int, everything: bool) -> dict[str, Any]:
    """Time 10,000 bootstraps: every score at once, or one statistic of the whole matrices."""
    rng = np.random.default_rng(0)
    confusion = rng.poisson(40, (images, num_classes, num_classes))
    confusion += np.eye(num_classes, dtype=np.int64) * rng.integers(0, 4000, (images, 1, num_classes))
    classes = ClassSet(tuple(f"class {k}" for k in range(num_classes)), ((0, 0, 0),) * num_classes)

    def pixel_accuracy(sums: np.ndarray) -> np.ndarray:
        return np.trace(sums, axis1=1, axis2=2) / sums.sum((1, 2))

    runs: dict[str, Callable[[], object]] = {"one": lambda: bootstrap(confusion, pixel_accuracy)}
    if everything:
        runs = {"all": lambda: score_intervals(confusion, classes)}
    return {
        "images": images,
        "num_classes": num_classes,
        "resamples": RESAMPLES,
        "what": "all scores, each class" if everything else "any statistic of the matrices",
        "seconds": min(best_seconds(runs, repeats=repeats).values()),
    }


def best_seconds(runs: dict[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """The shortest time of each, run in turns after one run to warm up."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def show(results: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"Confusion counts, milliseconds a batch (at least {WANTED_SPEEDUP:g} x faster wanted)")
    for head in ("classes", "batch", "segwright", "torchmetrics", "unchecked", "faster", "unchecked", "equal"):
        table.add_column(head, justify="right")
    for row in results["counts"]:
        seconds = [row[f"{name}_seconds"] for name in ("segwright", "torchmetrics", "torchmetrics_unchecked")]
        times = [f"{1000 * value:.2f}" for value in seconds]
        batch = f"{row['images']}x{row['height']}x{row['width']}"
        equal = "yes" if row["equal"] else "NO"
        table.add_row(
            str(row["num_classes"]),
            batch,
            *times,
            f"{row['speedup']:.1f} x",
            f"{row['speedup_unchecked']:.1f} x",
            equal,
        )
    console.print(table)
    for row in results["bootstraps"]:
        console.print(
            f"{row['resamples']:,} bootstraps of {row['images']:,} images x {row['num_classes']} classes, "
            f"{row['what']}: {row['seconds']:.2f} s (under {WANTED_BOOTSTRAP_SECONDS:g} s wanted)"
        )
    console.print("passed" if results["passed"] else "[red]not passed[/red]")


if __name__ == "__main__":
    main()
