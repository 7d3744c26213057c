"""`segwright train`: from images with masks to a run with a model, its scores and its report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from segwright.cli.text import examples, say, shown
from segwright.errors import RecipeError, RunError, RunStopped

EXAMPLES = examples(
    "segwright train photos/",
    "segwright train photos/ --minutes 15 --name night-1",
    "segwright train mars.npz --classes background,soil,rock --ignore-in-score background --split split.json",
    "segwright train recipe.yaml -o model.name=unet -o optimizer.lr=3e-4",
    "segwright train new_photos/ --from runs/night-1",
    "segwright train runs/night-1 --resume",
    "segwright train runs/night-1 --resume --epochs 200",
    "segwright train runs/night-1 --refit --name final",
)


def train(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder, .npz, VOC devkit, CSV manifest or data.yaml card; a recipe; a run to --resume or --refit."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the run. \\[default: of the data, with a number]")] = None,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="Set a key of the recipe.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Budget by the clock.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Budget in epochs.")] = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,C", help="Class names, in label order.")] = None,
    ignore_in_score: Annotated[
        str | None, typer.Option(metavar="A,B", help="Classes whose true pixels are dropped before scoring.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="JSON of {train: \\[ids], val: \\[ids], test: \\[ids]}.")] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Go on from this run's model, with its recipe.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a run that was stopped, or that --epochs or --minutes give more."),
    ] = False,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Train a run again, on its validation images too, before it is handed over."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: though the recipe or the images changed.")
    ] = False,
    no_audit: Annotated[
        bool, typer.Option("--no-audit", help="Train even on data that would poison the model.")
    ] = False,
) -> None:
    """Train a model, score it on the validation images and write its report."""
    from segwright import verbs

    changes = _changes(classes=classes, ignore_in_score=ignore_in_score, split=split) + (override or [])
    if no_audit:
        changes.append("data.audit=false")
    if minutes and epochs:
        raise RecipeError("give a budget in epochs or in minutes, not both")
    if resume and (name or start_from or out != Path("runs")):
        mend = "leave --name, --from and --out out, or start a new run"
        raise RunError("a run is resumed under its own name, from its own state", mend=mend, file=data)
    if force and not resume:
        raise RunError("--force is for --resume", mend="leave it out; runs are never overwritten", file=data)
    if refit and (resume or start_from or minutes or split):
        mend = "leave --resume, --from, --minutes and --split out"
        raise RunError("a refit has the start, the division and the epochs of its run", mend=mend, file=data)
    try:
        if refit:
            run = verbs.refit(data, name=name, out=out, epochs=epochs, overrides=changes)
        elif resume:
            run = verbs.resume(data, minutes=minutes, epochs=epochs, overrides=changes, force=force)
        else:
            run = verbs.train(
                data, name=name, out=out, minutes=minutes, epochs=epochs, overrides=changes, start_from=start_from
            )
    except RunStopped as stop:
        print(f"segwright: {stop}", file=sys.stderr)  # noqa: T201  # without rich, which would wrap the line
        raise SystemExit(128 + stop.signal_number) from None
    if (run / "scores" / "val.json").is_file():
        show_scores(run, name="val")
    else:
        say(_why_no_score(run))
    say(f"Run:    {shown(run)}")
    say(f"Report: {shown(run / 'report.html')}")


def _changes(*, classes: str | None, ignore_in_score: str | None, split: Path | None) -> list[str]:
    """Options that are short for a key of the recipe."""
    import json

    changes = []
    if classes is not None:
        changes.append(f"classes.names={json.dumps(_names(classes))}")
    if ignore_in_score is not None:
        changes.append(f"classes.ignore_in_score={json.dumps(_names(ignore_in_score))}")
    if split is not None:
        changes += [f"data.split.file={json.dumps(str(split))}", "data.split.kind=given"]
    return changes


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _why_no_score(run: Path) -> str:
    from segwright.files import read_json

    return f"No score: {read_json(run / 'bundle' / 'bundle.json')['info']['note']}"


def show_scores(run: Path, *, name: str) -> None:
    """Print the scores that a run keeps under that name."""
    from segwright.cli.scores import show

    show(run / "scores" / f"{name}.json")
