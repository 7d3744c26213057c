"""The record of a run: metrics.jsonl, the best bundle so far, the file to resume from, log.txt."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from segwright.files import sync_folder, write_text
from segwright.metrics import score
from segwright.training.callbacks import ours
from segwright.training.module import SegmentationModule
from segwright.types import Batch, ClassSet

RESUME_EVERY_SECONDS = 30.0


class Recorder(pl.Callback):
    """Writes metrics.jsonl, keeps the best bundle and the resume file, and stops early when asked.

    Args:
        run: the run folder.
        classes: tells which classes are scored.
        batch_size: images a step.
        validation_images: images a validation.
        patience: epochs without a better validation mIoU before the run ends; None for never.
        save_best: writes the bundle of the best model, given its row.
        say: prints one line an epoch.
    """

    def __init__(
        self,
        run: Path,
        *,
        classes: ClassSet,
        batch_size: int,
        validation_images: int,
        patience: int | None,
        save_best: Callable[[dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self._run = run
        self._classes = classes
        self._batch_size = batch_size
        self._validation_images = validation_images
        self._patience = patience
        self._save_best = save_best
        self._say = say
        self._best = -1.0
        self._best_epoch = -1
        self._steps = 0
        self._train_seconds = 0.0
        self._resume_saved = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "best_epoch": self._best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]
        self._best_epoch = state_dict["best_epoch"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.monotonic()
        self._step_mark = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or trainer.should_stop:
            self._train_seconds += time.monotonic() - self._mark
            self._steps += trainer.global_step - self._step_mark
            self._mark, self._step_mark = time.monotonic(), trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After the validation of this epoch, when it had one.
        validated = trainer.check_val_every_n_epoch == 1
        if not validated:
            return
        row = self._row(trainer, ours(pl_module))
        better = row["val_miou"] is not None and row["val_miou"] > self._best
        if better:
            self._best, self._best_epoch = row["val_miou"], row["epoch"]
            self._save_best(row)
        with (self._run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
        self._say(_line(row, better=better))
        if self._patience is not None and row["epoch"] - self._best_epoch >= self._patience:
            self._say(f"no better validation mIoU for {self._patience} epochs: stopping early")
            trainer.should_stop = True
        if trainer.should_stop or time.monotonic() - self._resume_saved > RESUME_EVERY_SECONDS:
            save_resume(trainer, self._run)
            self._resume_saved = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        save_resume(trainer, self._run)

    def _row(self, trainer: pl.Trainer, module: SegmentationModule) -> dict[str, Any]:
        steps = max(self._steps, 1)
        scores = score(module.confusion.cpu().numpy(), self._classes)
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(module.budget.spent_seconds, 3),
            "train_loss": _number(module.train_loss / steps),
            "val_loss": _number(module.val_loss / self._validation_images),
            "val_miou": _number(scores.miou),
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
    parts = (
        f"epoch {row['epoch']:4d}",
        f"loss {train_loss}",
        f"val loss {val_loss}",
        f"val mIoU {miou}{' *' if better else '  '}",
        f"{row['images_per_second']:6.1f} images/s",
        f"{row['seconds'] / 60:5.1f} min",
    )
    return "  ".join(parts)


def save_resume(trainer: pl.Trainer, run: Path) -> None:
    """Write the whole state of the run, whole or not at all."""
    part = run / ".resume.ckpt.part"
    trainer.save_checkpoint(part)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, run / "resume.ckpt")
    sync_folder(run)


class RunLog:
    """Prints lines to the terminal and keeps them in log.txt."""

    def __init__(self, path: Path, *, console: Console) -> None:
        self._path = path
        self._console = console

    def __call__(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


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
