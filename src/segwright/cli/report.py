"""`segwright report`: one HTML file that tells what a run did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segwright.cli.text import examples, say, shown

EXAMPLES = examples("segwright report runs/night-1", "segwright report runs/night-1 --out night-1.html")


def report(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file. \\[default: report.html in the run]")] = None,
) -> None:
    """Write the report of a run from what stands on disk; neither a GPU nor the images are needed."""
    from segwright import verbs

    say(f"Report: {shown(verbs.report(run, out=out))}")
