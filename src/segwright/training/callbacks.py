"""What happens around the steps of a run: its budget, its place in the stream, the watch for NaN, the bar."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from segwright.data.loader import TrainLoader
from segwright.data.prefetch import PrefetchLoader
from segwright.errors import TrainingError
from segwright.tensors import Batch
from segwright.training.module import SegmentationModule
from segwright.training.processes import ALONE, Team

VALIDATION_SHARE = 0.07
"""With a budget in minutes, validations take at most about this share of it."""
VALIDATIONS = 40
"""With a budget in epochs, about this many validations at most; which epochs have one never depends on the clock."""
NAN_WATCH_STEPS = 50


class BudgetCallback(pl.Callback):
    """Starts the clock, decides which epochs are validated, and ends the run on time.

    Args:
        epochs: the budget in epochs; None with a budget by the clock.
        team: process 0 reads the clock for all.
    """

    def __init__(self, *, epochs: int | None = None, team: Team = ALONE) -> None:
        self._epochs, self._team = epochs, team
        self._last_validation_seconds = 0.0
        self._validation_seconds = 0.0
        self._resumed_seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "validation_seconds": self._validation_seconds,
            "last": self._last_validation_seconds,
            "spent": self._budget.spent_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validation_seconds = state_dict["validation_seconds"]
        self._last_validation_seconds = state_dict["last"]
        self._resumed_seconds = state_dict["spent"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._budget = ours(pl_module).budget
        self._budget.start(spent_seconds=self._resumed_seconds)
        trainer.should_stop = self._is_spent(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._budget.seconds is not None and self._is_spent(trainer):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._is_spent(trainer)

    def wants_validation(self, trainer: pl.Trainer) -> bool:
        """Whether the epoch that ends has a validation."""
        if trainer.should_stop:
            return True
        if self._epochs is not None:
            return epochs_begun(trainer) % max(1, self._epochs // VALIDATIONS) == 0
        left = VALIDATION_SHARE * max(self._budget.spent_seconds, 1.0)
        return self._team.decided(self._validation_seconds + self._last_validation_seconds <= left)

    def validated(self, seconds: float) -> None:
        """Take note of what a validation took."""
        self._last_validation_seconds = seconds
        self._validation_seconds += seconds

    def _is_spent(self, trainer: pl.Trainer) -> bool:
        if self._epochs is not None:
            return epochs_done(trainer) >= self._epochs
        reserve = self._last_validation_seconds
        return self._team.decided(self._budget.is_spent(trainer.global_step, reserve_seconds=reserve))


class ChanceCallback(pl.Callback):
    """Keeps the place in the stream of batches and the random state: a resumed run sees what it would have seen.

    Args:
        loader: gives the batches.
        forced: the resumed run has other images or batches than before; it goes on with a new epoch.
        team: each process has its own random state.
    """

    def __init__(self, loader: TrainLoader | PrefetchLoader, *, forced: bool = False, team: Team = ALONE) -> None:
        self._loader, self._forced, self._team = loader, forced, team
        self._within_epoch = False
        self._saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        place = {"loader": self._loader.state_dict(), "within_epoch": self._within_epoch}
        return {**place, "chance": self._team.everyone((torch.get_rng_state(), gpu))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved is None:
            return
        place = dict(self._saved["loader"])
        if self._forced:
            place = {**self._loader.state_dict(), "step": epochs_done(trainer) * len(self._loader)}
        elif not self._saved["within_epoch"]:
            # The clock may have ended an epoch early: the next one begins at its own first batch.
            place["step"] += -place["step"] % len(self._loader)
        self._loader.load_state_dict(place)
        if self._team.rank < len(self._saved["chance"]):
            cpu, gpu = self._saved["chance"][self._team.rank]
            torch.set_rng_state(cpu)
            if gpu is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(gpu)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._within_epoch = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._within_epoch = False


class NanWatch(pl.Callback):
    """Stops a run whose loss is no number, and names the first step that had it, and its images.

    On a CPU every step is looked at; on a device, where looking waits for it, every `NAN_WATCH_STEPS`th.

    Args:
        ids: of the images, by their position in the pack.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._seen: deque[tuple[int, list[int]]] = deque(maxlen=NAN_WATCH_STEPS)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._seen.append((trainer.global_step, batch.index.tolist()))
        cheap = batch.images.device.type == "cpu"
        if cheap or trainer.global_step % NAN_WATCH_STEPS == 0 or trainer.is_last_batch or trainer.should_stop:
            self.look(ours(pl_module))

    def look(self, module: SegmentationModule) -> None:
        """Raise where a step had a loss that is no number.

        Raises:
            TrainingError: naming the step and its images.
        """
        bad_step = int(module.first_bad_step)
        if bad_step < 0:
            return
        own = next((index for step, index in self._seen if step == bad_step), [])
        images = [i for share in module.team.everyone(own) for i in share]
        names = ", ".join(self._ids[i] for i in images[:8]) + (", ..." if len(images) > 8 else "")
        raise TrainingError(
            f"the loss is no longer a number since step {bad_step} (its images: {names})",
            mend="lower optimizer.lr, set optimizer.gradient_clip=1 or training.precision=fp32, or look at those "
            "images; the best weights and the last good state are kept",
        )


class ProgressBar(pl.Callback):
    """A bar over the whole budget with the time left; silent where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._shown = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._task = self._bar.add_task("training", total=1.0, left="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if time.monotonic() - self._shown < 0.5:
            return
        self._shown = time.monotonic()
        budget, step = ours(pl_module).budget, trainer.global_step
        left = budget.left_seconds(step)
        text = "" if left is None else f"{int(left // 60)}:{int(left % 60):02d} left, step {step}"
        self._bar.update(self._task, completed=budget.progress(step), left=text)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._bar.stop()


def ours(module: pl.LightningModule) -> SegmentationModule:
    """The module by its own type."""
    assert isinstance(module, SegmentationModule)
    return module


def epochs_begun(trainer: pl.Trainer) -> int:
    """The number of the epoch that is trained or ends, from 1."""
    current: Any = trainer.fit_loop.epoch_progress.current
    return int(current.started)


def epochs_done(trainer: pl.Trainer) -> int:
    """Epochs whose last step is done; at the end of an epoch it counts, validated or not."""
    current: Any = trainer.fit_loop.epoch_progress.current
    return int(current.processed)
