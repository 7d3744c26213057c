"""`segwright compare`: trained models side by side on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segwright.cli.menus import Definition
from segwright.cli.text import examples, say, show_table, shown

EXAMPLES = examples(
    "segwright compare runs/ce-1 runs/dice-1",
    "segwright compare runs/a runs/b runs/c --split test -o abc.html",
    "segwright compare runs/a runs/b --no-images",
    "segwright compare runs/a runs/b --definition keras-mars",
)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two or more runs; the first is compared with.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML file; its images also go into a PNG.")] = Path(
        "comparison.html"
    ),
    split: Annotated[str, typer.Option(help="Whose scores.")] = "val",
    definition: Annotated[Definition, typer.Option(help="Which mIoU.")] = "declared",
    count: Annotated[int, typer.Option(min=1, max=20, help="Best, worst and most unlike images to show.")] = 5,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Show images; the models label them.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Compare runs: paired statistics, classes, and the images on which they differ most."""
    from segwright import verbs
    from segwright.reporting.board_tables import number, p_text
    from segwright.reporting.comparison_page import names_of

    found, files = verbs.compare(
        runs, out=out, split=split, definition=definition, count=count, images=images, device=device
    )
    names = names_of(found.runs)
    rows = []
    for name, one in zip(names, found.runs, strict=True):
        told = [name, number(one.miou.estimate), f"{number(one.miou.low)} to {number(one.miou.high)}"]
        if one.to_first is None:
            rows.append([*told, "-", "-", "-", "-"])
            continue
        gap = one.to_first.difference
        interval = f"{gap.low:+.4f} to {gap.high:+.4f}"
        rows.append([*told, f"{gap.estimate:+.4f}", interval, p_text(one.p_value), one.verdict])
    heads = ["run", "mIoU", "interval", "difference", "its interval", "p (Holm)", "verdict"]
    score = "" if definition == "declared" else f", mIoU under '{definition}'"
    show_table(f"{found.split}: {len(found.ids)} images{score}", heads, rows, right=heads[1:-1])
    classes = [[name, *(number(one.iou[k], 3) for one in found.runs)] for k, name in enumerate(found.classes.names)]
    show_table("IoU of the classes", ["class", *names], classes, right=names)
    say("Differ most on: " + ", ".join(name for name, kind in found.chosen(count).items() if kind == "differ"))
    say("Files: " + ", ".join(shown(file) for file in files))
