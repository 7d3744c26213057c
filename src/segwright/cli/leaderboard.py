"""`segwright leaderboard`: the table of a study, with intervals, and which differences are real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segwright.cli.menus import Definition
from segwright.cli.text import examples, say, show_table, shown

if TYPE_CHECKING:
    from segwright.studies.leaderboard import Leaderboard

EXAMPLES = examples(
    "segwright leaderboard studies-runs/losses",
    "segwright leaderboard studies-runs/losses --format latex > losses.tex",
    "segwright leaderboard runs --by model.name --by loss.formula",
)


def leaderboard(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a study, or of runs.")],
    by: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Rows by this key of the recipe. Can be repeated.")
    ] = None,
    format: Annotated[  # noqa: A002  # the word of the command line
        Literal["terminal", "csv", "markdown", "latex", "html"],
        typer.Option(help="What is printed; html is written as leaderboard.html."),
    ] = "terminal",
    split: Annotated[str, typer.Option(help="Whose scores count.")] = "val",
    baseline: Annotated[str | None, typer.Option(metavar="ROW", help="Compare with this row too.")] = None,
    definition: Annotated[Definition | None, typer.Option(help="Which mIoU. \\[default: the study's own]")] = None,
) -> None:
    """Show what each row of a study scored, how sure that is, and which differences are real.

    In a study's folder, results.csv and leaderboard.md, .tex and .html are written too.
    """
    from segwright import verbs
    from segwright.reporting import board_tables

    table, files = verbs.leaderboard(out, by=by or (), split=split, baseline=baseline, definition=definition)
    if format == "terminal":
        _show(table)
    elif format == "csv":
        say("\n".join(board_tables.csv_lines(table)))
    elif format in ("markdown", "latex"):
        say((board_tables.markdown if format == "markdown" else board_tables.latex)(table).rstrip("\n"))
    if format in ("terminal", "html"):
        say("Files: " + ", ".join(shown(file) for file in files))


def _show(table: Leaderboard) -> None:
    from segwright.reporting import board_tables

    names = {f"to {table.baseline}": "to the baseline", "p": "p, best", "p ": "p, baseline"}
    heads = [names.get(head, head) for head in board_tables.heads(table, classes=False)]
    rows = [board_tables.cells(table, row, classes=False) for row in table.rows]
    show_table(table.name, heads[:-4], [row[:-4] for row in rows], right=heads[1:-4])
    costs = ["row", *heads[-4:-1]]
    show_table("cost of a run", costs, [[row[0], *row[-4:-1]] for row in rows], right=costs[1:])
    for row in rows:
        if row[-1]:
            say(f"{row[0]}: {row[-1]}")
    classes = table.classes.names
    if len(classes) <= 12:
        ious = [[row.name, *(board_tables.number(value, 3) for value in row.iou)] for row in table.rows if row.iou]
        show_table("IoU of the classes, mean over seeds", ["row", *classes], ious, right=classes)
    if table.baseline is not None:
        say(f"Baseline: {table.baseline}")
    for line in board_tables.footnotes(table):
        say(line)
