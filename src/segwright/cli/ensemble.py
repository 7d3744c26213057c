"""`segwright ensemble`: several trained models as one bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segwright.cli.text import examples, say, show_table, shown

EXAMPLES = examples(
    "segwright ensemble runs/a-1 runs/b-1 -o runs/both",
    "segwright ensemble runs/a-1 runs/b-1 runs/c-1 --by miou -o runs/three",
    "segwright ensemble runs/a-1 runs/a-2 --soup -o runs/soup",
    "segwright ensemble runs/a-refit runs/b-refit --by equal -o runs/final",
)


def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two or more runs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")],
    by: Annotated[
        Literal["equal", "likelihood", "miou"],
        typer.Option(help="Equal weights, or those that suit the validation images of the first run best."),
    ] = "likelihood",
    soup: Annotated[
        bool, typer.Option("--soup", help="Average the weights of models of one architecture, not their answers.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
) -> None:
    """Make one model of several: predict, pseudo and evaluate --split test take it like a run."""
    from segwright import verbs

    found = verbs.ensemble(runs, out=out, by=by, soup=soup, device=device, batch_size=batch_size)
    if found is None:
        say("All count alike, and nothing tells how good they are: a refit has learnt from its validation images.")
        say(f"Bundle: {shown(out)}")
        return
    rows = [
        [shown(run), f"{weight:.3f}", f"{alone:.4f}"]
        for run, weight, alone in zip(runs, found.weights, found.alone, strict=True)
    ]
    show_table("validation images of the first run", ["run", "weight", "mIoU"], rows, right=("weight", "mIoU"))
    gain = found.gain.difference
    say(f"together mIoU {found.together:.4f}: {gain.estimate:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) against "
        f"{shown(runs[found.best])}; {found.gain.verdict(('the average', 'the best alone'))}")  # fmt: skip
    if by != "equal":
        say("Weights were fitted on one half of the images and scored on the other, so the gain is not flattered.")
    say(f"Bundle: {shown(out)}")
