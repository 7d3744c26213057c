"""What is seen of a study that runs: a table that keeps itself up to date on a terminal, else a line for each run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from segwright.errors import one_line
from segwright.metrics import Definition
from segwright.studies.grid import Trial
from segwright.studies.state import State, place_of, score_of, share_done, state_of, why_failed

REFRESH_SECONDS = 2.0


class Watch:
    """Shows how far the runs of a study are.

    Args:
        out: the study's folder.
        trials: its runs.
        definition: of the mIoU that is shown.
        jobs: how many run at a time, for the time left.
        console: where to; a table that moves where it is a terminal.
    """

    def __init__(
        self, out: Path, trials: Sequence[Trial], *, definition: Definition, jobs: int, console: Console
    ) -> None:
        self._out, self._trials, self._definition, self._jobs = out, trials, definition, jobs
        self._console = console
        self._running: dict[str, float] = {}
        self._took: list[float] = []
        self._scores: dict[str, float | None] = {}
        self._doing = ""
        self._live: Live | None = None
        if console.is_terminal and not console.quiet:
            self._live = Live(get_renderable=self._table, console=console, refresh_per_second=1 / REFRESH_SECONDS)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.clear()
        if self._live is not None:
            self._live.stop()

    def doing(self, text: str) -> None:
        """Say what is done beside the runs, such as that copies are made."""
        self._doing = text
        if text and self._live is None:
            self._say(text)

    def started(self, name: str) -> None:
        self._running[name] = time.monotonic()

    def ended(self, name: str, *, seconds: float) -> None:
        """Note that a run ended, however it did."""
        self._running.pop(name, None)
        state = state_of(self._out, name)
        if state == "done":
            self._took.append(seconds)
        if self._live is not None:
            return
        over = sum(state_of(self._out, trial.name) in ("done", "failed") for trial in self._trials)
        what = f"{state}: {why_failed(self._out, name)}" if state == "failed" else state
        if state == "done":
            score = self._score(name)
            what += "" if score is None else f", mIoU {score:.4f}"
        self._say(f"[{over}/{len(self._trials)}] {name}: {what} ({seconds / 60:.1f} min)")

    def _say(self, text: str) -> None:
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def _score(self, name: str) -> float | None:
        if name not in self._scores:
            self._scores[name] = score_of(place_of(self._out, name).run, definition=self._definition)
        return self._scores[name]

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, caption=self._caption(), caption_justify="left")
        for head in ("row", "runs", "now", "mIoU"):
            table.add_column(head, justify="left" if head in ("row", "now") else "right")
        for row in dict.fromkeys(trial.row for trial in self._trials):
            table.add_row(*(escape(one_line(cell)) for cell in self._cells(row)))
        return table

    def _cells(self, row: str) -> tuple[str, str, str, str]:
        trials = [trial for trial in self._trials if trial.row == row]
        states: list[State] = [state_of(self._out, trial.name) for trial in trials]
        scores = [
            score for trial, state in zip(trials, states, strict=True)
            if state == "done" and (score := self._score(trial.name)) is not None
        ]  # fmt: skip
        now = [f"{self._share(trial):.0%}" for trial in trials if trial.name in self._running]
        failed = [why_failed(self._out, t.name) for t, state in zip(trials, states, strict=True) if state == "failed"]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        return (
            row,
            f"{states.count('done')}/{len(trials)}",
            "; ".join([*now, *failed[:1]]),
            f"{statistics.fmean(scores):.4f}{spread}" if scores else "",
        )

    def _share(self, trial: Trial) -> float:
        return share_done(trial, place_of(self._out, trial.name).run)[0]

    def _caption(self) -> str:
        left = self._seconds_left()
        time_left = "" if left is None else f"about {left / 60:.0f} min left"
        return escape(", ".join(part for part in (self._doing, time_left) if part))

    def _seconds_left(self) -> float | None:
        """From what runs took so far; before one ended, from the share that those that run have done."""
        usual = statistics.fmean(self._took) if self._took else None
        if usual is None:
            pace = [share_done(t, place_of(self._out, t.name).run) for t in self._trials if t.name in self._running]
            known = [seconds / share for share, seconds in pace if share > 0]
            usual = statistics.fmean(known) if known else None
        if usual is None:
            return None
        open_runs = [t for t in self._trials if state_of(self._out, t.name) in ("missing", "half")]
        return sum(usual * (1 - self._share(trial)) for trial in open_runs) / self._jobs
