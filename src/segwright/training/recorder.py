"""The record of a run: its validations, metrics.jsonl, the best bundle so far, log.txt."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from rich.console import Console

from segwright.errors import OutputError
from segwright.files import write_text
from segwright.metrics import score
from segwright.tensors import Batch
from segwright.training.callbacks import BudgetCallback, epochs_begun, ours
from segwright.training.module import SegmentationModule
from segwright.training.state import require_finite
from segwright.training.validation import Validation
from segwright.types import ClassSet

Watched = Literal["miou", "loss"]


class Recorder(pl.Callback):
    """Validates at the end of an epoch, writes metrics.jsonl, keeps the best bundle, and stops early when asked.

    Args:
        run: the run folder.
        classes: tells which classes are scored.
        batch_size: images a step.
        validation: how the model is scored.
        clock: decides which epochs are validated.
        patience: epochs without a gain of what is watched before the run ends; None for never.
        minimum_gain: of what is watched; less than this over the last gain that counted is none for `patience`.
        watch: the validation mIoU or the validation loss, for `patience` and for the schedule `plateau`.
        keep: whether the bundle holds the best validated model, or the last.
        judged_anew: scores of a resumed run are of other images or rules than before, and not compared with those.
        save: writes the bundle, given the row of its model.
        say: prints one line a validation.
    """

    def __init__(
        self,
        run: Path,
        *,
        classes: ClassSet,
        batch_size: int,
        validation: Validation,
        clock: BudgetCallback,
        patience: int | None,
        minimum_gain: float = 0.0,
        watch: Watched = "miou",
        keep: Literal["best", "last"] = "best",
        judged_anew: bool = False,
        save: Callable[[dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self._run = run
        self._classes = classes
        self._batch_size = batch_size
        self._validation = validation
        self._clock = clock
        self._patience = patience
        self._minimum_gain = minimum_gain
        self._watch: Watched = watch
        self._keep, self._save = keep, save
        self._say = say
        self._judged_anew = judged_anew
        self._best = -1.0
        self._gained = -math.inf
        self._gained_epoch = -1
        self._scored_epoch = 0
        self._scored_step = 0
        self._pending = False
        self._steps = 0
        self._train_seconds = 0.0
        self._loss_before: float | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._module = ours(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self._best,
            "gained": self._gained,
            "gained_epoch": self._gained_epoch,
            "scored_epoch": self._scored_epoch,
            "scored_step": self._scored_step,
            "pending": self._pending,
            "steps": self._steps,
            "train_seconds": self._train_seconds,
            "train_loss": float(self._module.train_loss),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]
        # States of old counted every gain.
        self._gained = state_dict.get("gained", state_dict["best"])
        self._gained_epoch = state_dict.get("gained_epoch", state_dict.get("best_epoch", -1))
        self._scored_epoch = state_dict["scored_epoch"]
        self._scored_step = state_dict["scored_step"]
        self._pending = state_dict["pending"]
        self._steps = state_dict["steps"]
        self._train_seconds = state_dict["train_seconds"]
        self._loss_before = state_dict["train_loss"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._loss_before is not None:
            self._module.train_loss.fill_(self._loss_before)
        if self._judged_anew:
            self._best, self._gained = -1.0, -math.inf
            self._gained_epoch = self._scored_epoch
            if self._module.plateau is not None:
                self._module.plateau.forget(epoch=self._scored_epoch)
        self._stop_early(trainer)
        # A resumed run may have been stopped before a validation, or has no time left for a step.
        if self._pending or (trainer.should_stop and self._scored_step < trainer.global_step):
            self._validate(trainer)
        self._mark = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self._train_seconds += now - self._mark
        self._mark = now
        self._steps += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._clock.wants_validation(trainer):
            self._pending = True
            self._validate(trainer)

    def _validate(self, trainer: pl.Trainer) -> None:
        started = time.monotonic()
        if not self._validation.run(trainer, self._module):
            return
        self._pending = False
        self._clock.validated(time.monotonic() - started)
        row = self._row(trainer, self._module)
        better = row["val_miou"] is not None and row["val_miou"] > self._best
        plateau, watched = self._module.plateau, self._watched(row)
        if plateau is not None and watched is not None and plateau.seen(watched, epoch=row["epoch"]):
            self._say(f"no better {self._name}: the learning rate drops to {plateau.factor:g} of its first value")
        self._scored_epoch, self._scored_step = row["epoch"], row["step"]
        if better:
            self._best = row["val_miou"]
        if watched is not None and watched > self._gained and watched - self._gained >= self._minimum_gain:
            self._gained, self._gained_epoch = watched, row["epoch"]
        if better or self._keep == "last":
            require_finite(trainer)
            self._save(row)
        if self._module.team.leads:
            append_line(self._run / "metrics.jsonl", json.dumps(row, allow_nan=False))
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
        self._say(_line(row, better=better))
        if self._stop_early(trainer):
            self._say(f"no better {self._name} for {self._patience} epochs: stopping early")

    @property
    def _name(self) -> str:
        return {"miou": "validation mIoU", "loss": "validation loss"}[self._watch]

    def _watched(self, row: dict[str, Any]) -> float | None:
        """What is watched, so that more is better."""
        value: float | None = row[f"val_{self._watch}"]
        return -value if value is not None and self._watch == "loss" else value

    def _stop_early(self, trainer: pl.Trainer) -> bool:
        without_gain = self._scored_epoch - self._gained_epoch
        stops = self._patience is not None and self._scored_epoch > 0 and without_gain >= self._patience
        trainer.should_stop = trainer.should_stop or stops
        return stops

    def _row(self, trainer: pl.Trainer, module: SegmentationModule) -> dict[str, Any]:
        steps = max(self._steps, 1)
        scores = score(module.confusion.cpu().numpy(), self._classes)
        row = {
            "epoch": epochs_begun(trainer),
            "step": trainer.global_step,
            "seconds": round(module.budget.spent_seconds, 3),
            "train_loss": _number(module.train_loss / steps),
            "val_loss": _number(module.val_loss / self._validation.images),
            "val_miou": _number(scores.miou),
            "val_pixel_accuracy": _number(scores.pixel_accuracy),
            "val_iou": [_number(value) for value in scores.iou],
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "images_per_second": steps * self._batch_size / max(self._train_seconds, 1e-9),
        }
        module.train_loss.zero_()
        self._steps, self._train_seconds = 0, 0.0
        return row


def _number(value: Any) -> float | None:
    """None for what JSON cannot say."""
    number = float(value)
    return number if math.isfinite(number) else None


def _line(row: dict[str, Any], *, better: bool) -> str:
    train_loss, val_loss, miou = (
        "   -  " if row[name] is None else f"{row[name]:.4f}" for name in ("train_loss", "val_loss", "val_miou")
    )
    scored = (f"val loss {val_loss}", f"val mIoU {miou}{' *' if better else '  '}")
    parts = (
        f"epoch {row['epoch']:4d}",
        f"loss {train_loss}",
        *(scored if row["val_loss"] is not None or row["val_miou"] is not None else ()),
        f"{row['images_per_second']:6.1f} images/s",
        f"{row['seconds'] / 60:5.1f} min",
    )
    return "  ".join(parts)


class RunLog:
    """Prints lines to the terminal and keeps them in log.txt."""

    def __init__(self, path: Path, *, console: Console) -> None:
        self._path = path
        self._console = console

    def __call__(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        append_line(self._path, line)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, synced; where it cannot be added whole, the file stays as it was.

    Raises:
        OutputError: the disk is full, or cannot be written to.
    """
    try:
        with path.open("ab", buffering=0) as stream:
            before = stream.tell()
            try:
                data = f"{line}\n".encode()
                while data:
                    data = data[stream.write(data) :]
                os.fsync(stream.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    stream.truncate(before)
                raise
    except OSError as error:
        mend = "free some space or choose another folder"
        raise OutputError(f"cannot be written ({error.strerror or error})", mend=mend, file=path) from error


def trim_metrics(path: Path, *, step: int) -> None:
    """Drop rows later than the state that a resumed run starts from."""
    if not path.exists():
        return
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) is not None]
    kept = [line for line in rows if (_step_of(line) or 0) <= step]
    write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> int | None:
    """The step of a row; None where a kill cut the line short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
