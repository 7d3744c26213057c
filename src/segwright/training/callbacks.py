"""What happens around the steps of a run: the end of its budget, the watch for NaN, the bar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from segwright.data.loader import TrainLoader
from segwright.data.prefetch import PrefetchLoader
from segwright.errors import TrainingError
from segwright.training.module import SegmentationModule
from segwright.types import Batch

VALIDATION_SHARE = 0.07
"""With a budget in minutes, validations take at most about this share of it."""
VALIDATIONS = 40
"""With a budget in epochs, about this many validations at most; which epochs have one never depends on the clock."""
NAN_WATCH_STEPS = 50


class BudgetCallback(pl.Callback):
    """Starts the clock, decides which epochs are validated, and ends the run on time."""

    def __init__(self) -> None:
        self._validation_started = 0.0
        self._last_validation_seconds = 0.0
        self._validation_seconds = 0.0
        self._resumed_seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "validation_seconds": self._validation_seconds,
            "last": self._last_validation_seconds,
            "spent": self._spent,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validation_seconds = state_dict["validation_seconds"]
        self._last_validation_seconds = state_dict["last"]
        self._resumed_seconds = state_dict["spent"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = ours(pl_module)
        self._budget = module.budget
        self._budget.start(spent_seconds=self._resumed_seconds)

    @property
    def _spent(self) -> float:
        return self._budget.spent_seconds

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        wanted = self._validates(trainer, epoch=trainer.current_epoch)
        # Lightning asks `(epoch + 1) % n == 0`; an n beyond the epoch skips it.
        trainer.check_val_every_n_epoch = 1 if wanted else trainer.current_epoch + 2

    def _validates(self, trainer: pl.Trainer, *, epoch: int) -> bool:
        if self._budget.seconds is None:
            assert trainer.max_epochs is not None, "a budget in epochs ends at one"
            return (epoch + 1) % max(1, trainer.max_epochs // VALIDATIONS) == 0 or epoch + 1 == trainer.max_epochs
        return self._validation_seconds + self._last_validation_seconds <= VALIDATION_SHARE * max(self._spent, 1.0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        reserve = self._last_validation_seconds
        if self._budget.seconds is not None and self._budget.is_spent(trainer.global_step, reserve_seconds=reserve):
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_started = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_validation_seconds = time.monotonic() - self._validation_started
        self._validation_seconds += self._last_validation_seconds


class ChanceCallback(pl.Callback):
    """Keeps the place in the stream of batches and the random state: a resumed run sees what it would have seen.

    Lightning itself brings loaders back only in the middle of an epoch.
    """

    def __init__(self, loader: TrainLoader | PrefetchLoader) -> None:
        self._loader = loader
        self._saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"loader": self._loader.state_dict(), "cpu": torch.get_rng_state(), "gpus": gpus}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved is None:
            return
        self._loader.load_state_dict(self._saved["loader"])
        torch.set_rng_state(self._saved["cpu"])
        if len(self._saved["gpus"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self._saved["gpus"])


class NanWatch(pl.Callback):
    """Stops a run whose loss is no number. The sum on the device is read every `NAN_WATCH_STEPS` steps."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        looks = trainer.global_step % NAN_WATCH_STEPS == 0 or trainer.is_last_batch or trainer.should_stop
        if not looks or torch.isfinite(ours(pl_module).train_loss):
            return
        names = ", ".join(self._ids[int(i)] for i in batch.index[:8])
        raise TrainingError(
            f"the loss is no longer a number, at step {trainer.global_step} or at most {NAN_WATCH_STEPS} before it "
            f"(images of this step: {names})",
            mend="lower optimizer.lr, set training.precision=fp32, or look at those images; the best weights are kept",
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
