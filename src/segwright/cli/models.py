"""`segwright models`: which networks there are, what each may be told, and what each costs here."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segwright.cli.text import examples, say, show_table, shown

if TYPE_CHECKING:
    from segwright.models import ModelEntry, ModelSpec
    from segwright.models.measure import Measurement

EXAMPLES = examples(
    "segwright models",
    "segwright models unet",
    "segwright models --measure --size 256x256",
    "segwright models --measure fpn deeplabv3plus:resnet50 --write costs.csv",
)


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Some of them; with --measure also as NAME:ENCODER."),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Tell what they cost here; takes minutes.")] = False,
    size: Annotated[str, typer.Option(metavar="ROWSxCOLUMNS", help="Pixels of the images to measure with.")] = "64x128",
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
    channels: Annotated[int, typer.Option(min=1, help="Of the images.")] = 3,
    classes: Annotated[int, typer.Option(min=1, max=255, help="How many.")] = 5,
    write: Annotated[
        Path | None,
        typer.Option("--write", "-o", help="Keep the figures, and how they were measured, in a .csv or .json file."),
    ] = None,
) -> None:
    """List the models, or the arguments and encoders of some, or measure them."""
    from segwright.models import MODELS

    if measure:
        _measure(names or [], size=size, batch=batch, channels=channels, classes=classes, write=write)
    elif not names:
        rows = [[key, "yes" if entry.takes_encoder else "no", entry.line] for key, entry in MODELS.items()]
        show_table("Models", ["name", "encoder", "what"], rows)
        say("segwright models NAME tells what one may be told, and its paper; --measure, what they cost here.")
    else:
        for name in names:
            _show_one(name, _entry(name))


def _entry(name: str) -> ModelEntry:
    from segwright.errors import RecipeError, nearest
    from segwright.models import MODELS

    if name not in MODELS:
        raise RecipeError(f"there is no model '{name}'", mend=nearest(name, MODELS))
    return MODELS[name]


def _show_one(name: str, entry: ModelEntry) -> None:
    from segwright.models.library import encoders_of

    say(f"{name}: {entry.line}\n{entry.paper}")
    rows = [[key, repr(value)] for key, value in entry.arguments.items()]
    show_table("model.arguments", ["key", "default"], rows)
    if entry.takes_encoder:
        say(f"model.encoder: {', '.join(encoders_of(name))}")
        say("and most of timm, as tu-NAME: https://huggingface.co/timm")


def _measure(
    names: Sequence[str], *, size: str, batch: int, channels: int, classes: int, write: Path | None
) -> None:  # fmt: skip
    from rich.console import Console
    from rich.progress import track

    from segwright.errors import OutputError
    from segwright.hardware import choose_device, choose_precision, describe, keep_freed_memory
    from segwright.models import build_model
    from segwright.models.measure import measure

    if write is not None and write.suffix not in (".csv", ".json"):
        raise OutputError(f"'{write.name}' is neither .csv nor .json", mend="name such a file")
    if write is not None and write.exists():
        raise OutputError("stands there already", mend="name another file", file=write)
    rows, columns = _size(size)
    keep_freed_memory()
    device = choose_device()
    precision = choose_precision("auto", device=device)
    console = Console(stderr=True)
    of_images = {"size": f"{rows}x{columns}", "channels": channels, "classes": classes}
    conditions = of_images | _machine(describe(device)) | {"precision": precision}
    results = []
    specs = _specs(names, channels=channels, classes=classes)
    for spec in track(specs, "measuring", console=console, transient=True, disable=not console.is_terminal):
        one = measure(spec, build=build_model, size_px=(rows, columns), batch=batch, device=device, precision=precision)
        results.append(one)
        if write is not None:  # after each: what was measured is kept, whatever comes
            _write(write, results, conditions)
    heads = ["model", "M params", "GFLOP", "images/s", "trained/s", "MiB"]
    title = f"{rows}x{columns}, batch {batch}, {channels} channels, {classes} classes, {device.type}, {precision}"
    show_table(title, heads, [_cells(one) for one in results], right=heads[1:])
    for one in results:
        if one.note:
            say(f"{_name(one)}: {one.note}")
    if write is not None:
        say(f"Figures: {shown(write)}")


def _size(text: str) -> tuple[int, int]:
    from segwright.errors import RecipeError

    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise RecipeError(f"--size {text}", mend="give rows and columns in pixels, such as 64x128")
    return int(rows), int(columns)


def _specs(names: Sequence[str], *, channels: int, classes: int) -> list[ModelSpec]:
    """What is asked for, or every model with its usual encoders."""
    from segwright.models import MODELS, ModelSpec
    from segwright.models.measure import USUAL_ARGUMENTS, USUAL_ENCODERS

    specs = []
    for text in names or MODELS:
        name, colon, encoder = text.partition(":")
        usual = USUAL_ENCODERS.get(name, ("resnet18",)) if _entry(name).takes_encoder else (None,)
        told = USUAL_ARGUMENTS.get(name, {})
        specs += [
            ModelSpec(name, channels, classes, encoder=one, arguments=told) for one in ((encoder,) if colon else usual)
        ]
    return specs


def _cells(one: Measurement) -> list[str]:
    millions = None if one.parameters is None else one.parameters / 1e6
    figures = (
        (millions, ".2f"),
        (one.gflops, ".2f"),
        (one.forward_per_second, ".1f"),
        (one.training_per_second, ".1f"),
    )
    cells = ["-" if value is None else format(value, form) for value, form in figures]
    return [_name(one), *cells, "-" if one.memory_mib is None else f"{one.memory_mib:.0f}"]


def _name(one: Measurement) -> str:
    return one.name if one.encoder is None else f"{one.name}:{one.encoder}"


def _machine(described: Mapping[str, Any]) -> dict[str, object]:
    return {
        "device": described["device"],
        "processor": described["processor"],
        "threads": described["cores"],
        "torch": described["versions"]["torch"],
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def _write(path: Path, results: Sequence[Measurement], conditions: dict[str, object]) -> None:
    """The figures, and on every line how they were measured: without that they say nothing later."""
    from segwright.files import write_json, write_text
    from segwright.models import MODELS

    rows = [dataclasses.asdict(one) | {"paper": MODELS[one.name].paper} | conditions for one in results]
    if path.suffix == ".json":
        write_json(path, rows)
        return
    stream = io.StringIO()
    table = csv.DictWriter(stream, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    write_text(path, stream.getvalue())
