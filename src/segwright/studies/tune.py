"""A search for a better recipe, within a budget by the clock.

Every trial is a process, `segwright train`, with the same share of the budget. One that lags behind the others is
stopped early, and its time given to further trials (see `proposals.py`). Several machines that see the folder search
together, and a search that was stopped goes on, with its half-trained runs.

The validation images are what is searched on: the winner's score on them flatters it.
"""

from __future__ import annotations

import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segwright.errors import OutputError, RunError, SegwrightError
from segwright.files import read_yaml, write_yaml
from segwright.launch import Ended, Job
from segwright.launch.local import LocalLauncher
from segwright.recipe import DEFAULT_EPOCHS, Recipe, make_recipe
from segwright.studies.grid import digest_of, named_by
from segwright.studies.proposals import RUNGS, Proposal, Proposals, PrunerName
from segwright.studies.space import Search, changed, require_sound
from segwright.studies.state import Place, begin_attempt, is_begun, is_done, place_of, reason_in
from segwright.studies.tuned import Tuned, epochs_of, front_of, scores_of, write_found

STARTING_SECONDS = 15.0
"""Of a trial's share, kept for starting its process and for scoring; at most two fifths of it."""

PROGRAM = (sys.executable, "-m", "segwright", "train")

_WATCH_SECONDS = 0.5
_MOST_IN_VAIN = 50
"""Proposals in a row that needed no training: the space has nothing new to offer."""


@dataclass(frozen=True)
class Effort:
    """How long, and how.

    Attributes:
        minutes: of this call. A trial is begun only where it will end in time; the first one always is.
        trials: so many fit when none is stopped early: a trial's share is minutes * jobs / trials.
        epochs: of every trial, in place of a share by the clock.
        jobs: trials at a time.
        gpus: numbers of the GPUs that may be used.
        pruner: how lagging trials are stopped early.
        seed: of the proposals.
    """

    minutes: float
    trials: int = 20
    epochs: int | None = None
    jobs: int = 1
    gpus: tuple[int, ...] = ()
    pruner: PrunerName = "median"
    seed: int = 0

    @property
    def share_seconds(self) -> float:
        """Of a trial, with all that belongs to it."""
        return self.minutes * 60 * self.jobs / self.trials

    @property
    def budget(self) -> dict[str, float | int | None]:
        """Of a trial, as keys of `training`."""
        if self.epochs is not None:
            return {"epochs": self.epochs, "minutes": None}
        seconds = self.share_seconds - min(STARTING_SECONDS, 0.4 * self.share_seconds)
        return {"epochs": None, "minutes": round(seconds / 60, 4)}


def tune(search: Search, effort: Effort, *, out: Path, say: Callable[[str], None] = lambda line: None) -> Tuned:
    """Search, and write what was found into `out`; a folder of an earlier call is searched further.

    Args:
        search: what.
        effort: how long.
        out: the folder of the study.
        say: told of every trial that ends.

    Raises:
        RecipeError: a key or value of the space is wrong.
        RunError: the folder holds a search for something else, or no trial came to its end.
        OutputError: the folder cannot be written to.
    """
    require_sound(search.base, search.space)
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", mend="choose another -o", file=out) from None
    proposals = Proposals(search, folder=out, budget=effort.budget, pruner=effort.pruner, seed=effort.seed)
    proposals.give_back_lost()
    try:
        _Tuner(search, effort, proposals=proposals, out=out, say=say).work()
    finally:
        found = found_so_far(proposals, search, out=out)
        write_found(found, recipes={number: _recipe_to_keep(found, number, search) for number in found.front})
    if found.best is None:
        failed = [trial.run for trial in found.trials if trial.state == "failed" and trial.run]
        why = f" ({reason_in(place_of(out, failed[-1]).log)})" if failed else ""
        raise RunError(f"no trial came to its end{why}", mend="give it more --minutes, or fewer --trials", file=out)
    return found


def found_so_far(proposals: Proposals, search: Search, *, out: Path) -> Tuned:
    """The search as it stands."""
    trials = proposals.tried()
    return Tuned(
        folder=out,
        objectives=search.objectives,
        definition=search.definition,
        trials=trials,
        front=front_of(trials, search.objectives),
        base=proposals.number_of_base(),
        importances=proposals.importances(),
    )


class _Tuner:
    """Asks for trials, has them trained, watches them and tells what they reached."""

    def __init__(
        self, search: Search, effort: Effort, *, proposals: Proposals, out: Path, say: Callable[[str], None]
    ) -> None:
        self._search, self._effort, self._proposals, self._out, self._say = search, effort, proposals, out, say
        self._until = time.monotonic() + effort.minutes * 60
        self._launcher = LocalLauncher(jobs=effort.jobs, gpus=effort.gpus)
        self._running: dict[str, _Running] = {}
        self._walls: list[float] = []
        self._over = threading.Event()
        self._telling = threading.Lock()

    def work(self) -> None:
        """Run trials until the budget is spent."""
        watcher = threading.Thread(target=self._watch, name="watch-trials", daemon=True)
        watcher.start()
        try:
            with self._launcher:
                for ended in self._launcher.run(self._jobs()):
                    # A trial that is told of cannot be reported on any more.
                    with self._telling:
                        self._tell(self._running.pop(ended.name), ended)
        finally:
            self._over.set()
            watcher.join()
            for running in self._running.values():
                self._proposals.left_open(running.proposal)

    def _jobs(self) -> Iterator[Job]:
        begun, in_vain = False, 0
        while in_vain < _MOST_IN_VAIN and (not begun or self._has_time()):
            proposal, claim = self._proposals.ask()
            job = self._job(proposal, claim)
            in_vain = in_vain + 1 if job is None else 0
            if job is not None:
                begun = True
                yield job

    def _has_time(self) -> bool:
        """Whether a whole trial fits in what is left."""
        wall = statistics.median(self._walls) if self._walls else 0.9 * self._effort.share_seconds
        return time.monotonic() + wall <= self._until

    def _job(self, proposal: Proposal, claim: int) -> Job | None:
        """What trains a trial; None where it is done already, or cannot be."""
        try:
            tree = changed(self._search.base, proposal.values).as_dict()
            tree["training"] |= self._proposals.budget
            tree["data"]["audit"] = False  # looked at once, before the first trial
            recipe = make_recipe(tree)
        except SegwrightError as error:  # keys that do not go together
            self._proposals.ended(proposal, "failed")
            self._say(f"trial {proposal.number}: {error}")
            return None
        digest = digest_of(recipe)
        proposal.named(proposal.run or self._run_of(digest) or f"trial-{proposal.number:04d}-{digest}")
        place = place_of(self._out, str(proposal.run))
        if is_done(place.run):
            self._score(proposal, place.run)
            return None
        write_yaml(place.recipe, recipe.as_dict())
        begin_attempt(place.log)
        self._running[place.run.name] = _Running(proposal, place.run, _budget_of(recipe))
        return _job_of(place, claim=claim, gpus=1 if self._effort.gpus else 0)

    def _run_of(self, digest: str) -> str | None:
        """The run of an earlier trial of the same values."""
        runs = (self._out / "runs").glob(f"trial-*-{digest}")
        return next((run.name for run in runs if is_done(run)), None)

    def _watch(self) -> None:
        """Stop running trials that lag behind."""
        while len(self._search.objectives) == 1 and not self._over.wait(_WATCH_SECONDS):
            for name in list(self._running):
                with self._telling:
                    running = self._running.get(name)
                    if running is not None and not running.pruned and running.lags():
                        running.pruned = True
                        self._launcher.stop(name)

    def _tell(self, running: _Running, ended: Ended) -> None:
        proposal, run = running.proposal, running.run
        proposal.took(ended.seconds)
        if is_done(run):
            self._walls.append(ended.seconds)
            self._score(proposal, run)
        elif running.pruned:
            self._proposals.ended(proposal, "pruned")
            self._say(f"trial {proposal.number}: stopped early at mIoU {running.best:.4f}")
        elif ended.code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
            self._proposals.left_open(proposal)
            self._say(f"trial {proposal.number}: ended from outside; it goes on with the next call")
        else:
            self._proposals.ended(proposal, "failed")
            self._say(f"trial {proposal.number}: failed ({reason_in(place_of(self._out, run.name).log)})")

    def _score(self, proposal: Proposal, run: Path) -> None:
        scores = scores_of(run, objectives=self._search.objectives, definition=self._search.definition)
        self._proposals.reached(proposal, list(scores.values()))
        told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        short = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in proposal.values.items()}
        self._say(f"trial {proposal.number}: {told}   {named_by(short)}")


class _Running:
    """A trial whose process runs.

    Args:
        proposal: what it tries.
        run: its folder.
        budget: seconds or epochs.
    """

    def __init__(self, proposal: Proposal, run: Path, budget: tuple[Literal["seconds", "epoch"], float]) -> None:
        self.proposal, self.run = proposal, run
        self._key, self._most = budget
        self._rung = 0
        self.best = 0.0
        self.pruned = False

    def lags(self) -> bool:
        """Whether the best mIoU at a tenth of the budget that was passed since the last look is too little."""
        for row in epochs_of(self.run):
            rung = min(RUNGS, int(RUNGS * float(row[self._key]) / self._most))
            self.best = max(self.best, float(row["val_miou"] or 0.0))
            for passed in range(self._rung + 1, rung + 1):
                self._rung = passed
                if self.proposal.lags(self.best, rung=passed):
                    return True
        return False


def _budget_of(recipe: Recipe) -> tuple[Literal["seconds", "epoch"], float]:
    training = recipe.training
    return ("seconds", training.minutes * 60) if training.minutes else ("epoch", training.epochs or DEFAULT_EPOCHS)


def _job_of(place: Place, *, claim: int, gpus: int) -> Job:
    again = (*PROGRAM, str(place.run), "--resume")
    fresh = (*PROGRAM, str(place.recipe), "--name", place.run.name, "--out", str(place.run.parent))
    return Job(
        name=place.run.name,
        command=again if is_begun(place.run) else fresh,
        log=place.log,
        gpus=gpus,
        results=place.run,
        again=again,
        locks=(claim,),
    )


def _recipe_to_keep(found: Tuned, number: int, search: Search) -> Recipe:
    """The recipe of a trial as a user trains it: with the base's own budget, and its own look at the data before."""
    trial = next(trial for trial in found.trials if trial.number == number)
    tree = read_yaml(found.folder / "runs" / trial.run / "recipe.yaml")
    tree["data"]["audit"] = search.base.data.audit
    tree["training"] |= search.base.training.model_dump(include={"minutes", "epochs"})
    return make_recipe(tree)
