"""The branches of a recipe that say what learns, and how: their keys, usual values and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from segwright.recipe.part import BelowOne, Count, Fraction, Part, Positive, Seed


class ModelRecipe(Part):
    """The network. Which arguments a model knows, `segwright models NAME` tells."""

    name: str = Field("fpn", description="of the network; `segwright models` lists them")
    encoder: str | None = Field(
        "resnet18", description="of models that take one, such as resnet18 or, of timm, tu-NAME; others drop it"
    )
    weights: str = Field(
        "auto", description="of the encoder: none, auto (imagenet when it can be had), imagenet, or a file"
    )
    freeze_encoder: bool | Annotated[int, Field(ge=1, le=5)] = Field(
        False,
        description="true: the whole encoder; n: its layers up to the feature of stride 2**n; both branches of a model "
        "of two",
    )
    freeze_statistics: bool | None = Field(
        None, description="the encoder's batch norms keep their statistics: always, never, or (null) while frozen"
    )
    unfreeze_at: Positive | None = Field(
        None,
        description="when a frozen encoder learns too: below 1 a share of the budget, from 1 on so many epochs; null: "
        "never",
    )
    branches: tuple[str, str] | None = Field(None, description="two runs or bundles that a dual or uformer starts from")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="what the model is told beside; `segwright models NAME` lists it"
    )
    initialization: Literal["default", "xavier", "kaiming", "orthogonal"] = Field(
        "default", description="of all weights that are not loaded; default: as the model draws them"
    )
    dropout: BelowOne | None = Field(
        None, description="rate of the model's dropout layers, or of one before its last convolution; null: as it is"
    )
    dropout_schedule: Literal["constant", "rising", "falling"] = Field(
        "constant", description="the rate of dropout over the budget"
    )
    stochastic_depth: BelowOne | None = Field(
        None, description="share of images that skip the last residual block, and less of earlier ones; null: as it is"
    )
    mean: tuple[float, ...] | None = Field(
        None,
        description="of the normalisation, as a share of full scale (255, 65535, of floats 1); one number, or one a "
        "channel; null: from the weights, else from the training images",
    )
    std: tuple[float, ...] | None = Field(None, description="standard deviation, as mean; give both or neither")

    @model_validator(mode="after")
    def _whole_epochs(self) -> ModelRecipe:
        if self.unfreeze_at is not None and self.unfreeze_at >= 1 and self.unfreeze_at % 1:
            raise ValueError("'unfreeze_at' is below 1 (a share of the budget) or a whole number of epochs")
        return self


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

    formula: str = Field("dice + ce", description="`segwright losses` lists the names and their arguments")
    class_weights: ClassWeighting | tuple[float, ...] = Field(
        "none", description="by a rule from the training pixels of each class, with a mean of 1, or one number a class"
    )
    weighted_in: Literal["pixel", "all"] = Field(
        "pixel", description="class weights count in losses that weigh pixels (ce, focal, boundary_ce), or in all"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target that is spread over all learnt classes, in ce alone"
    )
    heads: tuple[str, ...] = Field((), description="of a model with several heads, those that are taught; empty: all")


class OptimizerRecipe(Part):
    """How weights are moved."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = Field(
        "adamw", description="`segwright optimizers` tells of each"
    )
    lr: Positive = Field(1e-3, description="learning rate at its highest, of all but the encoder")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.01, description="of kernels, not of norms and biases; added to the gradient, but for adamw"
    )
    l2_convolutions: Annotated[float, Field(ge=0)] = Field(0.0, description="a penalty on convolution kernels alone")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of sgd and rmsprop")
    nesterov: bool = Field(False, description="of sgd")
    encoder_lr_factor: Positive = Field(1.0, description="the encoder's learning rate as a multiple of lr")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="each layer of the encoder learns at this share of the rate of the next one"
    )
    gradient_clip: Annotated[float, Field(gt=0)] | None = Field(
        1.0, description="largest norm of all gradients together; null: no limit"
    )


class ScheduleRecipe(Part):
    """The learning rate over the budget, by step (or by the clock, with a budget in minutes)."""

    name: Literal["constant", "step", "exponential", "poly", "cosine", "restarts", "one_cycle", "plateau"] = Field(
        "cosine", description="`segwright schedules` tells of each"
    )
    warmup: Fraction = Field(0.03, description="share of the budget in which the rate rises to lr; not of one_cycle")
    final_factor: Fraction = Field(
        0.01, description="share of lr at the end (of restarts, of each cycle); not of constant, step and plateau"
    )
    milestones: tuple[Fraction, ...] = Field((0.5, 0.75), description="shares of the budget at which step drops")
    drop: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor of a drop, of step and plateau")
    patience: Count = Field(3, description="epochs without a better training.watch before plateau drops")
    cycles: Count = Field(3, description="of restarts")
    growth: Positive = Field(1.0, description="length of a cycle of restarts, as a multiple of the one before")


def _yaml_switch(value: object) -> object:
    """YAML reads `on` and `off` as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TrainingRecipe(Part):
    """The budget and how it is spent. With neither `epochs` nor `minutes`, 100 epochs."""

    epochs: Count | None = Field(None, description="budget in passes over the training images")
    minutes: Positive | None = Field(None, description="budget by the clock, validations included")
    batch_size: Count = Field(8, description="images a step, of all processes together")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="number format of the network; auto: bf16 where that is fast, fp16 on older GPUs, else fp32"
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="decay a step of the averaged weights; 0: off")
    swa: Fraction = Field(
        0.0, description="share of the budget at its end whose weights are averaged alike, in place of ema; 0: off"
    )
    average_cycles: bool = Field(
        False, description="average the weights at the end of each cycle of schedule 'restarts', in place of ema"
    )
    early_stopping: Count | None = Field(
        None, description="stop after so many epochs without a better training.watch; null: never"
    )
    minimum_gain: Fraction = Field(0.0, description="of training.watch; less does not count for early_stopping")
    watch: Literal["miou", "loss"] = Field(
        "miou", description="of the validation images: what early_stopping and schedule.name plateau go by"
    )
    trainable: tuple[str, ...] = Field(
        (), description="parts of the network that learn, such as [branches.first]; empty: all of it"
    )
    keep: Literal["best", "last"] = Field("best", description="which validated weights the bundle holds")
    seed: Seed = Field(0, description="of all chance of a training; the split has its own")
    devices: Count | Literal["auto"] = Field(
        "auto",
        description="processes, each with a GPU or its share of the cores; auto: as torchrun or srun say, else 1",
    )
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_yaml_switch)] = Field(
        "auto", description="compile the network; auto: on a GPU, where that works"
    )
    tensorboard: bool = Field(False, description="write curves for TensorBoard, too; needs the extra named track")

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingRecipe:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("give a budget in epochs or in minutes, not both")
        return self

    @model_validator(mode="after")
    def _one_average(self) -> TrainingRecipe:
        if self.swa > 0 and self.average_cycles:
            raise ValueError("average with 'swa' or with 'average_cycles', not both")
        if self.average_cycles and self.early_stopping is not None:
            raise ValueError("leave 'early_stopping' out: with 'average_cycles' the score moves once a cycle")
        return self


CLASS_WEIGHTINGS: tuple[str, ...] = get_args(ClassWeighting)
