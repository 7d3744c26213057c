"""One run, top to bottom: recipe -> images -> model -> steps -> a folder with a bundle in it."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from segwright.bundle import load_bundle, save_bundle
from segwright.data.card import write_card
from segwright.data.loader import EvalLoader, TrainLoader
from segwright.data.prefetch import PrefetchLoader
from segwright.data.splits import write_split
from segwright.errors import MissingExtraError, OutputError, RunError, TrainingError
from segwright.files import read_json, write_json
from segwright.hardware import choose_device, choose_precision, describe, keep_freed_memory
from segwright.recipe import DEFAULT_EPOCHS, Recipe, budget_text, read_recipe, write_recipe
from segwright.training.assembly import Start, loaders_of, module_of, start_of, with_architecture
from segwright.training.budget import Budget
from segwright.training.callbacks import BudgetCallback, ChanceCallback, NanWatch, ProgressBar
from segwright.training.lock import locked
from segwright.training.module import SegmentationModule
from segwright.training.preparation import Prepared, prepare
from segwright.training.recorder import Recorder, RunLog, trim_metrics
from segwright.types import SPLIT_NAMES, ClassSet

_LIGHTNING_PRECISION = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}
_MORE_EPOCHS_THAN_ANY_CLOCK = 1_000_000_000


def train(
    recipe: Recipe, *, run: Path, resume: bool = False, start_from: Path | None = None, progress: bool = True
) -> Path:
    """Train a model and leave its run folder.

    Args:
        recipe: what to do; with `resume` the run's own recipe counts instead.
        run: the folder to write; it must not exist, except with `resume`.
        resume: go on where a stopped run was.
        start_from: a run or bundle whose architecture and weights are the start.
        progress: show bars on a terminal.

    Returns:
        `run`, with recipe.yaml, data.yaml, split.json, environment.json, metrics.jsonl, log.txt, resume.ckpt, bundle/.

    Raises:
        SegwrightError: whatever cannot be trained as asked, before anything is written where that can be told.
    """
    keep_freed_memory()
    if not resume and run.exists():
        raise RunError("this run exists already", mend="choose another --name, or go on with --resume", file=run)
    with ExitStack() as stack:
        if resume:
            recipe = read_recipe(_run_file(run, "recipe.yaml"))
            stack.enter_context(locked(run))
        else:
            recipe = with_architecture(recipe, start_from)
        # A run that was killed before its first save has nothing to go on from, and starts again.
        state = run / "resume.ckpt" if resume and (run / "resume.ckpt").is_file() else None
        pl.seed_everything(recipe.training.seed, verbose=False)
        images = prepare(recipe, split_file=_run_file(run, "split.json") if resume else None, progress=progress)
        if resume:
            facts = _facts_of_same_images(run, images)
            start_from = None if facts["start_from"] is None else Path(facts["start_from"])
        device = choose_device()
        precision = choose_precision(recipe.training.precision, device=device)
        start = start_of(recipe, images, start_from=None if state else start_from, resumed=state is not None)
        recipe = start.recipe
        loader, validation = loaders_of(recipe, images, device=device)
        budget = _budget(recipe, steps_an_epoch=len(loader))
        module = module_of(recipe, images, start.model, budget=budget)
        if not resume:
            _write_beginnings(run, start, images, device=device, start_from=start_from)
            stack.enter_context(locked(run))

        console = Console(stderr=True, quiet=not progress)
        say = RunLog(run / "log.txt", console=console)
        for line in _opening(start, images, where=f"{device.type}, {precision}"):
            say(line)
        recorder = Recorder(
            run,
            classes=images.classes,
            batch_size=recipe.training.batch_size,
            validation_images=validation.count,
            patience=recipe.training.early_stopping,
            save_best=_saver(run, module, images, recipe),
            say=say,
        )
        if resume:
            saved = {"global_step": 0} if state is None else torch.load(state, map_location="cpu", weights_only=True)
            trim_metrics(run / "metrics.jsonl", step=int(saved["global_step"]))
        around = [BudgetCallback(), ChanceCallback(loader), NanWatch(images.pack.ids), recorder, ProgressBar(console)]
        trainer = pl.Trainer(
            accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
            devices=1,
            precision=_LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]  # a literal of theirs
            max_epochs=_MORE_EPOCHS_THAN_ANY_CLOCK if budget.steps is None else budget.steps // len(loader),
            gradient_clip_val=recipe.optimizer.gradient_clip,
            callbacks=around,
            logger=_tensorboard(run) if recipe.training.tensorboard else False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        _fit(trainer, module, loader, validation, state=state)
        if not (run / "bundle").exists():
            raise TrainingError("no validation gave a score", mend="give the run a larger budget", file=run)
        say(f"done in {budget.spent_seconds / 60:.1f} minutes; the best model is in {run / 'bundle'}")
    return run


def _budget(recipe: Recipe, *, steps_an_epoch: int) -> Budget:
    asked = recipe.training
    if asked.minutes is not None:
        return Budget(steps=None, seconds=asked.minutes * 60)
    return Budget(steps=(asked.epochs or DEFAULT_EPOCHS) * steps_an_epoch, seconds=None)


def _fit(
    trainer: pl.Trainer,
    module: SegmentationModule,
    loader: TrainLoader | PrefetchLoader,
    validation: EvalLoader,
    *,
    state: Path | None,
) -> None:
    """Lightning's loop, with Ctrl-C as Python has it.

    Lightning keeps the mode that it finds, and warns of parts in evaluation mode: the average and frozen layers are. On
    Ctrl-C it turns the signal off and leaves the program.
    """
    module.train()
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            trainer.fit(module, loader, validation, ckpt_path=state, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    if trainer.interrupted:
        raise KeyboardInterrupt


def _run_file(run: Path, name: str) -> Path:
    path = run / name
    if not path.is_file():
        raise RunError(f"has no {name}, so there is nothing to resume", mend="start the run again", file=run)
    return path


def _facts_of_same_images(run: Path, images: Prepared) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(_run_file(run, "environment.json"))
    if facts["data_digest"] != images.pack.digest:
        raise RunError("the images changed since this run was started", mend="start a new run", file=run)
    return facts


def _write_beginnings(
    run: Path, start: Start, images: Prepared, *, device: torch.device, start_from: Path | None
) -> None:
    try:
        run.mkdir(parents=True)
    except FileExistsError:
        raise RunError("this run exists already", mend="choose another --name", file=run) from None
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", mend="choose another --out", file=run) from None
    write_recipe(run / "recipe.yaml", start.recipe)
    write_split(run / "split.json", images.split)
    write_card(run / "data.yaml", {**images.source.as_card(), "dropped": {**images.source.dropped, **images.dropped}})
    report = start.report
    facts = {
        "data_digest": images.pack.digest,
        "seed": start.recipe.training.seed,
        "start_from": None if start_from is None else str(start_from.resolve()),
        "weights": report
        and {"source": report.source, "matched": report.matched, "missing": report.missing, "licence": report.licence},
    }
    write_json(run / "environment.json", {**facts, **describe(device)})


def _opening(start: Start, images: Prepared, *, where: str) -> list[str]:
    """What a run says before its first epoch."""
    recipe = start.recipe
    sides = ", ".join(f"{len(images.indices(side))} {side}" for side in SPLIT_NAMES if len(images.indices(side)))
    millions = sum(p.numel() for p in start.model.parameters()) / 1e6
    name = recipe.model.name + (f"/{start.model.spec.encoder}" if start.model.spec.encoder else "")
    lines = [
        f"images   {sides}" + (f", {len(images.dropped)} dropped" if images.dropped else ""),
        f"classes  {', '.join(images.classes.names)}",
        f"model    {name}, {millions:.2f} M parameters, {start.note}",
        *([f"licence  of the weights: {start.report.licence}"] if start.report is not None else []),
        f"budget   {budget_text(recipe.training)}, batches of {recipe.training.batch_size} on {where}",
    ]
    return [*lines, *(f"note     {note}" for note in (*images.source.notes, *images.pack.notes))]


def _saver(run: Path, module: SegmentationModule, images: Prepared, recipe: Recipe) -> Callable[[dict[str, Any]], None]:
    """A function that keeps the best model so far."""
    facts = read_json(run / "environment.json")
    weights = facts["weights"]
    licences = [] if weights is None else [f"{weights['source']}: {weights['licence']}"]
    if facts["start_from"] is not None:
        licences += load_bundle(Path(facts["start_from"])).info["licences"]

    def save(row: dict[str, Any]) -> None:
        info = {
            "score": {"name": "miou", "split": "val", "value": row["val_miou"], "interval": None},
            "definition": _definition(images.classes),
            "calibration": None,
            "epoch": row["epoch"],
            "input": {"working_size_px": recipe.data.working_size_px},
            "trained_on": {
                "path": recipe.data.path,
                "digest": images.pack.digest,
                "images": len(images.indices("train")),
            },
            "licences": licences,
            "versions": facts["versions"],
        }
        save_bundle(run / "bundle", module.best, classes=images.classes, info=info)

    return save


def _definition(classes: ClassSet) -> str:
    out = [classes.names[k] for k in (*classes.ignore_in_score, *classes.leave_out_of_mean)]
    return f"mean IoU over all classes{' but ' if out else ''}{', '.join(out)}, from summed counts"


def _tensorboard(run: Path) -> TensorBoardLogger:
    try:
        return TensorBoardLogger(run, name="", version="tensorboard")
    except ModuleNotFoundError:
        raise MissingExtraError("tensorboard", extra="track") from None


logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
