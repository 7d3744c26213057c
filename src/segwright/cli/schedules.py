"""`segwright schedules`: the ways of the learning rate, as a list or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segwright.cli.text import examples, say, show_table, shown

EXAMPLES = examples(
    "segwright schedules",
    "segwright schedules --plot schedules.svg",
    "segwright train photos/ -o schedule.name=restarts -o schedule.cycles=4",
)
_POINTS = 400


def schedules(
    plot: Annotated[Path | None, typer.Option(help="Draw them into this SVG file.")] = None,
) -> None:
    """List the learning rate schedules, or draw them as they are without further settings."""
    from segwright.optim import SCHEDULES

    if plot is not None:
        _draw(plot)
        say(f"drawn in {shown(plot)}")
        return
    rows = [[name, entry.line, entry.paper] for name, entry in SCHEDULES.items()]
    show_table("Schedules", ["name", "what", "paper"], rows)
    say("Also: schedule.warmup, final_factor, milestones, drop, patience, cycles, growth.")


def _draw(path: Path) -> None:
    from segwright import charts
    from segwright.errors import OutputError
    from segwright.files import write_text
    from segwright.optim import SCHEDULES, Shape, schedule_factor
    from segwright.recipe import ScheduleRecipe

    if path.suffix.lower() != ".svg":
        raise OutputError("is no SVG", mend="give it a name that ends in .svg", file=path)
    if path.exists():
        raise OutputError("exists already", mend="choose another name", file=path)
    shape = Shape(**ScheduleRecipe().model_dump(exclude={"name", "patience"}))
    shares = [point / _POINTS for point in range(_POINTS + 1)]
    lines = {
        name: [schedule_factor(name, share, shape=shape) for share in shares]  # type: ignore[arg-type]  # a row's name
        for name in SCHEDULES
        if name != "plateau"
    }
    write_text(path, charts.schedules(shares, lines))
