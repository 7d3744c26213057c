"""What an audit says: findings, each of one kind, in the words of a person who labels images.

    Kind       what can be wrong, whence it usually comes and what to do about it
    Finding    one kind met in this data: which images, and what exactly was seen at each
    Answer     all that one question (integrity, frequencies, ...) gave: facts for audit.json, and findings

Levels: `mend` would poison a training or a score, `look` is worth a glance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["mend", "look"]


@dataclass(frozen=True)
class Kind:
    """A sort of finding.

    Attributes:
        level: how serious it is.
        title: a heading, in the plural.
        cause: where it usually comes from.
        cure: what to do.
    """

    level: Level
    title: str
    cause: str
    cure: str


@dataclass(frozen=True)
class Finding:
    """One kind, met in this data.

    Attributes:
        kind: a key of `KINDS`.
        summary: one plain sentence with the counts.
        ids: the images, the most serious first.
        notes: id -> what exactly was seen there; an id without one needs no more than the summary.
        groups: sets of ids that belong together (copies of one picture, images that share a mask).
        drop: ids that a repaired card leaves out, each with its reason.
        numbers: facts for audit.json.
        level: how serious it is here; None for the usual level of the kind.
    """

    kind: str
    summary: str
    ids: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()
    drop: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    level: Level | None = None

    def __post_init__(self) -> None:
        assert self.kind in KINDS, f"no such kind: {self.kind}"

    @property
    def gravity(self) -> Level:
        return self.level or KINDS[self.kind].level


@dataclass(frozen=True)
class Answer:
    """What one question gave.

    Attributes:
        facts: plain numbers, texts, lists and mappings, as they stand in audit.json.
        findings: in the order in which they should be read.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


KINDS: dict[str, Kind] = {
    # integrity
    "broken_image": Kind(
        "mend", "Image files that cannot be read", "the file was cut short while it was copied, or is no picture",
        "copy it again from the camera or the archive, or leave it out",
    ),
    "broken_mask": Kind(
        "mend", "Mask files that cannot be read", "the file was cut short while it was copied or saved",
        "export the mask again, or leave the image out",
    ),
    "missing_mask": Kind(
        "mend", "Images without a mask", "the mask was never drawn, or its file has another name",
        "draw the mask, give it the name of its image, or leave the image out",
    ),
    "double_mask": Kind(
        "mend", "Images with two masks", "a mask was saved twice under names that mean the same", "keep one of the two",
    ),
    "double_name": Kind(
        "mend", "Pictures that share a name", "a picture was saved in two formats, or a mask lies among the images",
        "rename or delete one of the two; put masks into a folder named masks",
    ),
    "broken_line": Kind(
        "mend", "Lines of the list that cannot be used", "a file was moved or renamed, or the line holds a slip",
        "correct the line, or take it out",
    ),
    "missing_image": Kind(
        "look", "Masks without an image", "the image was moved, deleted or renamed",
        "put the image back or delete the mask",
    ),
    "size_mismatch": Kind(
        "mend", "Masks of another size than their image", "image or mask was scaled or cropped, or they are not a pair",
        "export both at one size, or leave the image out",
    ),
    "turned_photo": Kind(
        "mend", "Photos that the camera marks as turned while their mask is not",
        "the mask was drawn on the unturned picture",
        "turn the mask the same way, or save the photo again as it was labelled",
    ),
    "unknown_label": Kind(
        "mend", "Masks with a value that is no class", "a slip in the drawing program, or a class that was not named",
        "name the class, call the value void, or correct the mask",
    ),
    "soft_mask": Kind(
        "mend", "Masks with in-between values along the edges",
        "the mask was scaled with smoothing or saved as JPEG",
        "export it without smoothing as PNG; until then each value can be read as the nearest class",
    ),
    "color_confusion": Kind(
        "mend", "Colour masks and number masks in one set", "the masks were exported in different ways",
        "export all of them in one way",
    ),
    "mixed_values": Kind(
        "mend", "Masks that write the same class in different numbers",
        "some masks were exported to be read (0 and 1), some to be looked at (0 and 255)",
        "export all of them in one way, or leave these out",
    ),
    "speckled_mask": Kind(
        "mend", "Masks that are mere speckle", "the file was filled with chance, or a picture was saved as its mask",
        "draw the mask, or leave the image out",
    ),
    "empty_mask": Kind(
        "look", "Masks that hold nothing that counts", "the image was never labelled, or all of it was marked void",
        "label it, or leave it out",
    ),
    "constant_mask": Kind(
        "look", "Masks of one class only", "the picture shows one thing, or labelling was never begun",
        "make sure that it is meant",
    ),
    "much_void": Kind(
        "look", "Images that are mostly void", "only a part was labelled", "label more of it, if it is worth it",
    ),
    "mixed_channels": Kind(
        "look", "Gray and colour pictures together", "they come from different cameras or programs",
        "nothing, if it is meant: gray ones are read as colour",
    ),
    "mixed_depths": Kind(
        "look", "Pictures of different bit depths together", "they come from different cameras or programs",
        "save all of them at one bit depth",
    ),
    "mixed_sizes": Kind(
        "look", "Pictures of very different sizes", "they come from different cameras, or were cut by hand",
        "nothing, if things are equally large in them; else scale them to one ground resolution",
    ),
    # frequencies
    "absent_class": Kind(
        "mend", "Classes that no mask holds", "the name was planned but never drawn", "draw some, or remove the name",
    ),
    "rare_class": Kind(
        "look", "Classes with too few examples", "such things are rare in the pictures",
        "label more images that show it, or join it with a class that looks alike",
    ),
    # outliers
    "noise_image": Kind(
        "mend", "Pictures that are noise", "the camera failed, or the file was filled with chance",
        "leave them out",
    ),
    "noise_mask": Kind(
        "mend", "Masks that are nothing but specks", "the file was filled with chance, or was stored wrongly",
        "draw the masks again, or leave these pictures out",
    ),
    "shared_mask": Kind(
        "mend", "One mask that stands beside many different pictures",
        "a mask was copied by mistake, or stands in for pictures that were never labelled",
        "draw the true masks, or leave these pictures out",
    ),
    "dark_image": Kind(
        "look", "Pictures that are far darker than the rest", "night, shade or a lens cap", "look at them",
    ),
    "bright_image": Kind(
        "look", "Pictures that are far brighter than the rest", "glare or too long an exposure", "look at them",
    ),
    "flat_image": Kind(
        "look", "Pictures with hardly any contrast", "fog, a blank frame or a dirty lens", "look at them",
    ),
    "odd_image": Kind(
        "look", "Pictures unlike all others", "another place, camera or season", "make sure that they belong here",
    ),
    # duplicates
    "copies": Kind(
        "look", "The same picture more than once", "it was copied or exported twice",
        "keep one of each; copies with different masks need a decision",
    ),
    "overlaps": Kind(
        "look", "Pictures that show the same place",
        "they are crops of one photo, or neighbours in a video or a flight",
        "keep such pictures on one side of the split",
    ),
    "neighbours": Kind(
        "look", "Pictures of validation or test whose place the training side also shows",
        "crops of one photo, or neighbours in a video or a flight, were divided by chance",
        "divide by group, or know that the score says nothing of new places",
    ),
    "leak": Kind(
        "mend", "Pictures of validation or test that the training side also shows",
        "copies, crops or video neighbours were divided by chance",
        "divide by group; the score would flatter otherwise",
    ),
    # shift
    "brightness_shift": Kind(
        "look", "The test pictures are darker or brighter than the training pictures", "another time, place or camera",
        "train with brightness changes of the size that is named",
    ),
    "contrast_shift": Kind(
        "look", "The test pictures have another contrast than the training pictures", "another light or camera",
        "train with contrast changes of the size that is named",
    ),
    "sharpness_shift": Kind(
        "look", "The test pictures are sharper or more blurred than the training pictures", "another lens or scaling",
        "train with blur of the size that is named, or scale alike",
    ),
    "color_shift": Kind(
        "look", "The test pictures have other colours than the training pictures", "another camera or white balance",
        "train with colour changes of the size that is named",
    ),
    # alignment
    "shifted_mask": Kind(
        "look", "Masks that lie beside what they mark", "the mask was drawn on a moved or cropped picture",
        "move the mask back by the distance that is named",
    ),
    # label noise
    "doubtful_mask": Kind(
        "look", "Masks that a model trained on the other images contradicts", "a slip in labelling, or a hard picture",
        "look at them, the first ones first",
    ),
    "swapped_classes": Kind(
        "look", "Masks in which two classes seem to have changed places", "a wrong class was chosen while drawing",
        "look at them and swap the two classes back",
    ),
}  # fmt: skip
