"""`segwright evaluate`: score a model on a side of its split, or on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segwright.cli.menus import Definition, FlipsOption, MatchOption
from segwright.cli.text import examples, say, shown

EXAMPLES = examples(
    "segwright evaluate runs/night-1",
    "segwright evaluate runs/night-1 --split test",
    "segwright evaluate runs/night-1 --data other_photos/",
    "segwright evaluate runs/night-1 --score-as keras-mars",
    "segwright evaluate runs/night-1 --flips horizontal",
    "segwright evaluate runs/night-1 --split test --loss",
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of the run, or of an average that ensemble made.")],
    split: Annotated[
        str | None, typer.Option(help="train, val or test. \\[default: val; with --data, all labelled images]")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Other labelled images, coded as those of the run.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
    match: MatchOption = "none",
    flips: FlipsOption = "none",
    score_as: Annotated[Definition, typer.Option(help="The mIoU that is told first.")] = "declared",
    loss: Annotated[
        bool, typer.Option("--loss", help="Also compute the loss, as training does; without --match, --flips.")
    ] = False,
) -> None:
    """Score a run's model; counts, tables and examples are kept in its scores/."""
    from segwright import verbs
    from segwright.cli.scores import show

    result = verbs.evaluate(
        run,
        split=split,
        data=data,
        device=device,
        batch_size=batch_size,
        match=match,
        flips=flips,
        score_as=score_as,
        loss=loss,
    )
    file = run / "scores" / f"{result.split}.json"
    show(file, score_as=score_as)
    say(f"Scores: {shown(file)}")
