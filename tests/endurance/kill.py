"""Kill a run with SIGKILL at random moments, also in the middle of a write, and see that nothing is lost.

    python tests/endurance/kill.py --kills 40 --out tests/endurance/results/kill.json

A small U-Net (batch norm, dropout, weight average) trains on generated terrain on one CPU core, with a budget in
epochs. Each process lives for a random time, or until a file of a random kind is half-written; then it is killed and
the run is resumed by the next. When a run ends before all kills are done, another one begins. Each is compared bit for
bit with a run that nothing disturbed: weights, optimiser, the numbers of every validation, the bundle. After each kill
the folder is looked at before anybody tidies it: what stands there must be whole.

The processes are forks of one that has imported PyTorch already, so that a restart takes a moment; the last process of
a run is the command line itself. States are saved after every step, not every half minute, so that many writes are hit.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from whole import differences, leftovers, step_of, wrong_in

from segwright.data.synthetic import write_terrain
from segwright.files import write_json
from segwright.recipe import Recipe, make_recipe
from segwright.training import state
from segwright.training.run import train

MOMENTS = ("any time", "start", "state half-written", "bundle half-written", "bundle being swapped")
LONGEST_LIFE_SECONDS = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parent / "results" / "kill.json"
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=default, help="JSON file for the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="segwright-endurance-") as folder:
        work = Path(folder)
        os.environ["SEGWRIGHT_CACHE"] = str(work / "cache")
        recipe = recipe_of(write_terrain(work / "terrain", images=24, size=(64, 64)), epochs=options.epochs)
        lone = start(lambda: train(recipe, run=work / "unbroken", progress=False), log=work / "log.txt")
        if os.waitpid(lone, 0)[1]:
            sys.exit((work / "log.txt").read_text())
        kills, runs = kill_often(recipe, work, kills=options.kills, chance=random.Random(options.seed))
    equal, whole = all(run["equal"] for run in runs), not any(kill["wrong"] for kill in kills)
    results = {
        "kills": kills, "runs": runs, "passed": len(kills) == options.kills and equal and whole,
        "seconds": round(time.monotonic() - began, 1), "seed": options.seed, "epochs": options.epochs,
        "machine": {"cores": os.cpu_count(), "torch": torch.__version__},
    }  # fmt: skip
    show(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, results)
    sys.exit(0 if results["passed"] else 1)


def recipe_of(data: Path, *, epochs: int) -> Recipe:
    return make_recipe(
        {
            "data": {"path": str(data)},
            "model": {"name": "unet", "encoder": None, "arguments": {"width": 8, "depth": 3, "dropout": 0.1}},
            "training": {"epochs": epochs, "batch_size": 3, "precision": "fp32", "ema": 0.9},
            "optimizer": {"lr": 0.003},
        }
    )


def start(work: Callable[[], object], *, log: Path) -> int:
    """A fork that does some work and leaves; what it prints is appended to `log`."""
    child = os.fork()
    if child:
        return child
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    state.RESUME_EVERY_SECONDS, state.SAVING_SHARE = 0.0, math.inf
    try:
        work()
    except BaseException as error:  # noqa: BLE001  # a fork must never return into the parent's code
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def kill_often(
    recipe: Recipe, work: Path, *, kills: int, chance: random.Random
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Kill until so many kills have hit a living process; finish each run and compare it."""
    done: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    while len(done) < kills or runs[-1]["name"] != f"run-{len(runs)}":
        run = work / f"run-{len(runs) + 1}"
        hits = 0
        while len(done) < kills:
            moment = chance.choice(MOMENTS)
            found = kill_once(recipe, run, moment=moment, chance=chance, log=work / "log.txt")
            if found is None:
                break
            hits += 1
            done.append({"number": len(done) + 1, "run": run.name, "moment": moment, **found})
            sys.stderr.write(f"kill {len(done):3d}  {run.name}  {moment:22s} {found}\n")
        runs.append({"name": run.name, "kills": hits, **finish(recipe, run, whole=work / "unbroken")})
    return done, runs


def kill_once(recipe: Recipe, run: Path, *, moment: str, chance: random.Random, log: Path) -> dict[str, Any] | None:
    """Start or resume a run, kill it at a moment, and look at what is left; None where it ended before."""
    began = run.exists()
    started = time.monotonic()
    child = start(lambda: train(recipe, run=run, resume=began, progress=False), log=log)
    wait_for_moment(child, run, moment=moment, chance=chance)
    if not has_ended(child):
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return None
    if code != -signal.SIGKILL:
        sys.exit(f"{run.name} failed:\n{log.read_text()[-2000:]}")
    seconds = round(time.monotonic() - started, 3)
    return {"seconds": seconds, "step": step_of(run), "left": leftovers(run), "wrong": wrong_in(run)}


def wait_for_moment(child: int, run: Path, *, moment: str, chance: random.Random) -> None:
    """Return at a random moment of a kind, or when the process ends."""
    started = time.time()
    if moment == "start":
        wait_for(child, lambda: False, longest=chance.uniform(0.0, 0.5))
        return
    wait_for(child, lambda: log_grows(run, since=started), longest=60)
    if moment == "any time":
        wait_for(child, lambda: False, longest=chance.uniform(0.0, LONGEST_LIFE_SECONDS))
        return
    sight = _SIGHTS[moment]
    for _ in range(chance.randrange(8 if moment == "state half-written" else 2)):
        wait_for(child, lambda: sight(run), longest=3)
        wait_for(child, lambda: not sight(run), longest=3)
    wait_for(child, lambda: sight(run), longest=3)


def wait_for(child: int, condition: Callable[[], bool], *, longest: float) -> None:
    """Wait until a condition is true, the process has ended, or the longest wait is over."""
    end = time.monotonic() + longest
    while not condition() and not has_ended(child) and time.monotonic() < end:
        time.sleep(0.0002)


def has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def log_grows(run: Path, *, since: float) -> bool:
    """Whether a process that was started then has begun to train: it has written to the log."""
    try:
        return (run / "log.txt").stat().st_mtime > since
    except OSError:
        return False


def _names(run: Path, start: str, end: str) -> bool:
    try:
        return any(path.name.startswith(start) and path.name.endswith(end) for path in run.iterdir())
    except OSError:
        return False


_SIGHTS: dict[str, Callable[[Path], bool]] = {
    "state half-written": lambda run: _names(run, ".resume.ckpt", ".part"),
    "bundle half-written": lambda run: _names(run, ".bundle.", ".part"),
    "bundle being swapped": lambda run: _names(run, ".bundle.old", ""),
}


def finish(recipe: Recipe, run: Path, *, whole: Path) -> dict[str, Any]:
    """Let a run end through the command line, and hold it beside the unbroken one."""
    if not run.exists():
        train(recipe, run=run, progress=False)
    words = [sys.executable, "-m", "segwright", "train", str(run), "--resume"]
    # More threads add up in another order, and round differently.
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=one_thread)
    differing, left = differences(whole, run), leftovers(run)
    equal = not differing and not left and ended.returncode == 0
    return {"equal": equal, "differing": differing, "left": left, "exit_code": ended.returncode}


def show(results: dict[str, Any]) -> None:
    """Print what came out."""
    table = Table(title=f"{len(results['kills'])} kills in {results['seconds']:.0f} seconds")
    for head in ("moment", "kills", "with half-written files", "before the first save", "spoilt files"):
        table.add_column(head, justify="left" if head == "moment" else "right")
    by_moment = Counter(kill["moment"] for kill in results["kills"])
    for moment, count in by_moment.items():
        same = [kill for kill in results["kills"] if kill["moment"] == moment]
        counts = (sum(map(bool, (kill["left"] for kill in same))), sum(kill["step"] is None for kill in same))
        table.add_row(moment, str(count), *map(str, counts), str(sum(len(kill["wrong"]) for kill in same)))
    console = Console()
    console.print(table)
    for run in results["runs"]:
        verdict = "bit for bit the unbroken run" if run["equal"] else f"DIFFERS: {run}"
        console.print(f"{run['name']}: {run['kills']} kills, then {verdict}")
    console.print("passed" if results["passed"] else "FAILED")


if __name__ == "__main__":
    main()
