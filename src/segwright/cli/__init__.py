"""The command line: one file a verb; parse, call, print.

Exit codes: 0 done, 1 a fault of segwright itself, 2 something the user can mend, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated

import typer

from segwright.cli import cache, evaluate, models, predict, report, train, weights
from segwright.cli.text import examples
from segwright.errors import SegwrightError

app = typer.Typer(
    name="segwright",
    help="A few hundred labelled images become a segmentation model that you can trust.",
    epilog=examples(
        "segwright train photos/ --minutes 15",
        "segwright evaluate runs/photos-1",
        "segwright predict runs/photos-1 new_photos/ -o masks/",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=predict.EXAMPLES)(predict.predict)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=models.EXAMPLES)(models.models)
app.command(epilog=weights.EXAMPLES)(weights.weights)
app.command(epilog=cache.EXAMPLES)(cache.cache)


def _say_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"segwright {importlib.metadata.version('segwright')}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from. Also after a verb.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line, and word what went wrong in one line."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    debug = "--debug" in words[:end]
    try:
        app(args=[word for word in words[:end] if word != "--debug"] + words[end:], prog_name="segwright")
    except SegwrightError as error:
        if debug:
            raise
        print(f"segwright: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        print("segwright: stopped", file=sys.stderr)  # noqa: T201
        sys.exit(130)
