"""`segwright predict`: masks for new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segwright.cli.menus import FlipsOption, MatchOption
from segwright.cli.text import examples, say, shown
from segwright.errors import DataError, one_line

EXAMPLES = examples(
    "segwright predict runs/night-1 new_photos/ -o masks/",
    "segwright predict runs/night-1 photo.jpg -o mask.png",
    "segwright predict runs/night-1 images.npz -o masks.npz",
    "segwright predict runs/night-1 contest.npz --key test_set -o labels.csv",
    "segwright predict runs/night-1 new_photos/ -o masks/ --overlays",
    "segwright predict runs/night-1 dusk_photos/ -o masks/ --match histogram",
    "segwright predict runs/night-1 aerial_photos/ -o masks/ --flips all",
)


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run or of a bundle.")],
    source: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or an npz of images.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the masks; or a .png, .npz or .csv.")],
    overlays: Annotated[
        bool, typer.Option("--overlays", help="Also write pictures of the image with its mask on top.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[
        Literal["auto", "bf16", "fp16", "fp32"], typer.Option(help="Number format of the network.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one size at once.")] = 8,
    match: MatchOption = "none",
    flips: FlipsOption = "none",
    tile_px: Annotated[
        int, typer.Option(help="Side of the tiles of images over 4 megapixels; smaller takes less memory.")
    ] = 1024,
    key: Annotated[
        str | None,
        typer.Option(help="Which array of an npz. \\[default: those without masks; all, where all or none have masks]"),
    ] = None,
    csv: Annotated[
        Literal["auto", "labels", "runs"],
        typer.Option(
            help="In a .csv: a column a pixel (labels), or run lengths (runs), as auto takes for large images."
        ),
    ] = "auto",
) -> None:
    """Write the mask of every image as an indexed PNG of its name and size, and a table of class shares.

    Arrays give one .npz. A .csv holds all masks, as contests take them.
    """
    from segwright import verbs

    done = verbs.predict(
        run,
        source,
        out=out,
        overlays=overlays,
        device=device,
        precision=precision,
        batch_size=batch_size,
        match=match,
        flips=flips,
        tile_px=tile_px,
        key=key,
        csv=csv,
    )
    say(f"{done.images} images in {done.seconds:.1f} s ({done.images / max(done.seconds, 1e-9):.1f} images/s)")
    say(f"Masks: {shown(done.masks)}")
    say(f"Table: {shown(done.table)}")
    for note in done.notes:
        say(f"Note: {one_line(note)}")
    for name, reason in done.failed.items():
        say(f"Left out {one_line(name)}: {reason}")
    if done.failed:
        count = f"{len(done.failed)} of {len(done.failed) + done.images} images left out"
        first = next(iter(done.failed.values())).rstrip(".")
        raise DataError(f"{count}; the first one: {first}", file=source)
