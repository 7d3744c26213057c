"""The folder of a study, and how far each of its runs is, as told by what stands on disk.

study.yaml   as read, base and rows written out in it     recipes/<run>.yaml   what each run is started with
runs/<run>/  ordinary run folders                         logs/<run>.txt       what it printed
copies/      augmented copies of rows that ask for them   errors/<run>.txt     why it could not be trained
claims/      locked while somebody works on the run
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from segwright.errors import OutputError, SegwrightError
from segwright.files import read_json, read_yaml, write_yaml
from segwright.metrics import Definition
from segwright.recipe import DEFAULT_EPOCHS
from segwright.runs import STAGED_FILE, is_ended_refit, stages_folder
from segwright.studies.grid import Study, Trial

State = Literal["missing", "half", "done", "failed"]

STUDY_FILE, RUNS, COPIES, CLAIMS = "study.yaml", "runs", "copies", "claims"

_ATTEMPT = "--- begun "
"""Starts the line of a log above what an attempt prints."""


@dataclass(frozen=True)
class Place:
    """Where a run of a study lies.

    Attributes:
        run: its folder.
        recipe: what it is started with.
        log: what it prints.
        error: why it could not be trained.
    """

    run: Path
    recipe: Path
    log: Path
    error: Path


def place_of(out: Path, name: str) -> Place:
    """The files of a run, by its name."""
    return Place(out / RUNS / name, out / "recipes" / f"{name}.yaml", out / "logs" / f"{name}.txt", _error(out, name))


def _error(out: Path, name: str) -> Path:
    return out / "errors" / f"{name}.txt"


def state_of(out: Path, name: str) -> State:
    """How far a run is: `half` where something of it can be resumed, `failed` where it had an error."""
    run = out / RUNS / name
    if is_done(run):
        return "done"
    if _error(out, name).is_file():
        return "failed"
    return "half" if is_begun(run) else "missing"


def is_begun(run: Path) -> bool:
    """Whether something of a run stands there that can be resumed."""
    return (run / "recipe.yaml").is_file() or (stages_folder(run) / STAGED_FILE).is_file()


def is_done(run: Path) -> bool:
    """Whether a run is trained and scored, or is a refit that came to its end."""
    if not (run / "bundle" / "bundle.json").is_file():
        return False
    return (run / "scores" / "val.json").is_file() or is_ended_refit(run)


def score_of(run: Path, *, definition: Definition) -> float | None:
    """The mIoU of a run that is done; None of another."""
    try:
        summary = read_json(run / "scores" / "val.json")
        value = summary["definitions"][definition]["miou"]["estimate"]
    except (SegwrightError, KeyError, TypeError):
        return None
    return None if value is None else float(value)


def last_row(run: Path) -> dict[str, Any] | None:
    """The last validation of a run, as `metrics.jsonl` has it; None before the first."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # a kill cut it short
            continue
        if isinstance(row, dict):
            return row
    return None


def share_done(trial: Trial, run: Path) -> tuple[float, float]:
    """The share of a run's budget that is spent, as of its last validation, and the seconds that took."""
    row = last_row(run)
    if row is None:
        return 0.0, 0.0
    asked = trial.recipe["training"]
    if asked["minutes"] is not None:
        share = row["seconds"] / (60 * asked["minutes"])
    else:
        share = row["epoch"] / (asked["epochs"] or DEFAULT_EPOCHS)
    return min(1.0, float(share)), float(row["seconds"])


def why_failed(out: Path, name: str) -> str:
    """The error of a run in one line; empty where there is none."""
    try:
        lines = _error(out, name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[0] if lines else ""


def begin_attempt(log: Path) -> None:
    """Part what a run prints from now on from what it printed when it was tried before.

    Raises:
        OutputError: the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:
            # What was killed may have left half a line.
            above = "\n" if stream.tell() else ""
            stream.write(f"{above}{_ATTEMPT}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n")
    except OSError as error:
        mend = "free some space or choose another folder"
        raise OutputError(f"cannot be written ({error.strerror})", mend=mend, file=log) from None


def reason_in(log: Path) -> str:
    """What a program said last, in its last attempt: its own error where it had one, else its last line."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "it printed nothing"
    begins = [number for number, line in enumerate(lines, 1) if line.startswith(_ATTEMPT)]
    lines = lines[begins[-1] :] if begins else lines
    told = [line.removeprefix("segwright: ") for line in lines if line.startswith("segwright: ")]
    return (told or [line for line in lines if line] or ["it printed nothing"])[-1]


def begin_study(study: Study, out: Path) -> None:
    """Make the folder of a study and keep its file there; a study that was changed since keeps its runs.

    Raises:
        OutputError: another study lies there, or nothing can be written.
    """
    file = out / STUDY_FILE
    if file.exists():
        before = read_yaml(file)
        name = before.get("name") if isinstance(before, Mapping) else None
        if name != study.name:
            problem = f"holds the study '{name}', and this one is '{study.name}'"
            raise OutputError(problem, mend="choose another folder with -o, or give it that 'name'", file=out)
    if not file.exists() or read_yaml(file) != study.file:
        write_yaml(file, dict(study.file))


def counts_of(out: Path, trials: Sequence[Trial]) -> dict[State, int]:
    """How many runs are in each state."""
    counts: dict[State, int] = {"done": 0, "half": 0, "missing": 0, "failed": 0}
    for trial in trials:
        counts[state_of(out, trial.name)] += 1
    return counts
