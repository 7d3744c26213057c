"""The command line: one file a verb; parse, call, print.

Exit codes: 0 done, 1 a fault of segwright itself, or data that must be mended (audit), 2 something the user can mend,
128 + n stopped by signal n (Ctrl-C 130, SIGTERM 143).
"""

from __future__ import annotations

import errno
import importlib.metadata
import io
import sys
from typing import Annotated, Any, NoReturn

import typer

from segwright.cli import (
    audit,
    augment,
    augmentations,
    cache,
    compare,
    data,
    ensemble,
    evaluate,
    keys,
    leaderboard,
    losses,
    models,
    optimizers,
    predict,
    pseudo,
    report,
    runs,
    schedules,
    study,
    train,
    tune,
    weights,
)
from segwright.cli.text import examples
from segwright.errors import SegwrightError, one_line, plainly

app = typer.Typer(
    name="segwright",
    help="A few hundred labelled images become a segmentation model that you can trust.",
    epilog=examples(
        "segwright audit photos/",
        "segwright train photos/ --minutes 15",
        "segwright evaluate runs/photos-1",
        "segwright predict runs/photos-1 new_photos/ -o masks/",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=audit.EXAMPLES)(audit.audit)
app.command(epilog=augment.EXAMPLES)(augment.augment)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=predict.EXAMPLES)(predict.predict)
app.command(epilog=pseudo.EXAMPLES)(pseudo.pseudo)
app.command(epilog=ensemble.EXAMPLES)(ensemble.ensemble)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=leaderboard.EXAMPLES)(leaderboard.leaderboard)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=runs.EXAMPLES)(runs.runs)
app.command(epilog=keys.EXAMPLES)(keys.keys)
app.command(epilog=models.EXAMPLES)(models.models)
app.command(epilog=losses.EXAMPLES)(losses.losses)
app.command(epilog=augmentations.EXAMPLES)(augmentations.augmentations)
app.command(epilog=optimizers.EXAMPLES)(optimizers.optimizers)
app.command(epilog=schedules.EXAMPLES)(schedules.schedules)
app.command(epilog=study.EXAMPLES)(study.study)
app.command(epilog=tune.EXAMPLES)(tune.tune)
app.command(epilog=weights.EXAMPLES)(weights.weights)
app.command(epilog=cache.EXAMPLES)(cache.cache)
app.command(epilog=data.EXAMPLES)(data.data)


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
    words = [word for word in words[:end] if word != "--debug"] + words[end:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may hold letters that the terminal has not
    odd = next((word for word in words if any("\ud800" <= mark <= "\udfff" for mark in word)), None)
    if odd is not None:  # it could be written into no JSON and no YAML
        _leave(f"'{odd}' is no Unicode (UTF-8). Rename the file or folder.", code=2)
    try:
        code = app(args=words or ["--help"], prog_name="segwright", standalone_mode=False)
    except (SegwrightError, OSError, MemoryError) as error:
        if debug or (isinstance(error, OSError) and error.errno not in _OUTSIDE):
            raise
        _leave(_worded(error), code=2)
    except UsageError as error:
        _leave(_worded_usage(error), code=2)
    except KeyboardInterrupt:
        _leave("stopped", code=130)
    if code == 130:
        _leave("stopped", code=130)
    sys.exit(code if words else 2)


UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for a wrong option or argument; its versions keep it in different places."""

_OUTSIDE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE,
    errno.EIO, errno.ESTALE,
)  # fmt: skip
"""Faults of the disk and of rights, which may strike anywhere; other faults of the system are ours."""


def _leave(text: str, *, code: int) -> NoReturn:
    print(f"segwright: {one_line(text)}", file=sys.stderr)  # noqa: T201  # without rich, which would wrap the line
    sys.exit(code)


def _worded(error: SegwrightError | OSError | MemoryError) -> str:
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "free some space or choose another folder" if full else "check the path, its length and its rights"
        return str(SegwrightError(f"cannot be used ({error.strerror})", mend=mend, file=error.filename))
    if isinstance(error, MemoryError):
        return "the memory of this machine is not enough. Set data.working_size_px, or use a smaller batch or crop."
    return str(error)


def _worded_usage(error: Any) -> str:
    message = plainly(error.format_message()).rstrip(".")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "segwright"
    return f"{message}{'' if message.endswith('?') else '.'} See: {command} --help"
