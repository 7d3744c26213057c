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

A message names the value, the rule and the mend, so its reader never has to open the code.
"""

from __future__ import annotations

import difflib
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
        super().__init__(f"{where}{problem}.{cure}")


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


class MissingExtraError(SegwrightError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, *, extra: str) -> None:
        super().__init__(f"{library} is not installed", mend=f"install it with: pip install 'segwright[{extra}]'")


def nearest(word: str, menu: Iterable[str]) -> str:
    """Answer a wrong name: the nearest one, then the whole menu.

    >>> nearest("unte", ["unet", "fpn"])
    "did you mean 'unet'? There are: fpn, unet"
    """
    names = sorted(str(name) for name in menu)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return (f"did you mean '{close[0]}'? " if close else "") + "There are: " + ", ".join(names)
