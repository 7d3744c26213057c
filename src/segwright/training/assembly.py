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
from segwright.data.eval_loader import EvalLoader
from segwright.data.loader import TrainLoader
from segwright.data.objects import find_objects
from segwright.data.prefetch import PrefetchLoader
from segwright.data.tones import tones_below
from segwright.errors import RecipeError, WeightsError
from segwright.models import (
    ModelSpec,
    SegmentationModel,
    WeightsReport,
    build_model,
    freeze_statistics,
    load_encoder_weights,
    train_only,
    unfreeze,
)
from segwright.models.initialization import draw_weights
from segwright.models.regularization import DropoutSchedule, set_dropout, set_stochastic_depth
from segwright.models.weights import load_matching
from segwright.optim import OptimizerSettings, Plateau, Shape
from segwright.recipe import ModelRecipe, Recipe
from segwright.training import preflight
from segwright.training.averaging import Averaging
from segwright.training.budget import Budget
from segwright.training.class_labels import with_labels, with_names
from segwright.training.joining import load_branches, under_rules_of, with_branches
from segwright.training.module import SegmentationModule
from segwright.training.objective import loss_of
from segwright.training.preparation import Prepared
from segwright.training.unfreezing import freeze, thaw_of


@dataclass(frozen=True)
class Start:
    """A model before its first step.

    Attributes:
        model: with its starting weights.
        recipe: with everything settled that was left open.
        report: what was loaded into the encoder; None where nothing was.
        note: where the weights come from, in words.
        licences: of the weights of its branches.
    """

    model: SegmentationModel
    recipe: Recipe
    report: WeightsReport | None
    note: str
    licences: tuple[str, ...] = ()


def with_architecture(recipe: Recipe, start_from: Path | None) -> Recipe:
    """The recipe with the architecture and normalisation of the model that is fine-tuned, where there is one.

    Raises:
        RecipeError: it starts from two branches, and these or `start_from` do not go with that.
    """
    if start_from is None:
        return recipe if recipe.model.branches is None else with_branches(recipe)
    if recipe.model.branches is not None:
        raise RecipeError(f"model.branches and --from {start_from}", mend="start from one or the other")
    given = load_bundle(start_from)
    spec = given.model.spec
    architecture = {
        "name": spec.name, "encoder": spec.encoder,
        "arguments": with_names(spec.name, spec.arguments, given.classes.names),
        "mean": spec.mean, "std": spec.std, "weights": "none", "initialization": "default",
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
    train = images.pack.subset(images.indices("train"))
    asked = under_rules_of(images.classes, recipe.model)
    crop_px = preflight.crop_of(recipe.augment, sizes=train.sizes)
    mean, std = preflight.normalization(asked, of_weights=(None, None), pack=train)
    model = build_model(_spec(asked, images, mean=mean, std=std))
    report, note = None, "as it was left"
    licences: tuple[str, ...] = ()
    if start_from is not None:
        given = load_bundle(start_from)
        if given.classes.num_classes == images.classes.num_classes:
            images.source.require_classes(given.classes.names)
        fresh = load_matching(model, given.model)
        note = f"weights of {start_from}" + (f", but fresh {', '.join(fresh)}" if fresh else "")
    elif asked.branches is not None and not resumed:
        note, licences = load_branches(model, asked.branches, images=images)
    elif not resumed:
        report, note = _load_weights(model, asked)
        loaded_part = None if report is None else model.encoder
        if draw_weights(model, asked.initialization, seed=recipe.training.seed, keep=loaded_part):
            note += f", {asked.initialization} initialisation" + (" of the rest" if report is not None else "")
    # The weights' own normalisation is of 8-bit pictures; other ranges are measured.
    if report is not None and report.mean is not None and report.std is not None and images.pack.dtype == np.uint8:
        mean, std = preflight.normalization(asked, of_weights=(report.mean, report.std), pack=train)
        model.set_normalization(mean=mean, std=std)
    loaded = resumed or start_from is not None or asked.branches is not None or report is not None
    preflight.check_frozen(asked, loaded=loaded, model=model)
    _regularize(model, asked)
    _freeze(model, asked)
    if recipe.training.trainable:
        train_only(model, recipe.training.trainable)
    preflight.one_try(model, crop_px=crop_px)
    weights = asked.weights if asked.weights != "auto" else "none" if report is None else "imagenet"
    settled = {
        "model": asked.model_copy(update={"mean": mean, "std": std, "weights": weights}),
        "augment": recipe.augment.model_copy(update={"crop_px": crop_px}),
    }
    return Start(model, recipe.model_copy(update=settled), report, note, licences)


def _freeze(model: SegmentationModel, asked: ModelRecipe) -> None:
    """What never learns stands still from now on; what learns later is only tried: the optimiser must know it."""
    if asked.freeze_statistics:
        freeze_statistics(model)
    thaw = thaw_of(asked)
    if thaw is None:
        return
    stopped = freeze(model, thaw)
    if thaw.at is not None:
        unfreeze(model, stopped, statistics=thaw.statistics is True)


def _spec(asked: ModelRecipe, images: Prepared, *, mean: tuple[float, ...], std: tuple[float, ...]) -> ModelSpec:
    return ModelSpec(
        name=asked.name,
        in_channels=images.pack.channels,
        num_classes=images.classes.num_classes,
        encoder=asked.encoder,
        arguments=with_labels(asked.name, asked.arguments, images.classes),
        mean=mean,
        std=std,
        scale=preflight.FULL_SCALE[str(images.pack.dtype)],
        never_predict=images.classes.never_predict,
    )


def _regularize(model: SegmentationModel, asked: ModelRecipe) -> None:
    """Dropout and stochastic depth as asked.

    Raises:
        RecipeError: the model has nothing that could be left out, or it stands still.
    """
    if asked.dropout is not None:
        set_dropout(model, asked.dropout)
    if asked.stochastic_depth is not None:
        thaw = thaw_of(asked)
        if asked.stochastic_depth > 0 and thaw is not None and thaw.depth is None and thaw.at is None:
            raise RecipeError(
                "'model.stochastic_depth' with a frozen encoder, of which nothing is left out",
                mend="leave one of the two out, or freeze a part of the encoder",
            )
        set_stochastic_depth(model, asked.stochastic_depth)


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
    return report, str(report)


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
        policy=preflight.policy_of(recipe.augment, channels=pack.channels, tones=_tones(recipe, images)),
        crop_px=recipe.augment.crop_px,
        weights=preflight.draw_weights(recipe.sampling, classes=images.classes, class_pixels=pack.class_pixels[rows]),
        changed=preflight.changed_images(recipe.augment, classes=images.classes, class_pixels=pack.class_pixels[rows]),
        seed=recipe.training.seed,
        device=device,
    )
    loader = _with_rare_objects(loader, recipe, images).share(share[0], of=share[1])
    # A GPU must not wait for the CPU to augment; a CPU has no core to spare for working ahead.
    ahead = device.type != "cpu" and not loader.keeps_images_on_device
    labelled = images.indices("val")
    labelled = labelled[pack.has_mask[labelled]]
    validation = EvalLoader(pack, labelled, batch_size=recipe.training.batch_size, device=device)
    return PrefetchLoader(loader) if ahead else loader, validation.share(share[0], of=share[1])


def _tones(recipe: Recipe, images: Prepared) -> np.ndarray | None:
    """The tones of the pictures that training images are matched to, where there are any."""
    if recipe.augment.match_to is None:
        return None
    pack = images.pack
    return tones_below(Path(recipe.augment.match_to), channels=pack.channels, dtype=pack.dtype.name)


def _with_rare_objects(loader: TrainLoader, recipe: Recipe, images: Prepared) -> TrainLoader:
    """The loader with crops on rare objects and with mixing, as asked."""
    rows, sampling = images.indices("train"), recipe.sampling
    pixels = images.pack.class_pixels[rows]
    mixing = preflight.mix_policy_of(recipe.mix, classes=images.classes, class_pixels=pixels)
    if sampling.crop_on_rare > 0:
        rare = preflight.rare_labels(
            sampling.rare_classes, key="sampling.rare_classes", classes=images.classes, class_pixels=pixels
        )
        objects = find_objects(images.pack, rows, labels=rare, least_px=1)
        loader = loader.centred_on(objects, share=sampling.crop_on_rare)
    if mixing.copy_paste > 0:
        return loader.mixed(mixing, objects=find_objects(images.pack, rows, labels=mixing.paste_labels))
    return loader.mixed(mixing) if mixing.blends_images else loader


def module_of(
    recipe: Recipe, images: Prepared, model: SegmentationModel, *, budget: Budget, say: Callable[[str], None]
) -> SegmentationModule:
    """The model with its loss, optimiser and schedule; `say` is told when the memory is too small for a batch."""
    pixels = images.pack.class_pixels[images.indices("train")]
    loss = loss_of(recipe.loss, classes=images.classes, class_pixels=pixels, heads=model.heads)
    optimizer = recipe.optimizer
    model = model.to(memory_format=torch.channels_last)
    return SegmentationModule(
        model,
        loss=loss,
        budget=budget,
        optimizer=OptimizerSettings(**optimizer.model_dump(exclude={"gradient_clip"})),
        schedule=(recipe.schedule.name, _shape(recipe)),
        plateau=_plateau(recipe),
        averaging=averaging_of(recipe),
        followers=[DropoutSchedule(model, recipe.model.dropout_schedule).follow],
        compiled=_compiles(recipe),
        say=say,
    )


def averaging_of(recipe: Recipe) -> Averaging:
    """Which average of the weights is validated and kept: one of equal parts takes the place of the moving one.

    Raises:
        RecipeError: cycles are to be averaged of a schedule that has none.
    """
    asked, schedule = recipe.training, recipe.schedule
    if asked.average_cycles:
        if schedule.name != "restarts":
            problem = f"'training.average_cycles' with schedule '{schedule.name}', which has no cycles"
            raise RecipeError(problem, mend="set schedule.name=restarts, or average with training.swa")
        return Averaging("cycles", ends=_shape(recipe).cycle_ends())
    if asked.swa > 0:
        return Averaging("tail", share=asked.swa)
    return Averaging("moving", decay=asked.ema) if asked.ema > 0 else Averaging("none")


def _shape(recipe: Recipe) -> Shape:
    return Shape(**recipe.schedule.model_dump(exclude={"name", "patience"}))


def _plateau(recipe: Recipe) -> Plateau | None:
    schedule = recipe.schedule
    return Plateau(drop=schedule.drop, patience=schedule.patience) if schedule.name == "plateau" else None


def _compiles(recipe: Recipe) -> bool:
    """Compiled models are faster on a GPU; on a CPU the convolutions lose more than the rest gains."""
    if recipe.training.compile != "auto":
        return recipe.training.compile == "on"
    new_enough = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 7
    return new_enough and find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
