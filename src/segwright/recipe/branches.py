"""The branches of a recipe: each a strict table of keys, with their usual values and what they mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _one_or_several(value: Any) -> Any:
    several = value if isinstance(value, list | tuple) else [value]
    if not several or not all(type(one) is int and -(2**31) <= one < 2**31 for one in several):
        raise ValueError("this is a whole number of at most 31 bits, or a list of such for classes that become one")
    return value


StoredValues = Annotated[int | tuple[int, ...], BeforeValidator(_one_or_several)]
"""What masks hold where a class is; of several values the first is written where masks are."""


class Part(BaseModel):
    """A branch of the recipe: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitRecipe(Part):
    """How images are divided into train, val and test.

    `auto` takes the split that the source brings, else a stratified one (grouped where groups are known).
    """

    kind: Literal["auto", "given", "random", "stratified", "grouped", "kfold"] = Field(
        "auto",
        description="stratified: sides have like shares of every class; random: by size alone; grouped: as stratified, "
        "and groups must be known; kfold: one of several folds is val; given: as the source or `file` says",
    )
    file: str | None = Field(
        None, description="JSON of {train: [ids], val: [ids], test: [ids]}; read where kind is auto or given"
    )
    groups: str | None = Field(
        None,
        description="a regular expression whose first group names the group, or an .npy/.npz/.json of groups; null: "
        "those of the source; a group is never divided",
    )
    val: Fraction = Field(0.2, description="share of the images that the source does not call test; not of kfold")
    test: Fraction = Field(0.0, description="share of the images; 0 where the source brings a test side")
    folds: int = Field(5, ge=2, description="number of folds, of kfold")
    fold: int = Field(0, ge=0, description="the fold that is val, counted from 0; of kfold")
    seed: Seed = Field(0, description="of the chance that deals the images; of kfold the folds, the same for each fold")
    refit: str | None = Field(
        None,
        description="a run that this one is trained again of, on its training and validation images together; nothing "
        "is validated, the last weights are kept; null: none",
    )


class DataRecipe(Part):
    """Where the images are and how they are read."""

    path: str | None = Field(None, description="folder, .npz, VOC devkit, CSV manifest or data.yaml card")
    format: Literal["auto", "folder", "arrays", "voc", "manifest"] = Field(
        "auto", description="how `path` is read; auto: as its ending or its folders tell"
    )
    split: SplitRecipe = SplitRecipe()
    drop: tuple[str, ...] = Field((), description="ids that are left out")
    drop_noise: bool = Field(
        False, description="leave out images without any spatial structure (neighbouring pixels unrelated)"
    )
    audit: bool = Field(True, description="look for what would poison the training, and stop, before it starts")
    working_size_px: Count | None = Field(
        None, description="longer side is scaled down to this when packed; null: never"
    )
    resident: Literal["auto", "memory", "device", "map"] = Field(
        "auto",
        description="where pixels are kept. auto, device: in the GPU's memory where they fit and are of one size, else "
        "mapped and read ahead; memory: a copy in main memory where it fits; map: read from the file as needed",
    )


class ClassesRecipe(Part):
    """The classes by name, and what is done with some of them.

    Where one of the last four lists is empty, that of the data card counts.
    """

    names: tuple[str, ...] = Field((), description="in label order; empty: taken from the source")
    colors: tuple[tuple[Byte, Byte, Byte], ...] = Field(
        (), description="red, green, blue of each class: the code of coloured masks; empty: of the source, else our own"
    )
    mask_values: tuple[StoredValues, ...] = Field(
        (),
        description="the value in the masks of each class, or a list of values that are one class; empty: 0, 1, 2, ... "
        "or detected",
    )
    void_values: tuple[MaskValue, ...] = Field((255,), description="mask values that are no class; counted nowhere")
    ignore_in_loss: tuple[str, ...] = Field((), description="pixels whose truth is one of these are not learnt from")
    ignore_in_score: tuple[str, ...] = Field(
        (), description="pixels whose truth is one of these are not scored, and these classes leave the mean"
    )
    leave_out_of_mean: tuple[str, ...] = Field(
        (), description="these classes leave the mean only; their pixels are still false positives of others"
    )
    never_predict: tuple[str, ...] = Field(
        (), description="the model never answers with these; they must stand in ignore_in_loss too"
    )


class SamplingRecipe(Part):
    """Which images an epoch draws, and where their crops lie."""

    rare_classes: tuple[str, ...] = Field((), description="images that hold one of these are drawn more often")
    rare_factor: float = Field(1.0, ge=1.0, description="how many times as often those of rare_classes are drawn")
    class_uniform: bool = Field(
        False, description="a draw is of a class first, each equally likely, then of an image that holds it"
    )
    crop_on_rare: Fraction = Field(
        0.0,
        description="share of the crops that lie around an object of rare_classes, where the image holds one; "
        "none named: of all classes with less than 2 % of the training pixels",
    )


class MixRecipe(Part):
    """How training images are mixed with one another; all off unless asked for."""

    cutmix: Fraction = Field(0.0, description="share of the images that get a rectangle of another")
    classmix: Fraction = Field(0.0, description="share of the images that get half of the classes of another")
    copy_paste: Fraction = Field(0.0, description="share of the images that get objects of other training images")
    paste_classes: tuple[str, ...] = Field(
        (), description="of the objects; empty: all classes with less than 2 % of the training pixels"
    )
    paste_objects: Count = Field(3, description="most objects an image")
    paste_scale: tuple[Positive, Positive] = Field((0.5, 1.5), description="zoom of an object, drawn log-uniformly")
    paste_flip: bool = Field(True, description="mirror every other object, left to right")
    paste_feather_px: Annotated[float, Field(ge=0)] = Field(
        1.0, description="width of the blend of an object's border into the image; its mask stays hard"
    )
    paste_onto: tuple[str, ...] = Field(
        (), description="classes that 80 % of what an object covers must be of; empty: all but paste_classes"
    )

    @model_validator(mode="after")
    def _sound(self) -> MixRecipe:
        if self.cutmix + self.classmix > 1:
            raise ValueError("'cutmix' and 'classmix' come to more than 1: an image is mixed in one of the two ways")
        if self.paste_scale[0] > self.paste_scale[1]:
            raise ValueError("'paste_scale' is a smallest and a largest factor, in this order")
        return self


class AugmentRecipe(Part):
    """What is done to training images. A preset fills every range that is null.

    Full scale is 255 of 8-bit images; of others it is the range of an image's own pixels.
    """

    preset: Literal["none", "light", "medium", "strong", "copies"] = Field(
        "medium", description="ranges for all that is null; `segwright augmentations` shows what each contains"
    )
    crop_px: tuple[Count, Count] | None = Field(
        None, description="rows, columns; null: the median image size in steps of 32, at most 512 x 512"
    )
    flip_horizontal: Fraction | None = Field(None, description="chance of a mirror image, left to right")
    flip_vertical: Fraction | None = Field(None, description="chance of a mirror image, top to bottom")
    quarter_turns: bool | None = Field(None, description="turn by 0, 90, 180 or 270 degrees, all equally likely")
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] | None = Field(
        None, description="turn by up to this angle either way"
    )
    scale: tuple[Positive, Positive] | None = Field(
        None, description="smallest and largest zoom factor, drawn log-uniformly; above 1 enlarges"
    )
    shear_degrees: Annotated[float, Field(ge=0, le=45)] | None = Field(
        None, description="slant either axis by up to this angle"
    )
    translate: Fraction | None = Field(None, description="shift by up to this share of the image side, either way")
    rotate_fill: Literal["reflection", "zoom"] | None = Field(
        None, description="what turning leaves empty shows the reflection, or is avoided by just enough zoom"
    )
    elastic_px: Annotated[float, Field(ge=0)] | None = Field(
        None, description="largest shift along a smooth random field, in pixels of the image"
    )
    elastic_sigma_px: Annotated[float, Field(ge=1)] | None = Field(
        None, description="how smooth that field is: the width of its Gaussian, in pixels of the crop"
    )
    grid_distortion: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        None, description="how far the nodes of a coarse grid move, as a share of a cell"
    )
    brightness: Fraction | None = Field(None, description="add up to this share of full scale, either way")
    contrast: Fraction | None = Field(None, description="multiply the distance from mid-gray by up to 1 +- this")
    gamma: Fraction | None = Field(None, description="raise to a power between 1 / (1 + this) and 1 + this")
    hue_degrees: Annotated[float, Field(ge=0, le=180)] | None = Field(
        None, description="turn colours by up to this angle either way; of three channels only"
    )
    saturation: Fraction | None = Field(
        None, description="multiply the distance from gray by up to 1 +- this; of three channels only"
    )
    blur_sigma_px: Annotated[float, Field(ge=0)] | None = Field(
        None, description="largest Gaussian blur; one image in four is blurred"
    )
    noise: Fraction | None = Field(
        None, description="largest standard deviation of noise, as a share of full scale; one image in four gets some"
    )
    match: Fraction | None = Field(None, description="share of the images that take over the tones of one of match_to")
    match_to: str | None = Field(None, description="pictures whose tones are taken, such as those of the test set")
    only_classes: tuple[str, ...] = Field((), description="images that hold none of these stay as they are; empty: all")

    @model_validator(mode="after")
    def _rising_scale(self) -> AugmentRecipe:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError("'scale' is a smallest and a largest factor, in this order")
        return self

    @model_validator(mode="after")
    def _both_of_match(self) -> AugmentRecipe:
        if bool(self.match) != (self.match_to is not None):
            raise ValueError("'match' and 'match_to' go together: how often, and to which pictures")
        return self


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
    patience: Count = Field(3, description="epochs without a better validation mIoU before plateau drops")
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
        None, description="stop after so many epochs without a better validation mIoU; null: never"
    )
    minimum_gain: Fraction = Field(0.0, description="of the validation mIoU; less does not count for early_stopping")
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
