"""From a settled recipe to the parts of a run: the model with its starting weights, the loaders, the module."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from segwright.bundle import load_bundle
from segwright.data.loader import EvalLoader, TrainLoader
from segwright.data.prefetch import PrefetchLoader
from segwright.errors import WeightsError
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
from segwright.optim import OptimizerSettings, Plateau, Shape
from segwright.recipe import ModelRecipe, Recipe
from segwright.training import preflight
from segwright.training.budget import Budget
from segwright.training.module import SegmentationModule
from segwright.training.preparation import Prepared


@dataclass(frozen=True)
class Start:
    """A model before its first step.

    Attributes:
        model: with its starting weights.
        recipe: with everything settled that was left open.
        report: what was loaded into the encoder; None where nothing was.
        note: where the weights come from, in words.
    """

    model: SegmentationModel
    recipe: Recipe
    report: WeightsReport | None
    note: str


def with_architecture(recipe: Recipe, start_from: Path | None) -> Recipe:
    """The recipe with the architecture and normalisation of the model that is fine-tuned, where there is one."""
    if start_from is None:
        return recipe
    spec = load_bundle(start_from).model.spec
    architecture = {
        "name": spec.name, "encoder": spec.encoder, "arguments": dict(spec.arguments),
        "mean": spec.mean, "std": spec.std, "weights": "none",
    }  # fmt: skip
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=architecture)})


def start_of(recipe: Recipe, images: Prepared, *, start_from: Path | None, resumed: bool) -> Start:
    """Build the model, load what it starts from, and settle the recipe.

    Args:
        recipe: as asked.
        images: of the run.
        start_from: a run or bundle to take the weights of.
        resumed: all weights come later, from the state of the run.

    Raises:
        RecipeError: the model cannot be built as asked, or a frozen encoder would stay random.
        WeightsError: weights were asked for and are not there, or do not fit.
    """
    asked, train = recipe.model, images.pack.subset(images.indices("train"))
    crop_px = preflight.crop_of(recipe.augment, sizes=train.sizes)
    mean, std = preflight.normalization(asked, of_weights=(None, None), pack=train)
    model = build_model(_spec(asked, images, mean=mean, std=std))
    report, note = None, "as it was left"
    if start_from is not None:
        given = load_bundle(start_from)
        if given.classes.num_classes == images.classes.num_classes:
            images.source.require_classes(given.classes.names)
        fresh = load_matching(model, given.model)
        note = f"weights of {start_from}" + (f", but fresh {', '.join(fresh)}" if fresh else "")
    elif not resumed:
        report, note = _load_weights(model, asked)
    # The weights' own normalisation is of 8-bit pictures; other ranges are measured.
    if report is not None and report.mean is not None and report.std is not None and images.pack.dtype == np.uint8:
        mean, std = preflight.normalization(asked, of_weights=(report.mean, report.std), pack=train)
        model.set_normalization(mean=mean, std=std)
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
    return Start(model, recipe.model_copy(update=settled), report, note)


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


def _load_weights(model: SegmentationModel, asked: ModelRecipe) -> tuple[WeightsReport | None, str]:
    """Weights as asked; `auto` takes ImageNet's when they can be had, and the note says so when not."""
    if asked.weights == "none" or (asked.weights == "auto" and model.encoder is None):
        return None, "from scratch"
    try:
        report = load_encoder_weights(model, "imagenet" if asked.weights == "auto" else asked.weights)
    except WeightsError as error:
        if asked.weights != "auto":
            raise
        return None, f"from scratch, since {error.problem}"
    return report, f"{report.matched} tensors from {report.source}"


def loaders_of(
    recipe: Recipe, images: Prepared, *, device: torch.device, share: tuple[int, int] = (0, 1)
) -> tuple[TrainLoader | PrefetchLoader, EvalLoader]:
    """Batches to train on, and the validation images; `share` says which process of how many they are for."""
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
    ).share(share[0], of=share[1])
    # A GPU must not wait for the CPU to augment; a CPU has no core to spare for working ahead.
    ahead = device.type != "cpu" and not loader.keeps_images_on_device
    labelled = images.indices("val")
    labelled = labelled[pack.has_mask[labelled]]
    validation = EvalLoader(pack, labelled, batch_size=recipe.training.batch_size, device=device)
    return PrefetchLoader(loader) if ahead else loader, validation.share(share[0], of=share[1])


def module_of(
    recipe: Recipe, images: Prepared, model: SegmentationModel, *, budget: Budget, say: Callable[[str], None]
) -> SegmentationModule:
    """The model with its loss, optimiser and schedule; `say` is told when the memory is too small for a batch."""
    rows = images.indices("train")
    loss = build_loss(
        recipe.loss.formula,
        num_classes=images.classes.num_classes,
        class_weights=preflight.loss_weights(
            recipe.loss, classes=images.classes, class_pixels=images.pack.class_pixels[rows]
        ),
        weighted_in=recipe.loss.weighted_in,
        ignore_in_loss=images.classes.ignore_in_loss,
        label_smoothing=recipe.loss.label_smoothing,
    )
    optimizer, schedule = recipe.optimizer, recipe.schedule
    model = model.to(memory_format=torch.channels_last)
    return SegmentationModule(
        model,
        loss=loss,
        budget=budget,
        optimizer=OptimizerSettings(**optimizer.model_dump(exclude={"gradient_clip"})),
        schedule=(schedule.name, Shape(**schedule.model_dump(exclude={"name", "patience"}))),
        plateau=_plateau(recipe),
        ema=recipe.training.ema,
        compiled=_compiles(recipe),
        say=say,
    )


def _plateau(recipe: Recipe) -> Plateau | None:
    schedule = recipe.schedule
    return Plateau(drop=schedule.drop, patience=schedule.patience) if schedule.name == "plateau" else None


def _compiles(recipe: Recipe) -> bool:
    """Compiled models are faster on a GPU; on a CPU the convolutions lose more than the rest gains."""
    if recipe.training.compile != "auto":
        return recipe.training.compile == "on"
    new_enough = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 7
    return new_enough and find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
