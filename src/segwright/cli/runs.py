"""`segwright runs`: all runs of a project; filter, sort, tag, and move to the trash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segwright.cli.text import examples, say, show_table, shown
from segwright.errors import RecipeError

if TYPE_CHECKING:
    from segwright.studies.index import Known

EXAMPLES = examples(
    "segwright runs",
    "segwright runs model=unet 'miou>0.6' --sort -miou",
    "segwright runs name~night --tag good",
    "segwright runs state=half --remove",
)

COLUMNS = ("folder", "state", "miou", "model", "loss", "seed", "minutes", "epochs", "date", "tag")
_DIGITS = {"miou": 4, "dice": 4, "pixel_accuracy": 4, "minutes": 1}


def runs(
    conditions: Annotated[
        list[str] | None, typer.Argument(help="Such as model=unet, miou>0.6, tag=good, name~night; all must hold.")
    ] = None,
    folder: Annotated[Path, typer.Option("--in", help="The project's folder, or one of runs.")] = Path(),
    sort: Annotated[
        str | None, typer.Option(metavar="KEY", help="Sort by it; with a - in front, largest first.")
    ] = None,
    show: Annotated[list[str] | None, typer.Option(metavar="KEY", help="One more column. Can be repeated.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="WORD", help="Give these runs a tag.")] = None,
    untag: Annotated[list[str] | None, typer.Option(metavar="WORD", help="Take a tag away.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Move these runs to .trash/; nothing is deleted.")] = False,
) -> None:
    """List runs. A key is one of the recipe (optimizer.lr), a short word (model, loss, lr) or a score (miou)."""
    from segwright import verbs

    words = list(conditions or ())
    found = verbs.list_runs(folder, conditions=words, sort=sort, tag=tag or (), untag=untag or ())
    columns = [*COLUMNS, *(show or ())]
    rows = [[_cell(run, column) for column in columns] for run in found]
    show_table(f"{len(found)} runs", columns, rows, right=("miou", "seed", "minutes", "epochs"))
    if remove and not words:
        raise RecipeError("--remove needs a condition", mend="name the runs, such as name=first")
    if remove:
        for place in verbs.remove_runs(found, folder):
            say(f"Moved to {shown(place)}")


def _cell(run: Known, column: str) -> str:
    value: Any = run.value(column)
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple | list):
        return ", ".join(str(one) for one in value)
    return (
        f"{value:.{_DIGITS.get(column, 6)}{'f' if column in _DIGITS else 'g'}}"
        if isinstance(value, float)
        else str(value)
    )
