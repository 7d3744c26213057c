r"""The card of a data set, `data.yaml`: where it is, how it is read, and what was decided about it.

    source: photos/                       # relative to the card
    format: folder
    classes: [sky, soil, rock]
    colors: [[86, 180, 233], [230, 159, 0], [153, 153, 153]]
    mask_values: [0, 1, [2, 3]]           # 2 and 3 are both rock
    void_values: [255]
    submission_values: [10, 20, 30]       # of the classes, in submission files
    nearest: true                         # values in between are read as the nearest of these
    ignore_in_score: [sky]
    split: split.json                     # or {train: [ids], val: [ids]}
    groups: '(flight\d+)_'                # or a file of groups
    dropped: {flight2_0017: 'lens cap on'}

A card only names things; reading it opens no image.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segwright.errors import DataError, brief, nearest, plainly
from segwright.files import read_yaml, write_yaml
from segwright.recipe import StoredValues
from segwright.types import SplitName

CARD_SUFFIXES = (".yaml", ".yml")
GROUP_SUFFIXES = (".json", ".npz", ".npy")
"""Groups with one of these endings are a file; all else is a regular expression."""

Byte = Annotated[int, Field(ge=0, le=255)]
MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**31)]
SubmissionValue = Annotated[int, Field(gt=-(2**31), lt=2**31)]

RULES = ("ignore_in_loss", "ignore_in_score", "leave_out_of_mean", "never_predict")
"""What a card may say of classes, by name; see `segwright.types.ClassSet`."""


class Card(BaseModel):
    """What a card may say; everything but `source` may be left out.

    Attributes:
        source: folder or file, relative to the card.
        classes: names in label order.
        colors: one a class; for colour-coded masks, the table.
        mask_values: the stored value of each class, or those of several that are taken for one.
        void_values: stored values that are no class.
        submission_values: what stands for each class in a submission file, where that is not its first stored value, as
            in augmented copies: their masks hold labels, whatever the originals held.
        nearest: read a stored value (or colour) that is none of these as the nearest one, as in masks with soft edges.
        ignore_in_loss: names; see `segwright.types.ClassSet`, also for the next three.
        split: a JSON file relative to the card, or the ids of each side.
        groups: a regular expression on ids whose first group names the group, or a file of groups relative to the card.
        dropped: ids that are left out, with the reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    format: Literal["auto", "folder", "arrays", "voc", "manifest"] = "auto"
    classes: tuple[str, ...] = ()
    colors: tuple[tuple[Byte, Byte, Byte], ...] = ()
    mask_values: tuple[StoredValues, ...] = ()
    void_values: tuple[MaskValue, ...] = (255,)
    submission_values: tuple[SubmissionValue, ...] = ()
    nearest: bool = False
    ignore_in_loss: tuple[str, ...] = ()
    ignore_in_score: tuple[str, ...] = ()
    leave_out_of_mean: tuple[str, ...] = ()
    never_predict: tuple[str, ...] = ()
    split: str | dict[SplitName, tuple[str | int, ...]] | None = None
    groups: str | None = None
    dropped: dict[str, str] = {}

    @field_validator("submission_values")
    @classmethod
    def _one_a_class(cls, values: tuple[int, ...], card: Any) -> tuple[int, ...]:
        # `card` is a ValidationInfo, a protocol that nothing can be checked against.
        for key in ("classes", "mask_values"):
            count = len(card.data.get(key) or values)
            if values and len(values) != count:
                raise ValueError(f"there are {count} {key}, so it needs as many values")
        if len(set(values)) < len(values):
            raise ValueError("one value stands for two classes")
        return values


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        DataError: it is no mapping, has an unknown key, lacks `source`, or a value is of the wrong kind.
    """
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise DataError("is no data card", mend="a card is a mapping that starts with 'source:'", file=path)
    return make_card(tree, file=path)


def make_card(tree: dict[str, Any], *, file: Path | None = None) -> Card:
    """Check a mapping and make it a card.

    Raises:
        DataError: naming the first wrong key or value.
    """
    try:
        return Card.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        if first["type"] == "extra_forbidden":
            raise DataError(f"unknown key '{key}'", mend=nearest(key, Card.model_fields), file=file) from None
        if first["type"] == "missing":
            raise DataError(
                f"has no '{key}'", mend="say where the images are, relative to the card", file=file
            ) from None
        raise DataError(
            f"'{key}' = {brief(first.get('input'))}: {plainly(first['msg'])}", mend="mend this value", file=file
        ) from None


def write_card(path: Path, tree: dict[str, Any], *, head: str = "") -> None:
    """Write a card that `read_card` takes; an absolute `source`, `split` or `groups` path is made relative to the card.

    Args:
        path: the card.
        tree: as given by `Source.as_card`, changed at will.
        head: a comment for the first line, with its `#`.

    Raises:
        DataError: the tree is no card.
    """
    card = make_card(tree, file=path)
    told = card.model_dump(mode="json", exclude_defaults=True)
    for key in ("source", "split", "groups"):
        value = told.get(key)
        if not isinstance(value, str) or (key == "groups" and Path(value).suffix.lower() not in GROUP_SUFFIXES):
            continue  # an expression may start with a slash too
        if Path(value).is_absolute():
            told[key] = Path(os.path.relpath(value, path.parent.resolve())).as_posix()
    write_yaml(path, told, head=head)
