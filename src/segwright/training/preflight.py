"""What a recipe leaves open is settled here, from the data and the machine, before the first step is paid for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int

from segwright.augment.mix import MixPolicy
from segwright.augment.policy import PRESETS, Policy
from segwright.data.pack import Pack
from segwright.errors import RecipeError, TrainingError
from segwright.hardware import is_out_of_memory
from segwright.losses.class_weights import class_weights
from segwright.models import SegmentationModel
from segwright.recipe import AugmentRecipe, LossRecipe, MixRecipe, ModelRecipe, SamplingRecipe
from segwright.training.memory import SMALLER
from segwright.types import IGNORE_INDEX, ClassSet, Head

LARGEST_CROP_PX = 512
RARE_SHARE = 0.02
"""A class with a smaller share of the training pixels is rare, where the recipe does not say which ones are."""

CROP_STEP_PX = 32
NORMALIZATION_IMAGES = 200
NORMALIZATION_PIXELS = 500_000
FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def policy_of(recipe: AugmentRecipe, *, channels: int, tones: np.ndarray | None = None) -> Policy:
    """The preset with what the recipe sets itself; `tones` (R, C, 256) are those of the pictures it matches."""
    preset = PRESETS[recipe.preset]
    given = {name: getattr(recipe, name) for name in Policy.__dataclass_fields__} | {"match_to": tones}
    merged = {name: getattr(preset, name) if value is None else value for name, value in given.items()}
    for name in ("hue_degrees", "saturation"):
        if given[name] and channels != 3:
            raise RecipeError(f"'augment.{name}' with {channels} channels", mend="it is for RGB images: leave it out")
        if channels != 3:
            merged[name] = 0.0
    return Policy(**merged)


def changed_images(
    recipe: AugmentRecipe, *, classes: ClassSet, class_pixels: Int[np.ndarray, "N 256"]
) -> Bool[np.ndarray, " N"] | None:
    """Which images are changed: those that hold one of the classes that the recipe names; None for all.

    Raises:
        RecipeError: there is no class of a name, or no training image holds one.
    """
    if not recipe.only_classes:
        return None
    labels = [classes.index(name) for name in recipe.only_classes]
    held = np.asarray((class_pixels[:, labels] > 0).any(axis=1))
    if not held.any():
        problem = f"no training image holds {' or '.join(recipe.only_classes)}, which augment.only_classes names"
        raise RecipeError(problem, mend="name other classes, or leave it out")
    return held


def crop_of(recipe: AugmentRecipe, *, sizes: Int[np.ndarray, "N 2"]) -> tuple[int, int]:
    """Rows and columns of a training crop: the median image, at most `LARGEST_CROP_PX`, in steps that encoders take."""
    if recipe.crop_px is not None:
        return recipe.crop_px
    rows, columns = (min(int(side), LARGEST_CROP_PX) for side in np.median(sizes, axis=0))
    return _stepped(rows), _stepped(columns)


def _stepped(side: int) -> int:
    return max(side - side % CROP_STEP_PX, CROP_STEP_PX)


def draw_weights(
    recipe: SamplingRecipe, *, classes: ClassSet, class_pixels: Int[np.ndarray, "N 256"]
) -> np.ndarray | None:
    """How often each image is drawn, relative to the others; None for all alike.

    With `class_uniform` a class is drawn first, each of the T that occur equally likely, then one of the n_k images
    that hold it, so that the weight of an image is the sum of 1 / (T n_k) over the classes k that it holds. Classes
    that stand in no loss are not drawn, and an image of nothing else never comes. `rare_factor` multiplies.

    Raises:
        RecipeError: there is no class of a name, none is rare, or none can be drawn.
    """
    factor = np.ones(len(class_pixels))
    if recipe.rare_classes or recipe.rare_factor > 1:
        key = "sampling.rare_classes"
        rare = rare_labels(recipe.rare_classes, key=key, classes=classes, class_pixels=class_pixels)
        factor[(class_pixels[:, rare] > 0).any(axis=1)] = recipe.rare_factor
    if not recipe.class_uniform:
        return factor if recipe.rare_factor > 1 else None
    learnt = [k for k in range(classes.num_classes) if k not in classes.ignore_in_loss]
    holds = class_pixels[:, learnt] > 0
    images = holds.sum(axis=0)
    if not images.any():
        problem = "'sampling.class_uniform' finds no class in the training images that stands in the loss"
        raise RecipeError(problem, mend="set it to false, or change classes.ignore_in_loss")
    return np.asarray(factor * (holds[:, images > 0] / images[images > 0]).mean(axis=1))


def rare_labels(
    names: Sequence[str], *, key: str, classes: ClassSet, class_pixels: Int[np.ndarray, "N 256"]
) -> tuple[int, ...]:
    """The labels of the named classes, or of all that take less than `RARE_SHARE` of the training pixels.

    Args:
        names: as the recipe has them; empty for the rare ones.
        key: what the recipe calls them.
        classes: all of them.
        class_pixels: pixels of each label in each training image; void does not count.

    Raises:
        RecipeError: there is no class of a name, or none is rare.
    """
    if names:
        return tuple(classes.index(name) for name in names)
    pixels = class_pixels[:, : classes.num_classes].sum(axis=0)
    rare = np.flatnonzero((pixels > 0) & (pixels < RARE_SHARE * pixels.sum()))
    labels = tuple(int(k) for k in rare if k not in classes.ignore_in_loss)
    if not labels:
        problem = f"no class takes less than {RARE_SHARE:.0%} of the training pixels"
        raise RecipeError(problem, mend=f"name the classes in {key}")
    return labels


def mix_policy_of(recipe: MixRecipe, *, classes: ClassSet, class_pixels: Int[np.ndarray, "N 256"]) -> MixPolicy:
    """How images are mixed, with labels in place of names."""
    given = {name: getattr(recipe, name) for name in MixPolicy.__dataclass_fields__ if name in MixRecipe.model_fields}
    if recipe.copy_paste > 0:
        given["paste_labels"] = rare_labels(
            recipe.paste_classes, key="mix.paste_classes", classes=classes, class_pixels=class_pixels
        )
    return MixPolicy(**given | {"paste_onto": tuple(classes.index(name) for name in recipe.paste_onto)})


def loss_weights(
    recipe: LossRecipe, *, classes: ClassSet, class_pixels: Int[np.ndarray, "N 256"], head: Head
) -> tuple[float, ...] | None:
    """One weight for each label that a head is taught, from the training images or as given; None for all alike.

    Weights that are given one by one are those of the classes: heads with other labels learn all alike. So do heads
    that say something of a whole image.

    Raises:
        RecipeError: there is not one weight a class, or no weighting of that name.
    """
    asked = recipe.class_weights
    if not isinstance(asked, str):
        if len(asked) != classes.num_classes:
            problem = f"{len(asked)} class weights for {classes.num_classes} classes"
            raise RecipeError(problem, mend="give one a class")
        return asked if head.of_classes else None
    if asked == "none" or head.whole is not None:
        return None
    counts = class_pixels[:, : classes.num_classes].sum(axis=0).tolist()
    if head.of_classes:
        return class_weights(asked, counts=counts, left_out=classes.ignore_in_loss)
    own = [0] * head.num_classes
    for k, label in enumerate(head.labels):
        if label != IGNORE_INDEX and k not in classes.ignore_in_loss:
            own[label] += counts[k]
    return class_weights(asked, counts=own)


def normalization(
    recipe: ModelRecipe, *, of_weights: tuple[Sequence[float] | None, Sequence[float] | None], pack: Pack
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel as shares of full scale: as given, else the weights', else the images'."""
    pairs = []
    for name, given, loaded in (("mean", recipe.mean, of_weights[0]), ("std", recipe.std, of_weights[1])):
        values = given or loaded
        if values is not None and len(values) != pack.channels:
            if given and len(given) != 1:
                problem = f"'model.{name}' has {len(values)} values for {pack.channels} channels"
                raise RecipeError(problem, mend="give one a channel")
            values = [float(np.mean(values))] * pack.channels
        pairs.append(None if values is None else tuple(float(value) for value in values))
    if pairs[0] is not None and pairs[1] is not None:
        return pairs[0], pairs[1]
    if (pairs[0] is None) != (pairs[1] is None):
        raise RecipeError("one of 'model.mean' and 'model.std' is missing", mend="give both or neither")
    return measured_normalization(pack)


def measured_normalization(pack: Pack) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation over an even choice of the images, and in large ones of their pixels."""
    chosen = np.unique(np.linspace(0, len(pack) - 1, NORMALIZATION_IMAGES).astype(int))
    scale = FULL_SCALE[str(pack.dtype)]
    total, squares, pixels = np.zeros(pack.channels), np.zeros(pack.channels), 0
    for i in chosen:
        step = max(1, math.isqrt(int(pack.sizes[i].prod()) // NORMALIZATION_PIXELS))
        values = pack.image(int(i))[:, ::step, ::step].reshape(pack.channels, -1).astype(np.float64) / scale
        total += values.sum(axis=1)
        squares += np.square(values).sum(axis=1)
        pixels += values.shape[1]
    mean = total / pixels
    variance = squares / pixels - np.square(mean)
    # A channel that never changes must not be divided by zero.
    std = np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 0)), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def check_frozen(recipe: ModelRecipe, *, loaded: bool, model: SegmentationModel) -> None:
    """A frozen encoder must have learnt something before.

    Raises:
        RecipeError: an encoder is to be frozen that is not there, or holds random weights; or something is to be
            unfrozen that is not frozen.
    """
    if recipe.freeze_statistics is not None and model.encoder is None:
        problem = f"model '{recipe.name}' has no encoder whose statistics could be frozen"
        raise RecipeError(problem, mend="leave model.freeze_statistics out")
    if recipe.unfreeze_at is not None and not recipe.freeze_encoder:
        problem = f"model.unfreeze_at {recipe.unfreeze_at:g}, but nothing is frozen"
        raise RecipeError(problem, mend="set model.freeze_encoder, or leave model.unfreeze_at out")
    if not recipe.freeze_encoder:
        return
    if model.encoder is None:
        raise RecipeError(f"model '{recipe.name}' has no encoder to freeze", mend="set model.freeze_encoder: false")
    if not loaded:
        raise RecipeError(
            "a frozen encoder without loaded weights would stay random",
            mend="set model.weights to imagenet or a file, or model.freeze_encoder: false",
        )


def one_try(model: SegmentationModel, *, crop_px: tuple[int, int]) -> None:
    """Push two empty crops through, or one where the memory is small: a misfit shows before anything is written.

    Raises:
        TrainingError: the memory is not enough for one crop.
    """
    model.eval()
    for images in (2, 1):
        try:
            with torch.inference_mode():
                out = model(torch.zeros(images, model.spec.in_channels, *crop_px, dtype=torch.uint8))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            continue
        wanted = (images, model.spec.num_classes, *crop_px)
        assert out.shape == wanted, f"a model must keep the size, gave {tuple(out.shape)}"
        return
    raise TrainingError(f"the memory is not enough for one crop of {crop_px[0]} x {crop_px[1]} pixels", mend=SMALLER)
