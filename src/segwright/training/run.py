"""One run, top to bottom: recipe -> images -> model -> steps -> a folder with a bundle in it."""

from __future__ import annotations

import json
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from segwright.data.loader import TrainLoader
from segwright.data.prefetch import PrefetchLoader
from segwright.errors import MissingExtraError, OutputError, RunError, TrainingError
from segwright.hardware import Precision, choose_device, choose_precision, keep_freed_memory
from segwright.recipe import DEFAULT_EPOCHS, Recipe, read_resolved
from segwright.runs import started_from
from segwright.training.assembly import loaders_of, module_of, start_of, with_architecture
from segwright.training.budget import Budget
from segwright.training.callbacks import BudgetCallback, ChanceCallback, NanWatch, ProgressBar
from segwright.training.folder import opening, other_versions, run_file, saver, take_changes, write_beginnings
from segwright.training.lineage import refuse_learnt_images
from segwright.training.lock import locked
from segwright.training.meeting import device_at, gathering
from segwright.training.module import SegmentationModule
from segwright.training.preparation import prepare
from segwright.training.processes import Team, strategy_of
from segwright.training.recorder import Recorder, RunLog, append_line, trim_metrics
from segwright.training.resuming import command_to_resume, is_bound, recipe_to_go_on, tidy
from segwright.training.signals import StopAskedError, StopSignals
from segwright.training.state import STATE_FILE, SavedState, StateFile, StateKeeper, begin_epoch_again, read_state
from segwright.training.unfreezing import unfreezing_of
from segwright.training.validation import Validation

_LIGHTNING_PRECISION = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}
_MORE_EPOCHS_THAN_ANY_BUDGET = 1_000_000_000


def train(
    recipe: Recipe, *, run: Path, resume: bool = False, changes: Sequence[str] = (), force: bool = False,
    start_from: Path | None = None, more_to_come: bool = False, progress: bool = True,
) -> Path:  # fmt: skip
    """Train a model and leave its run folder.

    Args:
        recipe: what to do; with `resume` the run's own recipe counts instead.
        run: the folder to write; it must not exist, except with `resume`.
        resume: go on where a stopped run was.
        changes: with `resume`, `key.path=value` texts; a longer budget is taken, other changes need `force`.
        force: with `resume`, go on though the recipe or the images changed.
        start_from: a run or bundle whose architecture and weights are the start.
        more_to_come: this is a stage: processes that train along stay for the next one.
        progress: show bars on a terminal.

    Returns:
        `run`, with recipe.yaml, data.yaml, split.json, images.json, environment.json, metrics.jsonl, log.txt,
        resume.ckpt, bundle/.

    Raises:
        SegwrightError: whatever cannot be trained as asked, before anything is written where that can be told.
        RunStopped: a signal ended the run; it is saved.
    """
    keep_freed_memory()
    if not resume and run.exists():
        raise RunError("this run exists already", mend="choose another --name, or go on with --resume", file=run)
    with ExitStack() as stack:
        state: SavedState | None = None
        words: list[str] = []
        if resume:
            for name in ("recipe.yaml", "split.json", "environment.json"):
                run_file(run, name)
            stack.enter_context(locked(run))
            tidy(run)
            # A run that was killed before its first save has nothing to go on from, and starts again.
            state = read_state(run / STATE_FILE) if (run / STATE_FILE).is_file() else None
            recipe, words = recipe_to_go_on(run, state, changes=changes, force=force)
            start_from = started_from(run)
        else:
            recipe = with_architecture(recipe, start_from)
        others = stack.enter_context(
            gathering(recipe.training.devices, device=choose_device(), more_to_come=more_to_come)
        )
        pl.seed_everything(recipe.training.seed, verbose=False)
        images = prepare(recipe, run=run if resume else None, force=force, progress=progress)
        if not resume or images.changes:
            refuse_learnt_images(recipe, images, start_from=start_from)
        forced = state is not None and (is_bound(words) or bool(images.changes))
        device = others.device
        precision = choose_precision(recipe.training.precision, device=device)
        start = start_of(recipe, images, start_from=None if state else start_from, resumed=state is not None)
        recipe = start.recipe
        loader, validation = loaders_of(recipe, images, device=device, share=(0, others.size))
        offset = _offset_steps(state, steps_an_epoch=len(loader), forced=forced)
        budget = _budget(recipe, steps_an_epoch=len(loader), offset=offset)
        console = Console(stderr=True, quiet=not progress)
        say = RunLog(run / "log.txt", console=console)
        module = module_of(recipe, images, start.model, budget=budget, say=say)
        if resume:
            take_changes(run, start, images)
            trim_metrics(run / "metrics.jsonl", step=0 if state is None else state.step)
        else:
            write_beginnings(run, start, images, device=device, start_from=start_from)
            stack.enter_context(locked(run))
        several = f", in {others.size} processes" if others.size > 1 else ""
        for line in opening(start, images, where=f"{device.type}, {precision}{several}"):
            say(line)
        for line in [*words, *([f"images: {images.changes}"] if images.changes else [])]:
            say(f"changed  {line}")
        if state is not None:
            for line in [f"resumed  after step {state.step}, {state.epochs} epochs done", *other_versions(run)]:
                say(line)

        note = "stopping after this step, and saving; once more to stop at once" if progress else None
        signals = stack.enter_context(StopSignals(note=note))
        orders = {"resumed": state is not None, "forced": forced, "offset_steps": offset}
        module.team = team = others.begin(run, orders=orders)
        clock = BudgetCallback(epochs=_epochs(recipe), team=team)
        recorder = Recorder(
            run,
            classes=images.classes,
            batch_size=recipe.training.batch_size,
            # Several processes end a validation together, or one would wait for the others' counts forever.
            validation=Validation(validation, stop=lambda: team.size == 1 and signals.asked is not None),
            clock=clock,
            patience=recipe.training.early_stopping,
            minimum_gain=recipe.training.minimum_gain,
            watch=recipe.training.watch,
            keep=recipe.training.keep,
            judged_anew=forced and (bool(images.changes) or any(line.startswith("classes.") for line in words)),
            save=saver(
                run,
                module,
                images,
                recipe,
                keep_better=state is not None and not forced and recipe.training.keep == "best",
            ),
            say=say,
        )
        facts: dict[str, str | int] = {"recipe": json.dumps(recipe.as_dict()), "offset_steps": offset}
        trainer = _trainer(
            run,
            recipe,
            [
                clock, ChanceCallback(loader, forced=forced, team=team), NanWatch(images.pack.ids), recorder,
                StateKeeper(run, signals=signals, facts=facts, team=team), ProgressBar(console),
            ],
            module=module,
            device=device,
            precision=precision,
            files=StateFile(adjust=begin_epoch_again if forced else None),
        )  # fmt: skip
        _fit(trainer, module, loader, run=run, state=None if state is None else run / STATE_FILE, signals=signals)
        if not (run / "bundle").exists():
            raise TrainingError("no validation gave a score", mend="give the run a larger budget", file=run)
        if state is not None and trainer.global_step == state.step:
            say("nothing was left to do; --epochs or --minutes gives a run a larger budget")
        say(f"done in {budget.spent_seconds / 60:.1f} minutes; the best model is in {run / 'bundle'}")
    return run


def train_along(run: Path, *, orders: Mapping[str, int], local_rank: int, join: Callable[[torch.device], Team]) -> bool:
    """Train this process's share of a run that another process leads; nothing is written or said.

    Args:
        run: the folder that the leading process has begun.
        orders: whether the run is `resumed`, by force (`forced`), and its `offset_steps`.
        local_rank: of this process on its machine.
        join: gives the processes of the run, once this one is ready.

    Returns:
        Whether the run came to its end; it did not where the leading process was asked to stop.

    Raises:
        SegwrightError: the images are not those of the run, or the training cannot go on.
    """
    keep_freed_memory()
    recipe = read_resolved(run / "recipe.yaml")
    images = prepare(recipe, run=run, progress=False)
    device = device_at(local_rank, device=choose_device())
    precision = choose_precision(recipe.training.precision, device=device)
    # All weights come from the leading process, or from the state.
    start = start_of(recipe, images, start_from=None, resumed=True)
    team = join(device)
    pl.seed_everything(recipe.training.seed + team.rank, verbose=False)
    loader, validation = loaders_of(recipe, images, device=device, share=(team.rank, team.size))
    budget = _budget(recipe, steps_an_epoch=len(loader), offset=orders["offset_steps"])
    module = module_of(recipe, images, start.model, budget=budget, say=_silent)
    module.team = team
    clock = BudgetCallback(epochs=_epochs(recipe), team=team)
    forced = bool(orders["forced"])
    with StopSignals() as signals:
        recorder = Recorder(
            run,
            classes=images.classes,
            batch_size=recipe.training.batch_size,
            validation=Validation(validation, stop=lambda: False),
            clock=clock,
            patience=recipe.training.early_stopping,
            minimum_gain=recipe.training.minimum_gain,
            watch=recipe.training.watch,
            keep=recipe.training.keep,
            save=_silent,
            say=_silent,
        )
        trainer = _trainer(
            run,
            recipe,
            [
                clock, ChanceCallback(loader, forced=forced, team=team), NanWatch(images.pack.ids), recorder,
                StateKeeper(run, signals=signals, facts={}, team=team),
            ],
            module=module,
            device=device,
            precision=precision,
            files=StateFile(adjust=begin_epoch_again if forced else None),
        )  # fmt: skip
        state = run / STATE_FILE if orders["resumed"] else None
        try:
            _fit(trainer, module, loader, run=run, state=state, signals=signals)
        except StopAskedError:
            return False
    return True


def _silent(_: object) -> None:
    """Only the leading process writes and speaks."""


def _epochs(recipe: Recipe) -> int | None:
    return None if recipe.training.minutes is not None else recipe.training.epochs or DEFAULT_EPOCHS


def _offset_steps(state: SavedState | None, *, steps_an_epoch: int, forced: bool) -> int:
    """Steps that were done beside whole epochs of the present length: batches of another size make other epochs."""
    if state is None:
        return 0
    return state.step - state.epochs * steps_an_epoch if forced else state.offset_steps


def _budget(recipe: Recipe, *, steps_an_epoch: int, offset: int) -> Budget:
    epochs = _epochs(recipe)
    if epochs is None:
        assert recipe.training.minutes is not None, "a budget is in epochs or in minutes"
        return Budget(steps=None, seconds=recipe.training.minutes * 60)
    return Budget(steps=epochs * steps_an_epoch + offset, seconds=None)


def _trainer(
    run: Path, recipe: Recipe, callbacks: list[pl.Callback], *, module: SegmentationModule, device: torch.device,
    precision: Precision, files: StateFile,
) -> pl.Trainer:  # fmt: skip
    assert recipe.augment.crop_px is not None, "settled before"
    team, later = module.team, unfreezing_of(recipe.model)
    resting = bool(later) or bool(recipe.loss.heads)  # what no taught head reads gets no gradient
    return pl.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
        devices=[device.index or 0] if device.type == "cuda" else 1,
        strategy=strategy_of(team, module.model, crop_px=recipe.augment.crop_px, resting=resting),
        sync_batchnorm=team.size > 1 and device.type == "cuda",
        precision=_LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]  # a literal of theirs
        max_epochs=_MORE_EPOCHS_THAN_ANY_BUDGET,
        gradient_clip_val=recipe.optimizer.gradient_clip,
        callbacks=[*callbacks, *later],
        plugins=[files],
        default_root_dir=run,
        logger=tensorboard_logger(run) if recipe.training.tensorboard and team.leads else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _fit(
    trainer: pl.Trainer,
    module: SegmentationModule,
    loader: TrainLoader | PrefetchLoader,
    *,
    run: Path,
    state: Path | None,
    signals: StopSignals,
) -> None:
    """Lightning's loop, with Ctrl-C as Python has it.

    Lightning keeps the mode that it finds, and warns of parts in evaluation mode: the average and frozen layers are. On
    Ctrl-C it turns the signal off and leaves the program.
    """
    module.train()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            trainer.fit(module, loader, ckpt_path=state, weights_only=True)
    except StopAskedError:
        if signals.asked is None:
            raise  # the leading process was asked
        stopped = signals.stopped(command_to_resume(run))
        append_line(run / "log.txt", str(stopped))
        raise stopped from None
    except OutputError as error:
        first = error.mend.removesuffix(" or choose another folder")
        mend = f"{first}, then go on ({command_to_resume(run)}): what was saved is whole"
        raise OutputError(error.problem, mend=mend, file=error.file) from error
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signals.catch()
    if trainer.interrupted:
        raise KeyboardInterrupt
    if signals.asked is not None:
        raise signals.stopped(command_to_resume(run))


def tensorboard_logger(run: Path) -> TensorBoardLogger:
    """What writes the curves of a run for TensorBoard; by itself it writes nothing.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        return TensorBoardLogger(run, name="", version="tensorboard")
    except ModuleNotFoundError:
        raise MissingExtraError("tensorboard", extra="track") from None


logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
