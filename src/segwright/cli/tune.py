"""`segwright tune`: a better recipe, within a budget by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from segwright.cli.text import examples, say, show_table, shown
from segwright.errors import RecipeError, nearest

EXAMPLES = examples(
    "segwright tune study.yaml --minutes 120",
    "segwright tune photos/ --minutes 60 --trials 20 --jobs 2",
    "segwright tune recipe.yaml --minutes 240 --models fpn:resnet18,smp_unet:resnet34",
    "segwright tune recipe.yaml --minutes 240 --objectives miou,images_per_second",
)


def tune(
    source: Annotated[Path, typer.Argument(help="A study file (its base and its random.keys), a recipe, or data.")],
    minutes: Annotated[float, typer.Option(min=0.1, help="Budget of this call, by the clock.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the search. \\[default: studies-runs/NAME/tune]")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="So many share the budget; more fit where some stop early.")] = 20,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of every trial, in place of its share of minutes.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 1,
    objectives: Annotated[
        str, typer.Option(metavar="A,B", help="What counts; of several, each best compromise gets a recipe.")
    ] = "miou",
    models: Annotated[str | None, typer.Option(metavar="A:ENCODER,B", help="Models to choose from as well.")] = None,
    pruner: Annotated[
        Literal["median", "hyperband", "none"], typer.Option(help="How trials that lag behind are stopped early.")
    ] = "median",
    seed: Annotated[int, typer.Option(min=0, help="Of the proposals.")] = 0,
) -> None:
    """Search for a better recipe; the same call goes on with a search that was stopped, on other machines too."""
    from segwright import verbs
    from segwright.studies.tune import Effort
    from segwright.studies.tuned import OPTIMISM, Objective

    menu: tuple[Objective, ...] = get_args(Objective)
    words = [word.strip() for word in objectives.split(",") if word.strip()]
    for word in words:
        if word not in menu:
            raise RecipeError(f"there is no objective '{word}'", mend=nearest(word, menu))
    wanted = [name for word in dict.fromkeys(words) for name in menu if name == word]
    found = verbs.tune(
        source,
        effort=Effort(minutes=minutes, trials=trials, epochs=epochs, jobs=jobs, pruner=pruner, seed=seed),
        out=out,
        objectives=wanted or ["miou"],
        models=[name.strip() for name in (models or "").split(",") if name.strip()],
    )
    rows = []
    for trial in sorted(found.trials, key=lambda trial: -trial.scores.get(found.objectives[0], -1.0))[:_SHOWN]:
        scores = [f"{trial.scores[name]:.4f}" if name in trial.scores else "" for name in found.objectives]
        values = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial.values.values()]
        mark = "base" if trial.number == found.base else ""
        rows.append([str(trial.number), trial.state, *scores, ", ".join(values), mark])
    heads = ["trial", "state", *found.objectives, ", ".join(found.trials[0].values), ""]
    show_table("trials, the best first", heads, rows, right=("trial", *found.objectives))
    say(OPTIMISM)
    say(f"Recipe: {shown(found.folder / 'best.yaml')}")
    say(f"Report: {shown(found.folder / 'report.html')}")


_SHOWN = 10
