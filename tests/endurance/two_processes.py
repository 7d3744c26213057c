"""Two processes against one: counts, scores and weights; a kill and a resume; two runs at once on one new pack.

    python tests/endurance/two_processes.py [--out tests/endurance/results/two_processes.json]

Generated terrain, a small U-Net on the CPU, gloo. With group norm two processes train as one does, but for the rounding
of sums, which AdamW makes larger from step to step: the loss of the first epoch must be equal to six digits. With batch
norm each process normalises by its own images, so that scores are near, not equal. The counts of a validation must be
those of one process to the last pixel for equal weights, whatever the norm.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from segwright.bundle import load_bundle
from segwright.confusion import confusion_per_image
from segwright.data.eval_loader import EvalLoader
from segwright.data.pack_cache import cache_entries
from segwright.data.synthetic import write_terrain
from segwright.files import write_json
from segwright.metrics import score
from segwright.recipe import Recipe, make_recipe, read_recipe
from segwright.training.preparation import prepare
from segwright.training.run import train

IMAGES, SIZE, EPOCHS = 50, (48, 64), 8
LONG_EPOCHS = 30
MANY_IMAGES = 400
"""Enough that packing them takes a while."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parent / "results" / "two_processes.json"
    parser.add_argument("--out", type=Path, default=default, help="JSON file for the results")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="segwright-endurance-") as folder:
        work = Path(folder)
        os.environ["SEGWRIGHT_CACHE"] = str(work / "cache")
        data = write_terrain(work / "terrain", images=IMAGES, size=SIZE)
        pairs = {norm: one_and_two(data, work, norm=norm) for norm in ("group", "batch")}
        killed = kill_and_resume(data, work)
        together = two_runs_at_once(write_terrain(work / "many", images=MANY_IMAGES, size=SIZE), work)
    first = [pairs["group"][name]["first_train_loss"] for name in ("one", "two")]
    passed = (
        abs(first[0] - first[1]) < 1e-6 * first[0]
        and all(pair["two"]["counts_are_those_of_one_process"] for pair in pairs.values())
        and killed["weights_equal"]
        and together["passed"]
    )
    results = {
        "pairs": pairs, "killed": killed, "together": together, "passed": passed,
        "seconds": round(time.monotonic() - began, 1),
        "machine": {"cores": os.cpu_count(), "torch": torch.__version__},
    }  # fmt: skip
    show(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, results)
    sys.exit(0 if passed else 1)


def recipe_of(data: Path, *, norm: str, devices: int, epochs: int = EPOCHS) -> Recipe:
    return make_recipe(
        {
            "data": {"path": str(data)},
            "model": {"name": "unet", "encoder": None, "arguments": {"width": 8, "depth": 3, "norm": norm}},
            # Seven images in two processes: shares of three and four.
            "training": {"epochs": epochs, "batch_size": 7, "precision": "fp32", "devices": devices},
            "optimizer": {"lr": 0.003},
        }
    )


def one_and_two(data: Path, work: Path, *, norm: str) -> dict[str, Any]:
    """Train with one and with two processes, and hold them side by side."""
    runs = {}
    found: dict[str, Any] = {}
    for name, devices in (("one", 1), ("two", 2)):
        started = time.monotonic()
        runs[name] = train(recipe_of(data, norm=norm, devices=devices), run=work / f"{norm}-{name}", progress=False)
        found[name] = {"seconds": round(time.monotonic() - started, 1), **validation(runs[name])}
    states = [weights(run) for run in runs.values()]
    found["largest_weight_difference"] = max(
        float((value.double() - states[1][name].double()).abs().max()) for name, value in states[0].items()
    )
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "resume.ckpt", weights_only=True)["state_dict"]
    return state


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def validation(run: Path) -> dict[str, Any]:
    """What the run says of its best model, and what one process counts of it."""
    bundle = load_bundle(run)
    recipe = read_recipe(run / "recipe.yaml")
    images = prepare(recipe, run=run, progress=False)
    loader = EvalLoader(images.pack, images.indices("val"), batch_size=recipe.training.batch_size)
    row = next(row for row in rows_of(run) if row["epoch"] == bundle.info["epoch"])
    with torch.inference_mode():
        counts = np.sum(
            [
                confusion_per_image(
                    bundle.model(batch.images).argmax(1), batch.masks, num_classes=bundle.classes.num_classes
                )
                .sum(0)
                .numpy()
                for batch in loader
                if batch.masks is not None
            ],
            axis=0,
        )
    expected = [float(value) if np.isfinite(value) else None for value in score(counts, images.classes).iou]
    return {
        "best_epoch": row["epoch"],
        "best_miou": row["val_miou"],
        "final_miou": rows_of(run)[-1]["val_miou"],
        "first_train_loss": rows_of(run)[0]["train_loss"],
        "final_train_loss": rows_of(run)[-1]["train_loss"],
        "images": loader.count,
        "pixels": int(counts.sum()),
        "counts": counts.tolist(),
        "counts_are_those_of_one_process": row["val_iou"] == expected,
    }


def command(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "segwright", "train", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def kill_and_resume(data: Path, work: Path) -> dict[str, Any]:
    """Two processes, process 0 killed with SIGKILL in the middle, resumed: the weights of an unbroken run."""
    recipe = recipe_of(data, norm="batch", devices=2, epochs=LONG_EPOCHS)
    write_json(work / "long.yaml", {**recipe.as_dict(), "data": {"path": str(data), "audit": False}})
    whole = train(recipe, run=work / "whole", progress=False)
    broken = work / "runs" / "broken"
    process = command(str(work / "long.yaml"), "--name", "broken", "--out", str(work / "runs"))
    while not (broken / "metrics.jsonl").is_file():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    stopped = process.wait()
    process = command(str(broken), "--resume")
    while len(rows_of(broken)) < 10:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.kill()
    process.wait()
    rows_at_kill = len(rows_of(broken))
    code = command(str(broken), "--resume").wait()
    first, second = weights(whole), weights(broken)
    return {
        "exit_code_of_sigterm": stopped,
        "rows_at_kill": rows_at_kill,
        "exit_code_of_resume": code,
        "rows": len(rows_of(broken)),
        "weights_equal": all(torch.equal(value, second[name]) for name, value in first.items()),
        "final_miou": [rows_of(run)[-1]["val_miou"] for run in (whole, broken)],
    }


def two_runs_at_once(data: Path, work: Path) -> dict[str, Any]:
    """Two command lines at the same moment on images that nobody has packed."""
    os.environ["SEGWRIGHT_CACHE"] = str(work / "fresh")
    recipe = recipe_of(data, norm="batch", devices=1, epochs=1)
    write_json(work / "short.yaml", {**recipe.as_dict(), "data": {"path": str(data), "audit": False}})
    processes = [
        command(str(work / "short.yaml"), "--name", name, "--out", str(work / "runs")) for name in ("left", "right")
    ]
    said = [process.communicate()[1] for process in processes]
    runs = [work / "runs" / name for name in ("left", "right")]
    digests = [json.loads((run / "environment.json").read_text())["data_digest"] for run in runs]
    first, second = (weights(run) for run in runs)
    found = {
        "exit_codes": [process.returncode for process in processes],
        "waited": [text.count("Another process is packing") for text in said],
        "digests": digests,
        "packs": len(cache_entries()),
        "weights_equal": all(torch.equal(value, second[name]) for name, value in first.items()),
        "reports": [(run / "report.html").is_file() for run in runs],
    }
    passed = found["exit_codes"] == [0, 0] and len(set(digests)) == 1 and found["packs"] == 1 and found["weights_equal"]
    return {**found, "passed": passed and all(found["reports"])}


def show(results: dict[str, Any]) -> None:
    console = Console(width=120)
    table = Table(title="One process and two", title_justify="left")
    for head in (
        "norm",
        "processes",
        "images",
        "pixels",
        "counts as one",
        "best mIoU",
        "final mIoU",
        "first loss",
        "last",
        "s",
    ):
        table.add_column(head, justify="right")
    for norm, pair in results["pairs"].items():
        for name in ("one", "two"):
            row = pair[name]
            table.add_row(
                norm, name, str(row["images"]), str(row["pixels"]), str(row["counts_are_those_of_one_process"]),
                f"{row['best_miou']:.6f}", f"{row['final_miou']:.6f}", f"{row['first_train_loss']:.7f}",
                f"{row['final_train_loss']:.6f}",
                f"{row['seconds']:.1f}",
            )  # fmt: skip
    console.print(table)
    for norm, pair in results["pairs"].items():
        console.print(f"largest difference of any weight with {norm} norm: {pair['largest_weight_difference']:.2g}")
        for name in ("one", "two"):
            console.print(f"counts of the best model, {name}:\n{np.array(pair[name]['counts'])}")
    console.print("killed and resumed:", results["killed"])
    console.print("two runs at once:", results["together"])
    console.print(f"passed: {results['passed']}, {results['seconds']} s")


if __name__ == "__main__":
    main()
