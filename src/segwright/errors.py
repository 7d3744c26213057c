"""Everything that segwright says when it cannot go on.

    SegwrightError            anything below; the command line prints it in one line and exits with 2
    |- DataError              a source, an image or a mask is not what it must be
    |  `- MaskError           a mask holds a label, a size or a type that cannot be right
    |- SplitError             the division into train, val and test cannot be made or would leak
    |- RecipeError            a recipe holds an unknown key or a value out of range
    |- WeightsError           weights were asked for and are not there, or do not fit
    |- RunError               a run folder cannot be used as asked
    |- OutputError            writing there would overwrite something, or is impossible
    |- TrainingError          training cannot go on (NaN, out of memory at one image)
    `- MissingExtraError      a library of an optional extra is not installed
    RunStopped                no fault: a signal ended a run, which can go on

A message names the value, the rule and the mend, so its reader never has to open the code. It is one line whatever a
file is called: what would break the line, or steer a terminal, stands in it as an escape.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path


class SegwrightError(Exception):
    """A fault that the user can mend.

    Args:
        problem: what is wrong, with the offending value, without a final stop.
        mend: what to do about it, as an imperative sentence without a final stop.
        file: the file that is at fault, when there is one.
    """

    def __init__(self, problem: str, *, mend: str = "", file: str | Path | None = None) -> None:
        self.problem = problem
        self.mend = mend
        self.file = None if file is None else str(file)
        where = "" if self.file is None else f"{self.file}: "
        cure = "" if not mend else f" {mend[0].upper()}{mend[1:]}."
        super().__init__(one_line(f"{where}{problem}.{cure}"))


class DataError(SegwrightError):
    """A source, an image or a mask is not what it must be."""


class MaskError(DataError):
    """A mask holds a label, a size or a type that cannot be right."""


class SplitError(SegwrightError):
    """The division into train, val and test cannot be made or would leak."""


class RecipeError(SegwrightError):
    """A recipe holds an unknown key or a value out of range."""


class WeightsError(SegwrightError):
    """Weights were asked for and are not there, or do not fit the model."""


class RunError(SegwrightError):
    """A run folder cannot be used as asked."""


class OutputError(SegwrightError):
    """Writing there would overwrite something that must stay, or is impossible."""


class TrainingError(SegwrightError):
    """Training cannot go on."""


class RunStopped(KeyboardInterrupt):
    """A signal ended a run, which was saved before: Ctrl-C, SIGTERM or SIGHUP.

    Args:
        text: names the signal and the command that goes on.
        signal_number: of the signal; a program that it ends leaves with 128 + this.
    """

    def __init__(self, text: str, *, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(text)


_INSTALL = "install it with: pip install 'segwright[{extra}]', or in a clone pip install '.[{extra}]'"


class MissingExtraError(SegwrightError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, *, extra: str) -> None:
        super().__init__(f"{library} is not installed", mend=_INSTALL.format(extra=extra))


def nearest(word: str, menu: Iterable[str]) -> str:
    """Answer a wrong name: the nearest one, then the whole menu.

    >>> nearest("unte", ["unet", "fpn"])
    "did you mean 'unet'? There are: fpn, unet"
    """
    names = sorted(str(name) for name in menu)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return (f"did you mean '{close[0]}'? " if close else "") + "There are: " + ", ".join(names)


def one_line(text: str) -> str:
    r"""The text on one line, and harmless to a terminal: what cannot be printed becomes an escape.

    >>> print(one_line("two" + chr(10) + "lines"))
    two\nlines
    """
    return "".join(mark if mark.isprintable() else _escape(mark) for mark in text)


def _escape(mark: str) -> str:
    # Bytes of a file name that are no UTF-8 arrive as U+DC80 to U+DCFF.
    if "\udc80" <= mark <= "\udcff":
        return f"\\x{ord(mark) - 0xDC00:02x}"
    return mark.encode("unicode_escape").decode("ascii")


def plainly(message: str) -> str:
    """What pydantic says of a value, as a rule.

    >>> plainly("Value error, Input should be at least 1")
    'must be at least 1'
    """
    return " ".join(message.replace("Value error, ", "").replace("Input should", "must").split())


def brief(value: object) -> str:
    """A value as Python writes it, cut where it would fill the screen.

    >>> brief(list(range(10**6)))
    '[0, 1, 2, 3, 4, 5, ...]'
    """
    try:
        text = _BRIEF.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


LONGEST_VALUE = 120


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80
_BRIEF.maxlevel = 3
