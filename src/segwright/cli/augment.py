"""`segwright augment`: augmented copies of training images on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segwright.cli.text import examples, say, shown

EXAMPLES = examples(
    "segwright augment photos/ -n 500 -o photos-500/",
    "segwright augment photos/ -n 500 --only-class big_rock -o photos-rocks/",
    "segwright augment photos/ -n 1000 --override augment.elastic_px=8 -o photos-elastic/",
    "segwright augment photos/ -n 200 --preset medium --copies-only -o copies/",
    "segwright train photos-500/data.yaml",
)


def augment(
    data: Annotated[Path, typer.Argument(help="A folder, .npz, VOC devkit, CSV manifest or data.yaml card; a recipe.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many copies.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the data set.")],
    only_class: Annotated[
        list[str] | None, typer.Option("--only-class", help="Copy only images that hold this class. Can be repeated.")
    ] = None,
    preset: Annotated[
        Literal["none", "light", "medium", "strong", "copies"], typer.Option(help="How the copies are changed.")
    ] = "copies",
    override: Annotated[
        list[str] | None,
        typer.Option("--override", metavar="KEY=VALUE", help="Set a key of the recipe, as augment.rotate_degrees=30."),
    ] = None,
    split: Annotated[
        Literal["train"], typer.Option(help="The side whose images are copied; others are never copied.")
    ] = "train",
    split_file: Annotated[
        Path | None, typer.Option(help="JSON of {train: \\[ids], val: \\[ids], test: \\[ids]}.")
    ] = None,
    val: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of the validation side.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is copied, and how.")] = 0,
    copies_only: Annotated[bool, typer.Option("--copies-only", help="Leave the originals out.")] = False,
) -> None:
    """Write changed copies of training images with their masks, and the originals, as a new data set."""
    import json

    from segwright import verbs

    assert split == "train", "Typer takes no other"
    changes = [f"augment.preset={preset}"]
    if split_file is not None:
        changes += [f"data.split.file={json.dumps(str(split_file))}", "data.split.kind=given"]
    if val is not None:
        changes.append(f"data.split.val={val}")
    done = verbs.augment(
        data,
        out=out,
        count=count,
        only_classes=only_class or (),
        overrides=[*changes, *(override or [])],
        seed=seed,
        copies_only=copies_only,
    )
    beside = f", beside {done.originals} originals" if done.originals else ""
    say(f"{done.copies} copies of {done.copied} training images{beside}")
    say(f"Data set: {shown(done.card)}")
    say(f"Look at:  {shown(done.folder / 'contact-sheet.png')}")
