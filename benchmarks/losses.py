"""Speed and memory of the losses, forward and backward, against segmentation_models_pytorch and MONAI.

    python benchmarks/losses.py --out benchmarks/results/losses.json

All take the same float32 logits (8, 21, 256, 256) and int64 masks of patches that hold every class, in turns, in one
process; the median of nine repeats stands in the table. Options are chosen so that both libraries define the same:
over the whole batch, no smoothing constants, every class counted. Then the greatest difference of the losses and of
their gradients is shown (relative to the largest gradient). `other` marks peers that go by the same name and define
something else: their speed is shown, and does not count.

On a busy machine threads wait for one another: `--clock cpu --threads 1` counts the processor's time instead.

Memory is the peak of a process of its own beyond what it held before (Linux: VmHWM, reset before the call), after a
call on small tensors that loads the code; logits and masks are there before, their gradient (42 MiB) is counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from segwright.files import write_json
from segwright.losses import LOSSES, build_loss

SHAPE = (8, 21, 256, 256)
SMALL = (1, 21, 48, 48)
PATCH_PX = 8
WANTED_SUM_RATIO = 1.3
"""Dice + Jaccard + Tversky together against the dearest of them."""
NOISE = 1.05
"""Medians of a busy machine that differ by less are level."""

Loss = Callable[[Tensor, Tensor], Tensor]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
MONAI = {"include_background": True, "softmax": True, "to_onehot_y": True, "smooth_nr": 0.0, "smooth_dr": 0.0}


@dataclass(frozen=True)
class Case:
    """A formula of ours, and who else has it.

    Attributes:
        formula: as in a recipe.
        peers: names of `PEERS` that define the same.
        other: names of `PEERS` that define something else by that name.
    """

    formula: str
    peers: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.formula, *self.peers, *self.other)


CASES = (
    Case("ce", ("torch ce", "smp ce")),
    Case("focal", ("monai focal",), ("smp focal",)),
    Case("dice", ("smp dice", "monai dice")),
    Case("jaccard", ("smp jaccard", "monai jaccard")),
    Case("tversky", ("smp tversky", "monai tversky")),
    Case("focal_tversky", (), ("smp focal_tversky",)),
    Case("lovasz", ("smp lovasz",)),
    Case("boundary"),
    Case("boundary_ce"),
    Case("gradient"),
    Case("dice + ce", ("monai dice + ce",)),
    Case("dice + focal", ("monai dice + focal",)),
    Case("dice + jaccard + tversky", ("smp dice + jaccard + tversky",)),
)


def peer(name: str) -> Loss:
    """A loss of another library; imported when asked for, so that a process holds no library that it does not need."""
    library, _, loss = name.partition(" ")
    if library == "torch":
        return torch.nn.functional.cross_entropy
    return _smp(loss) if library == "smp" else _monai(loss)


def _smp(loss: str) -> Loss:
    from segmentation_models_pytorch import losses

    if " + " in loss:
        parts = [_smp(part) for part in loss.split(" + ")]
        return lambda logits, masks: torch.stack([part(logits, masks) for part in parts]).sum()
    made: Loss = {
        "ce": lambda: losses.SoftCrossEntropyLoss(smooth_factor=0.0),
        "focal": lambda: losses.FocalLoss("multiclass", gamma=2.0),
        "dice": lambda: losses.DiceLoss("multiclass"),
        "jaccard": lambda: losses.JaccardLoss("multiclass"),
        "tversky": lambda: losses.TverskyLoss("multiclass", alpha=0.3, beta=0.7),
        "focal_tversky": lambda: losses.TverskyLoss("multiclass", alpha=0.3, beta=0.7, gamma=0.75),
        "lovasz": lambda: losses.LovaszLoss("multiclass"),
    }[loss]()
    return made


def _monai(loss: str) -> Loss:
    from monai import losses

    focal = {"to_onehot_y": True, "use_softmax": True, "gamma": 2.0, "reduction": "sum"}
    made: Loss = {
        "focal": lambda: losses.FocalLoss(**focal),
        "dice": lambda: losses.DiceLoss(**MONAI, batch=True),
        "jaccard": lambda: losses.DiceLoss(**MONAI, batch=True, jaccard=True),
        "tversky": lambda: losses.TverskyLoss(**MONAI, alpha=0.3, beta=0.7, batch=True),
        "dice + ce": lambda: losses.DiceCELoss(**MONAI, batch=True),
        "dice + focal": lambda: losses.DiceLoss(**MONAI, batch=True),
    }[loss]()
    if loss == "dice + focal":
        # Their own sum, `DiceFocalLoss`, sums the focal part over pixels in another way.
        second = losses.FocalLoss(**focal)
        return lambda logits, masks: made(logits, masks.unsqueeze(1)) + second(logits, masks.unsqueeze(1)) / len(masks)
    scale = 1 / SHAPE[0] if loss == "focal" else 1.0
    return lambda logits, masks: scale * made(logits, masks.unsqueeze(1))


def loss_of(name: str) -> Loss:
    """A formula of ours, or a peer by its library's name."""
    if name.startswith(("torch ", "smp ", "monai ")):
        return peer(name)
    return build_loss(name, num_classes=SHAPE[1])


def batch(shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Logits, and masks of patches with every class."""
    n, num_classes, height, width = shape
    torch.manual_seed(0)
    patches = torch.randint(0, num_classes, (n, height // PATCH_PX, width // PATCH_PX))
    patches.view(-1)[:num_classes] = torch.arange(num_classes)
    masks = patches.repeat_interleave(PATCH_PX, 1).repeat_interleave(PATCH_PX, 2)
    logits = torch.randn(shape) + 2 * torch.nn.functional.one_hot(masks, num_classes).movedim(-1, 1)
    return logits.contiguous().requires_grad_(), masks


def step(loss: Loss, logits: Tensor, masks: Tensor) -> Tensor:
    logits.grad = None
    value = loss(logits, masks)
    value.backward()
    return value.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for a busy machine, with --threads 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # First, while this process has not computed anything: a process with running threads must not be copied.
    peaks = {name: memory_of(name) for case in CASES for name in case.names}
    rows = []
    for case in CASES:
        rows.append(measure(case, repeats=options.repeats, clock=CLOCKS[options.clock]))
        rows[-1]["peak_mib"] = {name: peaks[name] for name in case.names}
        print({name: round(ms) for name, ms in rows[-1]["ms"].items()}, file=sys.stderr, flush=True)
    together = sums(repeats=options.repeats, clock=CLOCKS[options.clock])
    load = os.getloadavg()[0]
    results = {
        "shape": SHAPE,
        "rows": rows,
        "together": together,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": options.threads,
            "clock": options.clock,
            "load_at_the_end": load,
            **{name: version(name) for name in ("torch", "segmentation_models_pytorch", "monai")},
        },
        "passed": together["ratio"] < WANTED_SUM_RATIO and all(row["level"] for row in rows),
    }
    show(results)
    if options.out is not None:
        write_json(options.out, results)


def measure(case: Case, *, repeats: int, clock: Clock) -> dict[str, Any]:
    """Time a formula of ours and its peers in turns, and how far they differ."""
    logits, masks = batch(SHAPE)
    losses = {name: loss_of(name) for name in case.names}
    steps = {name: lambda loss=loss: step(loss, logits, masks) for name, loss in losses.items()}
    ms = median_ms(steps, repeats=repeats, clock=clock)
    value = step(losses[case.formula], logits, masks)
    gradient = logits.grad
    assert gradient is not None, "the loss depends on the logits"
    differences = {}
    for name in case.peers:
        theirs = step(losses[name], logits, masks)
        assert logits.grad is not None, "the loss depends on the logits"
        largest = (logits.grad - gradient).abs().max() / gradient.abs().max()
        differences[name] = {"loss": abs(float(theirs - value)), "gradient": float(largest)}
    return {
        "formula": case.formula,
        "ms": ms,
        "differences": differences,
        "other": case.other,
        "level": all(ms[case.formula] <= NOISE * ms[name] for name in case.peers),
    }


def sums(*, repeats: int, clock: Clock) -> dict[str, float]:
    """Three region losses together against the dearest of them alone, in turns."""
    names = ("dice", "jaccard", "tversky")
    logits, masks = batch(SHAPE)
    losses = {name: loss_of(name) for name in (*names, " + ".join(names))}
    steps = {name: lambda loss=loss: step(loss, logits, masks) for name, loss in losses.items()}
    ms = median_ms(steps, repeats=repeats, clock=clock)
    return {**ms, "ratio": ms[" + ".join(names)] / max(ms[name] for name in names)}


def median_ms(runs: dict[str, Callable[[], object]], *, repeats: int, clock: Clock) -> dict[str, float]:
    """The median time of each in milliseconds, run in turns after two turns to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            started = clock()
            run()
            if turn >= 2:
                seconds[name].append(clock() - started)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def memory_of(name: str) -> float | None:
    """`peak_mib` in a copy of this process; None where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    loss = loss_of(name)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(tell, repr(peak_mib(loss)).encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told) as stream:
        return float(stream.read())


def peak_mib(loss: Loss) -> float:
    """Memory that one forward and backward pass takes at its peak, beyond logits and masks."""
    step(loss, *batch(SMALL))
    logits, masks = batch(SHAPE)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_mib("VmRSS")
    step(loss, logits, masks)
    return _status_mib("VmHWM") - before


def _status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def show(results: dict[str, Any]) -> None:
    console = Console(width=140)
    table = Table(title=f"Losses at {tuple(SHAPE)}, forward and backward")
    for head in ("loss", "", "ms", "times ours", "peak MiB", "difference", "of gradients"):
        table.add_column(head, justify="left" if head in ("loss", "") else "right")
    for row in results["rows"]:
        ours = row["ms"][row["formula"]]
        for name, ms in row["ms"].items():
            own = name == row["formula"]
            peak = row["peak_mib"][name]
            difference = row["differences"].get(name)
            table.add_row(
                name if own else "",
                "segwright" if own else name.partition(" ")[0] + (" (other)" if name in row["other"] else ""),
                f"{ms:.1f}",
                "" if own else f"{ms / ours:.2f}",
                "" if peak is None else f"{peak:.0f}",
                "" if difference is None else f"{difference['loss']:.1e}",
                "" if difference is None else f"{difference['gradient']:.1e}",
            )
    console.print(table)
    ratio = results["together"]["ratio"]
    console.print(f"dice + jaccard + tversky: {ratio:.2f} x the dearest of them (under {WANTED_SUM_RATIO} wanted)")
    left = sorted(set(LOSSES) - {row["formula"] for row in results["rows"]})
    assert not left, f"not measured: {left}"
    console.print("passed" if results["passed"] else "[red]not passed[/red]")


if __name__ == "__main__":
    main()
