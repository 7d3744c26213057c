"""`segwright audit`: what is wrong with a data set, before a minute is spent on training.

Exit codes: 0 nothing must be mended, 1 something must be, 2 the audit itself could not be made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote as quoted
from typing import Annotated, Any

import typer

from segwright.cli.text import examples, say, shown
from segwright.errors import one_line

EXAMPLES = examples(
    "segwright audit photos/",
    "segwright audit photos/ --fix clean.yaml",
    "segwright audit photos/ --test field_photos/ -o audit/",
    "segwright audit photos/ --quick",
)

_STYLES = {"mend": "bold red", "look": "bold yellow", "fine": "bold green"}
_FIRST = 3
_MOST_AT_LENGTH = 7
"""With more findings, those that are worth a look only get one line each, so that the screen still holds them."""


def audit(
    data: Annotated[Path, typer.Argument(help="A folder, .npz, VOC devkit, CSV manifest or data.yaml card.")],
    test: Annotated[Path | None, typer.Option(help="Other data: the test pictures that a model will meet.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the audit. \\[default: audit-NAME of the data]")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="CARD", help="Write a repaired card (.yaml) for segwright train.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="What a model says of images that it was not trained on (.npz).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Train a small model first, to find wrong masks; takes minutes.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of an encoder, to tell which pictures are unlike all others.")
    ] = None,
) -> None:
    """Look for what is wrong with images and masks. Exit code 1 when something must be mended."""
    from segwright import verbs
    from segwright.files import read_json

    folder = verbs.audit(data, test=test, out=out, fix=fix, probabilities=probabilities, quick=quick, weights=weights)
    tree = read_json(folder / "audit.json")
    show(tree, data=data, folder=folder, fix=fix)
    if tree["verdict"] == "mend":
        raise typer.Exit(1)


def show(tree: Mapping[str, Any], *, data: Path, folder: Path, fix: Path | None) -> None:
    """Print an audit on one screen: the verdict, each finding with its first images, and what to do next."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from segwright.reporting.audit_page import TITLES, lead, sentence

    console = Console(highlight=False)
    head = Text(f"{one_line(str(data))}: ").append(TITLES[tree["verdict"]].lower(), _STYLES[tree["verdict"]])
    console.print(head.append(f". {lead(tree)}"))
    brief = len(tree["findings"]) > _MOST_AT_LENGTH
    rows = Table.grid(padding=(0, 2))
    for k, finding in enumerate(tree["findings"]):
        level = finding["level"]
        more = [] if brief and level == "look" else [("first", _first(finding)), ("do", finding["cure"])]
        if more or k == tree["counts"]["mend"]:
            rows.add_row()
        rows.add_row(Text(level, _STYLES[level]), Text(one_line(sentence(finding["summary"]))))
        for label, text in more:
            if text:
                rows.add_row("", Text(f"{label}: ", "dim").append(one_line(text), "not dim"))
    if rows.row_count:
        console.print(rows)
    say("")
    for label, text in _ending(tree, data=data, folder=folder, fix=fix):
        say(f"{label:<6}{text}")


def _ending(tree: Mapping[str, Any], *, data: Path, folder: Path, fix: Path | None) -> list[tuple[str, str]]:
    """What the repaired card does, what to type next, and where the page is; labels and texts."""
    from segwright.reporting.audit_page import next_steps

    card, repair = Path("clean.yaml") if fix is None else fix, tree["repair"]
    lines = []
    if repair is not None:
        lines.append(("Card:", shown(card)))
        lines += [("", text) for text in repair["changes"]]
        lines += [("", f"cannot mend: {title}") for title in repair["left"]]
    steps = next_steps(tree, data=quoted(shown(data)), card=quoted(shown(card)))
    wide = max(len(command) for command, _ in steps)
    lines += [("Next:" if k == 0 else "", f"{command:<{wide}}  {text}") for k, (command, text) in enumerate(steps)]
    return [*lines, ("Page:", shown(folder / "audit.html"))]


def _first(finding: Mapping[str, Any]) -> str:
    """The first images of a finding, and how many more there are."""
    ids, notes = finding["ids"], finding["notes"]
    if not ids:
        return ""
    # Of copies the first one has no note: it is what the others are copies of.
    told = [*(name for name in ids if name in notes), *(name for name in ids if name not in notes)][:_FIRST]
    told[0] += f" ({notes[told[0]]})" if told[0] in notes else ""
    more = len(ids) - _FIRST
    return ", ".join(told) + (f" and {more:,} more" if more > 0 else "")
