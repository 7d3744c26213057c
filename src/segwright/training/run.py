"""One run, top to bottom: recipe -> images -> model -> steps -> a folder with a bundle in it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console

from segwright.bundle import load_bundle, save_bundle
from segwright.data.card import write_card
from segwright.data.loader import EvalLoader, TrainLoader
from segwright.data.splits import write_split
from segwright.errors import RecipeError, RunError, TrainingError, WeightsError
from segwright.files import read_json, write_json
from segwright.hardware import choose_device, choose_precision, describe, keep_freed_memory
from segwright.losses import build_loss
from segwright.models import (
    ModelSpec,
    SegmentationModel,
    WeightsReport,
    build_model,
    freeze_encoder,
    load_encoder_weights,
)
from segwright.models.weights import load_matching
from segwright.recipe import DEFAULT_EPOCHS, ModelRecipe, Recipe, budget_text, read_recipe, write_recipe
from segwright.training import preflight
from segwright.training.budget import Budget
from segwright.training.callbacks import BudgetCallback, ChanceCallback, NanWatch, ProgressBar
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
    recipe = read_recipe(_run_file(run, "recipe.yaml")) if resume else _started(recipe, start_from)
    if not resume and run.exists():
        raise RunError("this run exists already", mend="choose another --name, or go on with --resume", file=run)
    pl.seed_everything(recipe.training.seed, verbose=False)
    images = prepare(recipe, split_file=_run_file(run, "split.json") if resume else None, progress=progress)
    device = choose_device()
    model, recipe, report = _model(recipe, images, start_from=start_from, resumed=resume)
    precision = choose_precision(recipe.training.precision, device=device)
    if not resume:
        _write_beginnings(run, recipe, images, device=device, report=report)
    elif read_json(run / "environment.json")["data_digest"] != images.pack.digest:
        raise RunError("the images changed since this run was started", mend="start a new run", file=run)

    loader, validation = _loaders(recipe, images, device=device)
    steps = None if recipe.training.minutes else (recipe.training.epochs or DEFAULT_EPOCHS) * len(loader)
    budget = Budget(steps=steps, seconds=None if recipe.training.minutes is None else recipe.training.minutes * 60)
    module = _module(recipe, images, model, budget=budget)
    console = Console(stderr=True, quiet=not progress)
    say = RunLog(run / "log.txt", console=console)
    for line in _opening(recipe, images, model, report=report, where=f"{device.type}, {precision}"):
        say(line)
    recorder = Recorder(
        run,
        classes=images.classes,
        batch_size=recipe.training.batch_size,
        validation_images=len(images.indices("val")),
        patience=recipe.training.early_stopping,
        save_best=_saver(run, module, images, recipe),
        say=say,
    )
    if resume:
        saved = torch.load(_run_file(run, "resume.ckpt"), map_location="cpu", weights_only=True)
        trim_metrics(run / "metrics.jsonl", step=int(saved["global_step"]))
    trainer = pl.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
        devices=1,
        precision=_LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]  # a literal of theirs
        max_epochs=_MORE_EPOCHS_THAN_ANY_CLOCK if steps is None else recipe.training.epochs or DEFAULT_EPOCHS,
        gradient_clip_val=recipe.optimizer.gradient_clip,
        callbacks=[BudgetCallback(), ChanceCallback(loader), NanWatch(images.pack.ids), recorder, ProgressBar(console)],
        logger=_tensorboard(run) if recipe.training.tensorboard else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    started = time.monotonic()
    # Lightning keeps the mode that it finds. It warns of parts in evaluation mode: the average and frozen layers are.
    module.train()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        trainer.fit(module, loader, validation, ckpt_path=run / "resume.ckpt" if resume else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not (run / "bundle").exists():
        raise TrainingError("no validation gave a score", mend="give the run a larger budget", file=run)
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes; the best model is in {run / 'bundle'}")
    return run


def _run_file(run: Path, name: str) -> Path:
    path = run / name
    if not path.is_file():
        raise RunError(f"has no {name}, so there is nothing to resume", mend="start the run again", file=run)
    return path


def _started(recipe: Recipe, start_from: Path | None) -> Recipe:
    """The recipe with the architecture of the model that is fine-tuned."""
    if start_from is None:
        return recipe
    spec = load_bundle(start_from).model.spec
    architecture = {
        "name": spec.name, "encoder": spec.encoder, "arguments": dict(spec.arguments),
        "mean": spec.mean, "std": spec.std, "weights": "none",
    }  # fmt: skip
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=architecture)})


def _model(
    recipe: Recipe, images: Prepared, *, start_from: Path | None, resumed: bool
) -> tuple[SegmentationModel, Recipe, WeightsReport | None]:
    """The model with its starting weights, and the recipe with what was settled for it."""
    asked, pack = recipe.model, images.pack
    crop_px = preflight.crop_of(recipe.augment, sizes=pack.sizes[images.indices("train")])
    chosen = pack.subset(images.indices("train"))
    mean, std = preflight.normalization(asked, of_weights=(None, None), pack=chosen)
    model = build_model(_spec(asked, images, mean=mean, std=std))
    # A resumed run finds all weights in its own state.
    report = None if resumed or start_from is not None else _load_weights(model, asked)
    if report is not None and (report.mean is not None or report.std is not None):
        mean, std = preflight.normalization(asked, of_weights=(report.mean, report.std), pack=chosen)
        model.set_normalization(mean=mean, std=std)
    if start_from is not None:
        load_matching(model, load_bundle(start_from).model)
    loaded = resumed or start_from is not None or report is not None
    preflight.check_frozen(asked, loaded=loaded, model=model)
    if asked.freeze_encoder:
        freeze_encoder(model, depth=None if asked.freeze_encoder is True else asked.freeze_encoder)
    preflight.one_try(model, crop_px=crop_px)
    weights = asked.weights if asked.weights != "auto" else "none" if report is None else "imagenet"
    settled = {
        "model": asked.model_copy(update={"mean": mean, "std": std, "weights": weights}),
        "augment": recipe.augment.model_copy(update={"crop_px": crop_px}),
    }
    return model, recipe.model_copy(update=settled), report


def _spec(asked: ModelRecipe, images: Prepared, *, mean: tuple[float, ...], std: tuple[float, ...]) -> ModelSpec:
    return ModelSpec(
        name=asked.name,
        in_channels=images.pack.channels,
        num_classes=images.classes.num_classes,
        encoder=asked.encoder,
        arguments=dict(asked.arguments),
        mean=mean,
        std=std,
        scale=preflight.FULL_SCALE[str(images.pack.dtype)],
        never_predict=images.classes.never_predict,
    )


def _load_weights(model: SegmentationModel, asked: ModelRecipe) -> WeightsReport | None:
    """Weights as asked; `auto` takes ImageNet's when they can be had and says so when not."""
    if asked.weights == "none" or (asked.weights == "auto" and model.encoder is None):
        return None
    try:
        return load_encoder_weights(model, "imagenet" if asked.weights == "auto" else asked.weights)
    except WeightsError as error:
        if asked.weights != "auto":
            raise
        warnings.warn(f"training from scratch: {error.problem}", stacklevel=2)
        return None


def _loaders(recipe: Recipe, images: Prepared, *, device: torch.device) -> tuple[TrainLoader, EvalLoader]:
    pack, rows = images.pack, images.indices("train")
    assert recipe.augment.crop_px is not None, "settled before"
    loader = TrainLoader(
        pack,
        rows,
        batch_size=recipe.training.batch_size,
        policy=preflight.policy_of(recipe.augment, channels=pack.channels),
        crop_px=recipe.augment.crop_px,
        weights=preflight.draw_weights(recipe.sampling, classes=images.classes, class_pixels=pack.class_pixels[rows]),
        seed=recipe.training.seed,
        device=device,
    )
    return loader, EvalLoader(pack, images.indices("val"), batch_size=recipe.training.batch_size, device=device)


def _module(recipe: Recipe, images: Prepared, model: SegmentationModel, *, budget: Budget) -> SegmentationModule:
    rows = images.indices("train")
    loss = build_loss(
        recipe.loss.formula,
        num_classes=images.classes.num_classes,
        class_weights=preflight.loss_weights(
            recipe.loss, classes=images.classes, class_pixels=images.pack.class_pixels[rows]
        ),
        ignore_in_loss=images.classes.ignore_in_loss,
        label_smoothing=recipe.loss.label_smoothing,
    )
    optimizer, schedule = recipe.optimizer, recipe.schedule
    model = model.to(memory_format=torch.channels_last)
    return SegmentationModule(
        model,
        loss=loss,
        budget=budget,
        optimizer=(optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.encoder_lr_factor),
        schedule=(schedule.name, schedule.warmup, schedule.final_factor),
        ema=recipe.training.ema,
        compiled=_compiles(recipe),
    )


def _compiles(recipe: Recipe) -> bool:
    """Compiled models are faster on a GPU; on a CPU the convolutions lose more than the rest gains."""
    return {"on": True, "off": False, "auto": torch.cuda.is_available()}[recipe.training.compile]


def _write_beginnings(
    run: Path, recipe: Recipe, images: Prepared, *, device: torch.device, report: WeightsReport | None
) -> None:
    run.mkdir(parents=True)
    write_recipe(run / "recipe.yaml", recipe)
    write_split(run / "split.json", images.split)
    write_card(run / "data.yaml", {**images.source.as_card(), "dropped": {**images.source.dropped, **images.dropped}})
    weights = None
    if report is not None:
        weights = {"source": report.source, "matched": report.matched, "licence": report.licence}
    facts = {"data_digest": images.pack.digest, "seed": recipe.training.seed, "weights": weights, **describe(device)}
    write_json(run / "environment.json", facts)


def _opening(
    recipe: Recipe, images: Prepared, model: SegmentationModel, *, report: WeightsReport | None, where: str
) -> list[str]:
    """What a run says before its first epoch."""
    sides = ", ".join(f"{len(images.indices(side))} {side}" for side in SPLIT_NAMES if len(images.indices(side)))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    name = recipe.model.name + (f"/{recipe.model.encoder}" if recipe.model.encoder else "")
    start = "from scratch" if report is None else f"{report.matched} tensors from {report.source}"
    lines = [
        f"images   {sides}" + (f", {len(images.dropped)} dropped" if images.dropped else ""),
        f"classes  {', '.join(images.classes.names)}",
        f"model    {name}, {millions:.2f} M parameters, {start}",
        f"budget   {budget_text(recipe.training)}, batches of {recipe.training.batch_size} on {where}",
    ]
    return [*lines, *(f"note     {note}" for note in (*images.source.notes, *images.pack.notes))]


def _saver(run: Path, module: SegmentationModule, images: Prepared, recipe: Recipe) -> Callable[[dict[str, Any]], None]:
    """A function that keeps the best model so far."""
    weights = read_json(run / "environment.json")["weights"]
    licences = [] if weights is None else [f"{weights['source']}: {weights['licence']}"]

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
        }
        save_bundle(run / "bundle", module.best, classes=images.classes, info=info)

    return save


def _definition(classes: ClassSet) -> str:
    out = [classes.names[k] for k in (*classes.ignore_in_score, *classes.leave_out_of_mean)]
    return f"mean IoU over all classes{' but ' if out else ''}{', '.join(out)}, from summed counts"


def _tensorboard(run: Path) -> Any:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise RecipeError("'training.tensorboard' needs TensorBoard", mend="pip install 'segwright[track]'") from None
    return TensorBoardLogger(run, name="", version="tensorboard")


logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
