"""`segwright data`: public data sets by name; fetched where that is possible, else where they are to be had."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from segwright.cli.text import examples, say, show_table, shown
from segwright.errors import DataError

EXAMPLES = examples("segwright data", "segwright data get voc2007", "segwright data get oxford-pets -o public/")


def data(
    what: Annotated[Literal["list", "get"], typer.Argument(help="get downloads one.")] = "list",
    name: Annotated[str | None, typer.Argument(help="Of the set.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder that it is put into.")] = Path("data"),
) -> None:
    """List public data sets, or get one; nothing that is there is downloaded again or overwritten."""
    if what == "list":
        _list()
        return
    if name is None:
        raise DataError("get which data set?", mend="type: segwright data get voc2007; `segwright data` lists them")
    from segwright.data.fetching import fetch
    from segwright.data.public_sets import known_set

    known = known_set(name)
    place = fetch(name, out)
    say(f"Data:  {shown(place)}")
    say(f"Train: segwright train {shlex.quote(shown(place))} {known.options}".rstrip())


def _list() -> None:
    from segwright.data.public_sets import PUBLIC_SETS

    rows = [[name, one.what, f"by hand: {one.page}" if one.how else "yes"] for name, one in PUBLIC_SETS.items()]
    show_table("Data sets that are known by name", ["name", "what", "download"], rows)
    say("segwright data get NAME downloads one, or says how to come by it.")
