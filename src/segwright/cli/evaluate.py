"""`segwright evaluate`: score a model on a side of its split, or on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segwright.cli.text import examples, say, shown

EXAMPLES = examples(
    "segwright evaluate runs/night-1",
    "segwright evaluate runs/night-1 --split test",
    "segwright evaluate runs/night-1 --data other_photos/",
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    split: Annotated[
        str | None, typer.Option(help="train, val or test. [default: val; with --data, all labelled images]")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Other labelled images, coded as those of the run.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
    match: Annotated[
        Literal["none", "moments", "histogram"],
        typer.Option(help="Bring the tones of each image to those of the training images first."),
    ] = "none",
) -> None:
    """Score a run's model; counts, tables and examples are kept in its scores/."""
    from segwright import verbs
    from segwright.cli.scores import show

    result = verbs.evaluate(run, split=split, data=data, device=device, batch_size=batch_size, match=match)
    file = run / "scores" / f"{result.split}.json"
    show(file)
    say(f"Scores: {shown(file)}")
