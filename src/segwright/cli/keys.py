"""`segwright keys`: what a recipe may say."""

from __future__ import annotations

from typing import Annotated

import typer

from segwright.cli.text import examples, say, show_table

EXAMPLES = examples(
    "segwright keys",
    "segwright keys augment",
    "segwright keys data.split",
    "segwright train photos/ -o augment.rotate_degrees=30",
)


def keys(
    beginning: Annotated[
        str, typer.Argument(metavar="[BEGINNING]", help="Of the names, such as augment, data.split or mix.paste.")
    ] = "",
) -> None:
    """List the keys of a recipe, what each may be, its default and what it means."""
    from segwright.recipe.keys import HEADS, tables_from

    for table in tables_from(beginning):
        summary = table.text.partition("\n")[0]
        title = f"{table.name}: {summary}" if summary else table.name
        show_table(title, HEADS, [key.as_row() for key in table.keys])
    say("Set one with -o KEY=VALUE, or in a recipe file. Where it is null, the last column tells what counts.")
