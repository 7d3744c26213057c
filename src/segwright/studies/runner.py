"""Run what is missing of a study: every run a process of its own, so that none takes the others with it.

A run is begun by whoever claims it; a second runner that is started beside the first takes what is left. A run that was
stopped goes on where it was, one that a signal ended (a kill, want of memory) is tried again, and one that fails leaves
its error in the table while the others go on.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from segwright.errors import DataError, RunStopped
from segwright.files import write_text, write_yaml
from segwright.launch import Ended, Job, Launcher
from segwright.runs import STAGED_FILE, assignments, stages_folder
from segwright.studies.claims import Claims, is_locked
from segwright.studies.grid import Study, Trial, recipe_of_copies
from segwright.studies.grid import trials as trials_of
from segwright.studies.state import (
    CLAIMS,
    COPIES,
    begin_attempt,
    begin_study,
    counts_of,
    is_begun,
    is_done,
    place_of,
    reason_in,
    why_failed,
)
from segwright.studies.watch import Watch

PROGRAM = (sys.executable, "-m", "segwright")
MOST_TRIES = 3
"""Of a run that signals end."""
LOOK_SECONDS = 1.0
"""How often runs are looked at that another runner works on."""


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        out: its folder.
        done: runs that are trained and scored.
        failed: those that could not be trained; `errors/` tells why.
        seconds: how long it took.
    """

    out: Path
    done: int
    failed: int
    seconds: float


def run_study(
    study: Study,
    out: Path,
    *,
    launcher: Launcher,
    trials: Sequence[Trial] | None = None,
    need: tuple[int, int] = (1, 0),
    jobs: int = 1,
    retry: bool = False,
    progress: bool = True,
) -> Outcome:
    """Train and score every run that is not there yet.

    Args:
        study: what to run.
        out: the study's folder.
        launcher: where the runs run; it is closed at the end.
        trials: those that are wanted; None for all.
        need: cores and GPUs of a run.
        jobs: how many run at a time, for the time left.
        retry: try those again that failed before.
        progress: show how far it is.

    Raises:
        DataError: the images are not there.
        RunStopped: a signal ended it; what ran was saved, and the same call goes on.
        SegwrightError: another study lies there, or the folder cannot be written to.
    """
    began = time.monotonic()
    chosen = tuple(trials_of(study) if trials is None else trials)
    console = Console(quiet=not progress)
    with ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        claims = Claims(out / CLAIMS)
        stack.callback(claims.give_all_back)
        stack.enter_context(launcher)
        _require_data(chosen)
        begin_study(study, out)
        watch = Watch(out, chosen, definition=study.definition, jobs=jobs, console=console)
        stack.enter_context(watch)
        if retry:
            for trial in chosen:
                place_of(out, trial.name).error.unlink(missing_ok=True)
        work = _Work(out, claims=claims, launcher=launcher, watch=watch, need=need)
        work.make_copies(chosen)
        work.train(chosen)
    counts = counts_of(out, chosen)
    return Outcome(out, done=counts["done"], failed=counts["failed"], seconds=time.monotonic() - began)


class _Work:
    """Gives out what nobody works on, and takes note of how it ended."""

    def __init__(self, out: Path, *, claims: Claims, launcher: Launcher, watch: Watch, need: tuple[int, int]) -> None:
        self._out, self._claims, self._launcher, self._watch, self._need = out, claims, launcher, watch, need
        self._tries: Counter[str] = Counter()

    def make_copies(self, trials: Sequence[Trial]) -> None:
        """Write the augmented copies that runs are trained on; where that fails, so do these runs."""
        open_runs = [trial for trial in trials if trial.copies is not None and not self._is_over(trial)]
        wanted = {trial.copies_name: trial for trial in open_runs}
        while missing := [name for name in wanted if not self._copies_are_over(name)]:
            self._watch.doing("making copies")
            seen = 0
            for ended in self._launcher.run(self._copy_jobs(wanted, missing)):
                seen += 1
                if ended.code and not self._again(ended):
                    self._fail(ended, name=ended.name)
                self._claims.give_back(ended.name)
            if not seen:
                time.sleep(LOOK_SECONDS)
        self._watch.doing("")
        for trial in open_runs:
            if not _copies_card(self._out, trial).is_file():
                reason = why_failed(self._out, trial.copies_name)
                write_text(place_of(self._out, trial.name).error, f"no copies: {reason}\n")
        for name in wanted:
            place_of(self._out, name).error.unlink(missing_ok=True)

    def _copies_are_over(self, name: str) -> bool:
        return (self._out / COPIES / name / "data.yaml").is_file() or place_of(self._out, name).error.is_file()

    def _copy_jobs(self, wanted: Mapping[str, Trial], missing: Sequence[str]) -> Iterator[Job]:
        for name in missing:
            descriptor = self._claims.take(name)
            if descriptor is None:
                continue
            if self._copies_are_over(name):
                self._claims.give_back(name)
                continue
            place = place_of(self._out, name)
            write_yaml(place.recipe, recipe_of_copies(wanted[name].recipe))
            begin_attempt(place.log)
            folder = self._out / COPIES / name
            words = _augment_words(wanted[name], recipe=place.recipe, folder=folder)
            yield Job(name=name, command=words, log=place.log, cpus=self._need[0], results=folder, locks=(descriptor,))

    def train(self, trials: Sequence[Trial]) -> None:
        """Train until each run is done or failed, here or by another runner."""
        while left := [trial for trial in trials if not self._is_over(trial)]:
            seen = 0
            for ended in self._launcher.run(self._jobs(left)):
                seen += 1
                self._note(ended)
            if not seen:
                time.sleep(LOOK_SECONDS)

    def _is_over(self, trial: Trial) -> bool:
        place = place_of(self._out, trial.name)
        return is_done(place.run) or place.error.is_file()

    def _jobs(self, trials: Sequence[Trial]) -> Iterator[Job]:
        """Those that nobody works on, each claimed when there is room for it."""
        for trial in trials:
            if self._is_over(trial):
                continue
            descriptor = self._claims.take(trial.name)
            if descriptor is None:
                continue
            place = place_of(self._out, trial.name)
            # Somebody may have ended it since, or somebody without a claim trains it, such as `train --resume`.
            if self._is_over(trial) or is_locked(place.run / ".lock"):
                self._claims.give_back(trial.name)
                continue
            write_yaml(place.recipe, recipe_in(trial, self._out))
            begin_attempt(place.log)
            self._watch.started(trial.name)
            yield self._job(trial, locks=(descriptor,))

    def _job(self, trial: Trial, *, locks: tuple[int, ...]) -> Job:
        place = place_of(self._out, trial.name)
        again = (*PROGRAM, "train", str(place.run), "--resume")
        fresh = (*PROGRAM, "train", str(place.recipe), "--name", trial.name, "--out", str(place.run.parent))
        devices = trial.recipe["training"]["devices"]
        times = devices if isinstance(devices, int) else 1
        return Job(
            name=trial.name,
            command=again if is_begun(place.run) else fresh,
            log=place.log,
            cpus=times * self._need[0],
            gpus=times * self._need[1],
            results=place.run,
            begun=stages_folder(place.run) / STAGED_FILE,
            again=again,
            locks=locks,
        )

    def _note(self, ended: Ended) -> None:
        place = place_of(self._out, ended.name)
        # A run is what it left: a fault after its scores were kept, as in its report, is none of the study.
        if not is_done(place.run) and not self._again(ended):
            self._fail(ended, name=ended.name)
        self._watch.ended(ended.name, seconds=ended.seconds)
        self._claims.give_back(ended.name)

    def _again(self, ended: Ended) -> bool:
        self._tries[ended.name] += 1
        return ended.was_stopped and self._tries[ended.name] < MOST_TRIES

    def _fail(self, ended: Ended, *, name: str) -> None:
        place = place_of(self._out, name)
        reason = reason_in(place.log)
        if ended.was_stopped:
            reason = f"signal {ended.code - 128} ended it {self._tries[name]} times; it last said: {reason}"
        elif ended.code == 0:
            reason = f"it ended without scores; it last said: {reason}"
        write_text(place.error, f"{reason}\nexit code {ended.code}, see {place.log}\n")


def recipe_in(trial: Trial, out: Path) -> dict[str, Any]:
    """The recipe that a run is trained with: of its copies, where it has some."""
    tree = dict(trial.recipe)
    if trial.copies is None:
        return tree
    # The copies stand beside the originals, already divided, and without those that were dropped.
    path = str(_copies_card(out, trial).resolve())
    refit = tree["data"]["split"]["refit"]
    data = {**tree["data"], "path": path, "format": "auto", "split": {"refit": refit} if refit else {}, "drop": []}
    # Masks of copies hold the labels themselves, whatever the originals' masks hold.
    return {**tree, "data": data, "classes": {**tree["classes"], "mask_values": [], "void_values": [255]}}


def _copies_card(out: Path, trial: Trial) -> Path:
    return out / COPIES / trial.copies_name / "data.yaml"


def _augment_words(trial: Trial, *, recipe: Path, folder: Path) -> tuple[str, ...]:
    asked = trial.copies
    assert asked is not None, "only rows with copies come here"
    words = [*PROGRAM, "augment", str(recipe), "-o", str(folder)]
    words += ["-n", str(asked.count), "--seed", str(asked.seed), "--preset", asked.preset]
    for name in asked.only_classes:
        words += ["--only-class", name]
    for text in assignments(asked.overrides):
        words += ["--override", text]
    return tuple(words)


def _require_data(trials: Sequence[Trial]) -> None:
    paths = {str(trial.recipe["data"]["path"]): trial for trial in trials}
    for path, trial in paths.items():
        if trial.recipe["data"]["path"] is None:
            raise DataError(f"row '{trial.row}' names no data", mend="add data.path to 'base'")
        if not Path(path).exists():
            raise DataError("is missing", mend="check data.path, which is relative to the study file", file=path)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the study as Ctrl-C does: what runs is saved first."""

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise RunStopped(f"stopped by {name}; what ran is saved, and the same command goes on", signal_number=number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
