"""The state of a run in one file, `resume.ckpt`: weights, their average, optimiser, budget, chance, place in the data.

It is written whole or not at all, never with weights that are no numbers, at moments from which a run goes on exactly
as if it had not been stopped: after a step, or at the end of an epoch before or after its validation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor

from segwright.errors import RunError, TrainingError
from segwright.files import atomic
from segwright.tensors import Batch
from segwright.training.callbacks import ours
from segwright.training.processes import ALONE, Team
from segwright.training.signals import StopAskedError, StopSignals

STATE_FILE = "resume.ckpt"
RESUME_EVERY_SECONDS = 30.0
SAVING_SHARE = 0.02
"""Large states are saved less often, so that saving takes at most about this share of the time."""


class StateKeeper(pl.Callback):
    """Saves the state now and then and at the end, and stops the run when a signal asked for it.

    Args:
        run: the run folder.
        signals: tells whether to stop.
        facts: plain values that `read_state` gives back.
        team: process 0 decides for all, and writes.
    """

    def __init__(self, run: Path, *, signals: StopSignals, facts: Mapping[str, str | int], team: Team = ALONE) -> None:
        self._run, self._signals, self._facts, self._team = run, signals, dict(facts), team
        self._saved_at, self._cost = 0.0, 0.0

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["segwright"] = self._facts

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._signals.catch()
        self._saved_at = time.monotonic()
        if self._team.decided(self._signals.asked is not None):
            raise StopAskedError

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        # Where the end of the epoch follows at once, the state is saved there.
        if not trainer.is_last_batch and not trainer.should_stop:
            self._stop_or_save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_or_save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def _stop_or_save(self, trainer: pl.Trainer) -> None:
        wait = max(RESUME_EVERY_SECONDS, self._cost / SAVING_SHARE)
        due = time.monotonic() - self._saved_at > wait
        wish = 2 if self._signals.asked is not None else int(due)
        wish = int(self._team.agreed(wish))
        if wish:
            self._save(trainer)
        if wish == 2:
            raise StopAskedError

    def _save(self, trainer: pl.Trainer) -> None:
        started = time.monotonic()
        require_finite(trainer)
        trainer.save_checkpoint(self._run / STATE_FILE)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started


def require_finite(trainer: pl.Trainer) -> None:
    """Weights and optimiser must be numbers, or they are not worth keeping.

    Raises:
        TrainingError: they are not.
    """
    states = (state.values() for optimizer in trainer.optimizers for state in optimizer.state.values())
    module = ours(trainer.lightning_module)
    tensors = [*module.state_dict().values(), *(value for values in states for value in values)]
    if not all_finite(value for value in tensors if isinstance(value, Tensor)):
        raise TrainingError(
            f"the weights are no longer numbers, at step {trainer.global_step}",
            mend="lower optimizer.lr, set optimizer.gradient_clip=1 or training.precision=fp32; the best weights and "
            "the last good state are kept",
        )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity; waits once for the device."""
    largest = [value.detach().abs().amax().float() for value in tensors if value.is_floating_point() and value.numel()]
    if not largest:
        return True
    return bool(torch.isfinite(torch.stack([value.to(largest[0].device) for value in largest])).all())


class StateFile(CheckpointIO):
    """How Lightning writes and reads the state.

    Args:
        adjust: changes the state that is read; None leaves it.
    """

    def __init__(self, *, adjust: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._adjust = adjust

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a state, whole or not at all.

        Raises:
            OutputError: the disk is full, or cannot be written to.
        """
        with atomic(Path(path)) as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:
                # On a full disk torch complains about the position in the file, while it handles what the disk said.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if self._adjust is not None:
            self._adjust(state)
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class SavedState:
    """What a state says of its run.

    Attributes:
        step: optimiser steps that are done.
        epochs: epochs that are done.
        seconds: of the budget that are spent.
        recipe: with which it was trained; None in states of old.
        offset_steps: see `run.py`.
    """

    step: int
    epochs: int
    seconds: float
    recipe: dict[str, Any] | None
    offset_steps: int


def read_state(path: Path) -> SavedState:
    """What a state file says of its run; the weights are not read.

    Raises:
        RunError: the file is damaged.
    """
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        facts = tree.get("segwright", {})
        return SavedState(
            step=int(tree["global_step"]),
            epochs=int(tree["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]),
            seconds=float(tree["callbacks"]["BudgetCallback"]["spent"]),
            recipe=json.loads(facts["recipe"]) if "recipe" in facts else None,
            offset_steps=int(facts.get("offset_steps", 0)),
        )
    except Exception as error:  # torch raises many kinds on damaged files
        raise RunError(
            f"is damaged ({type(error).__name__})", mend="delete it, and the run starts again with --resume", file=path
        ) from error


def begin_epoch_again(state: dict[str, Any]) -> None:
    """Make a state one of the end of its last whole epoch, as far as Lightning counts; the weights stay."""
    progress = state["loops"]["fit_loop"]["epoch_progress"]
    done = progress["current"]["processed"]
    for count in ("total", "current"):
        progress[count] = dict.fromkeys(progress[count], done)
