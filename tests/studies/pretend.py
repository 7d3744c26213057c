"""In place of `segwright train`: runs of some steps that leave the same files, in milliseconds.

    python -I -S pretend.py train RECIPE --name NAME --out RUNS        python -I -S pretend.py train RUN --resume

What it does is in the text of the recipe: `formula: fails` ends with an error, `formula: dies` is killed once,
`formula: staged` once while it is in its stages, and `formula: doomed` is killed always. Every start and step stands in
`trace.txt` beside the runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

STEPS = 6


def main() -> None:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    words = sys.argv[2:]
    fresh = "--resume" not in words
    run = Path(words[words.index("--out") + 1]) / words[words.index("--name") + 1] if fresh else Path(words[0])
    staged = run.with_name(run.name + ".stages") / "staged.yaml"
    time.sleep(0.02)
    if fresh:
        text = Path(words[0]).read_text()
        if "formula: staged" in text:
            staged.parent.mkdir(parents=True)
            staged.write_text(text)
            os.kill(os.getpid(), signal.SIGKILL)
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text(text)
    elif staged.exists() and not run.exists():
        run.mkdir()
        (run / "recipe.yaml").write_text(staged.read_text())
    recipe = (run / "recipe.yaml").read_text()
    lock = (run / ".lock").open("ab")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    trace(run, "begins" if fresh else "resumes")
    state = json.loads((run / "state.json").read_text()) if (run / "state.json").exists() else {"step": 0, "value": 7}
    if "formula: fails" in recipe:
        sys.stderr.write("segwright: the loss is no number. Lower the rate.\n")
        sys.exit(2)
    seed = int(re.search(r"\n  seed: (\d+)\n  devices", recipe).group(1))
    while state["step"] < STEPS:
        time.sleep(float(os.environ.get("PRETEND_STEP_SECONDS", "0.01")))
        state = {"step": state["step"] + 1, "value": (state["value"] * 31 + seed) % 1009}
        trace(run, f"step {state['step']}")
        write(run / "state.json", state)
        if "formula: doomed" in recipe or ("formula: dies" in recipe and fresh and state["step"] == 3):
            os.kill(os.getpid(), signal.SIGKILL)
        if asked:
            sys.exit(143)
    (run / "bundle").mkdir(exist_ok=True)
    write(run / "bundle" / "bundle.json", {})
    (run / "scores").mkdir(exist_ok=True)
    write(run / "scores" / "val.json", {"definitions": {"declared": {"miou": {"estimate": state["value"] / 1009}}}})


def trace(run: Path, what: str) -> None:
    with (run.parent.parent / "trace.txt").open("a") as stream:
        stream.write(f"{run.name} {what} {os.getpid()}\n")


def write(path: Path, tree: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(tree))
    part.replace(path)


if __name__ == "__main__":
    main()
