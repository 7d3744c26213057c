"""The branches of a recipe that say which images a run sees, and how: their keys, usual values and meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segwright.recipe.part import Byte, Count, Fraction, MaskValue, Part, Positive, Seed, StoredValues


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

    rare_classes: tuple[str, ...] = Field(
        (), description="of rare_factor and crop_on_rare; empty: all classes with less than 2 % of the training pixels"
    )
    rare_factor: float = Field(1.0, ge=1.0, description="how many times as often images with rare_classes are drawn")
    class_uniform: bool = Field(
        False, description="a draw is of a class first, each equally likely, then of an image that holds it"
    )
    crop_on_rare: Fraction = Field(
        0.0, description="share of the crops that lie around an object of rare_classes, where the image holds one"
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
