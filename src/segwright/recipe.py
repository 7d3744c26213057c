"""A recipe: everything that decides a run, as one strict tree that is written and read as YAML.

Only the command line, studies, planning and `training/run.py` open a recipe; the rooms below take plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segwright.errors import RecipeError, brief, nearest, plainly
from segwright.files import read_yaml, write_yaml

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Part(BaseModel):
    """A branch of the recipe: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitRecipe(Part):
    """How images are divided into train, val and test.

    `auto` takes the split that the source brings, else a stratified one (grouped where groups are known).
    """

    kind: Literal["auto", "given", "random", "stratified", "grouped", "kfold"] = "auto"
    file: str | None = Field(None, description="JSON of {train: [ids], val: [ids], test: [ids]}")
    groups: str | None = Field(
        None, description="a regular expression whose first group names the group, or an .npy/.npz/.json of groups"
    )
    val: Fraction = 0.2
    test: Fraction = 0.0
    folds: int = Field(5, ge=2)
    fold: int = Field(0, ge=0)
    seed: Seed = 0


class DataRecipe(Part):
    """Where the images are and how they are read."""

    path: str | None = Field(None, description="folder, .npz, VOC devkit, CSV manifest or data.yaml card")
    format: Literal["auto", "folder", "arrays", "voc", "manifest"] = "auto"
    split: SplitRecipe = SplitRecipe()
    drop: tuple[str, ...] = Field((), description="ids that are left out")
    drop_noise: bool = Field(
        False, description="leave out images without any spatial structure (neighbouring pixels unrelated)"
    )
    audit: bool = Field(True, description="look for what would poison the training, and stop, before it starts")
    working_size_px: Count | None = Field(None, description="longer side is scaled down to this when packed")
    resident: Literal["auto", "memory", "device", "map"] = "auto"


class ClassesRecipe(Part):
    """The classes by name, and what is done with some of them."""

    names: tuple[str, ...] = Field((), description="in label order; empty: taken from the source")
    colors: tuple[tuple[Byte, Byte, Byte], ...] = ()
    mask_values: tuple[MaskValue, ...] = Field(
        (), description="the value in the masks of each class; empty: 0, 1, 2, ... or detected"
    )
    void_values: tuple[MaskValue, ...] = Field((255,), description="mask values that are no class; counted nowhere")
    ignore_in_loss: tuple[str, ...] = ()
    ignore_in_score: tuple[str, ...] = ()
    leave_out_of_mean: tuple[str, ...] = ()
    never_predict: tuple[str, ...] = ()


class SamplingRecipe(Part):
    """Which images an epoch draws."""

    rare_classes: tuple[str, ...] = Field((), description="images that hold one of these are drawn more often")
    rare_factor: float = Field(1.0, ge=1.0)


class AugmentRecipe(Part):
    """What is done to training images. A preset fills every value that is not given."""

    preset: Literal["none", "light", "medium", "strong"] = "medium"
    crop_px: tuple[Count, Count] | None = Field(
        None, description="rows, columns; none: the common image size, or at most 512 x 512"
    )
    flip_horizontal: Fraction | None = None
    flip_vertical: Fraction | None = None
    quarter_turns: bool | None = None
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    scale: tuple[Positive, Positive] | None = Field(None, description="zoom factor, drawn log-uniformly")
    shear_degrees: Annotated[float, Field(ge=0, le=45)] | None = None
    translate: Fraction | None = Field(None, description="as a share of the image side")
    brightness: Fraction | None = None
    contrast: Fraction | None = None
    gamma: Fraction | None = None
    hue_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    saturation: Fraction | None = None
    blur_sigma_px: Annotated[float, Field(ge=0)] | None = None
    noise: Fraction | None = Field(None, description="standard deviation as a share of full scale")

    @model_validator(mode="after")
    def _rising_scale(self) -> AugmentRecipe:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError("'scale' is a smallest and a largest factor, in this order")
        return self


class ModelRecipe(Part):
    """The network. Which arguments a model knows, `segwright models NAME` tells."""

    name: str = "fpn"
    encoder: str | None = Field("resnet18", description="for library models")
    weights: str = Field("auto", description="none, auto (imagenet when it can be had), imagenet, or a file")
    freeze_encoder: bool | Annotated[int, Field(ge=1, le=5)] = Field(
        False,
        description="true: the whole encoder; n: its layers up to the feature of stride 2**n",
    )
    arguments: dict[str, Any] = Field(default_factory=dict)
    mean: tuple[float, ...] | None = Field(
        None, description="normalisation; none: from the weights, else from the training images"
    )
    std: tuple[float, ...] | None = None


ClassWeighting = Literal[
    "none",
    "inverse",
    "normalized_inverse",
    "median_frequency",
    "enet_log",
    "mild_log",
    "effective_number",
    "sqrt_inverse",
]


class LossRecipe(Part):
    """A weighted sum of losses, such as `dice + 2*ce` or `tversky(alpha=0.3, beta=0.7) + ramp(0, 0.01)*boundary`."""

    formula: str = "dice + ce"
    class_weights: ClassWeighting | tuple[float, ...] = "none"
    weighted_in: Literal["pixel", "all"] = Field(
        "pixel", description="class weights count in losses that weigh pixels (ce, focal, boundary_ce), or in all"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class OptimizerRecipe(Part):
    """How weights are moved."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    l2_convolutions: Annotated[float, Field(ge=0)] = Field(0.0, description="a penalty on convolution kernels alone")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of sgd and rmsprop")
    nesterov: bool = Field(False, description="of sgd")
    encoder_lr_factor: Positive = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="each layer of the encoder learns at this share of the rate of the next one"
    )
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0


class ScheduleRecipe(Part):
    """The learning rate over the budget, by step (or by the clock, with a budget in minutes)."""

    name: Literal["constant", "step", "exponential", "poly", "cosine", "restarts", "one_cycle", "plateau"] = "cosine"
    warmup: Fraction = Field(0.03, description="share of the budget")
    final_factor: Fraction = 0.01
    milestones: tuple[Fraction, ...] = Field((0.5, 0.75), description="shares of the budget at which step drops")
    drop: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor of a drop, of step and plateau")
    patience: Count = Field(3, description="epochs without a better validation mIoU before plateau drops")
    cycles: Count = Field(3, description="of restarts")
    growth: Positive = Field(1.0, description="length of a cycle of restarts, as a multiple of the one before")


class TrainingRecipe(Part):
    """The budget and how it is spent. With neither `epochs` nor `minutes`, 100 epochs."""

    epochs: Count | None = None
    minutes: Positive | None = None
    batch_size: Count = 8
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="decay a step of the averaged weights; 0: off")
    early_stopping: Count | None = Field(None, description="epochs without a better validation mIoU")
    seed: Seed = 0
    devices: Count | Literal["auto"] = Field(
        "auto",
        description="processes, each with a GPU or its share of the cores; auto: as torchrun or srun say, else 1",
    )
    compile: Literal["auto", "on", "off"] = "auto"
    tensorboard: bool = False

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingRecipe:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("give a budget in epochs or in minutes, not both")
        return self


class Recipe(Part):
    """The whole tree."""

    data: DataRecipe = DataRecipe()
    classes: ClassesRecipe = ClassesRecipe()
    sampling: SamplingRecipe = SamplingRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    model: ModelRecipe = ModelRecipe()
    loss: LossRecipe = LossRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    training: TrainingRecipe = TrainingRecipe()

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: the file is no YAML mapping, has an unknown key or a value out of range.
    """
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of keys", mend="start it with 'data:' or 'model:'", file=path)
    return make_recipe(tree, file=path)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe that `read_recipe` gives back unchanged."""
    write_yaml(path, recipe.as_dict())


def make_recipe(tree: Mapping[str, Any], *, file: Path | None = None) -> Recipe:
    """Check a mapping and make it a recipe.

    Raises:
        RecipeError: naming the first wrong key or value, what it may be, and the nearest right one.
    """
    try:
        recipe = Recipe.model_validate(dict(tree))
        recipe.as_dict()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = [str(step) for step in first["loc"]]
        if first["type"] == "extra_forbidden":
            menu = _keys_at(where[:-1])
            raise RecipeError(f"unknown key '{'.'.join(where)}'", mend=nearest(where[-1], menu), file=file) from None
        message = _PLAINLY.get(first["type"]) or plainly(first["msg"])
        value = first.get("input")
        shown = "" if isinstance(value, (dict, Part)) else f" = {brief(value)}"
        raise RecipeError(f"'{'.'.join(where)}'{shown}: {message}", file=file) from None
    except ValueError as error:  # lists within lists without end
        raise RecipeError(f"cannot be written down ({error})", mend="shorten model.arguments", file=file) from None
    return recipe


_PLAINLY = {
    "tuple_type": "this is a list, such as [1, 2]",
    "dict_type": "this is a mapping, such as {key: value}",
    "model_type": "this is a mapping, such as {key: value}",
}


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Apply `key.path=value` texts, as given with `-o`; values are read as YAML.

    Raises:
        RecipeError: a text without '=', an unknown key, or a value out of range.
    """
    tree = recipe.as_dict()
    for text in assignments:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecipeError(f"'{text}' is no assignment", mend="write key.path=value, such as optimizer.lr=3e-4")
        branch: Any = tree
        for depth, key in enumerate(keys[:-1]):
            if not isinstance(branch, dict) or key not in branch:
                raise RecipeError(f"unknown key '{path}'", mend=nearest(key, _keys_at(keys[:depth])))
            branch = branch[key]
        if not isinstance(branch, dict):
            raise RecipeError(f"'{'.'.join(keys[:-1])}' is a value, not a branch", mend="assign to it directly")
        branch[keys[-1]] = _scalar(value)
    return make_recipe(tree)


def _scalar(text: str) -> Any:
    """YAML 1.1 reads `3e-4` as a text; people mean the number."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # such as a date that there is not
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _keys_at(path: list[str]) -> list[str]:
    """The keys of the branch at `path`; those of the root where there is none."""
    branch: type[Part] = Recipe
    for step in path:
        kind = branch.model_fields[step].annotation if step in branch.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, Part)):
            return list(branch.model_fields)
        branch = kind
    return list(branch.model_fields)


def budget_text(training: TrainingRecipe) -> str:
    """The budget in words."""
    if training.minutes is not None:
        return f"{training.minutes:g} minutes"
    return f"{training.epochs or DEFAULT_EPOCHS} epochs"


DEFAULT_EPOCHS = 100
CLASS_WEIGHTINGS: tuple[str, ...] = get_args(ClassWeighting)
