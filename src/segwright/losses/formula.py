"""Loss formulas: weighted sums as people write them.

dice + 2*ce                             factors
tversky(alpha=0.3, beta=0.7) + ce       arguments of a loss
dice(over=image) + focal(gamma=1.5)
dice + ramp(0, 0.01)*boundary           a factor that moves in a straight line from start to end of the training
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from segwright.errors import RecipeError, nearest

Value = float | str

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_TERM = re.compile(
    rf"(?:(?:(?P<factor>{_NUMBER})|ramp\s*\(\s*(?P<start>{_NUMBER})\s*,\s*(?P<end>{_NUMBER})\s*\))\s*\*\s*)?"
    r"(?P<name>[a-z_][a-z0-9_]*)\s*(?:\((?P<arguments>[^()]*)\))?",
    re.IGNORECASE,
)
_ARGUMENT = re.compile(
    rf"\s*(?P<key>[a-z_][a-z0-9_]*)\s*=\s*(?:(?P<number>{_NUMBER})|(?P<word>[a-z]+))\s*", re.IGNORECASE
)
_RANGES: Mapping[str, tuple[float, float]] = {
    "alpha": (0, 100), "beta": (0, 100), "gamma": (0, 20), "strength": (0, 1000), "reach_px": (0.1, 1000),
}  # fmt: skip
_MENUS: Mapping[str, tuple[str, ...]] = {"over": ("batch", "image")}


@dataclass(frozen=True)
class Term:
    """One loss of a sum.

    Attributes:
        name: of the loss.
        start, end: its factor at the start and at the end of the training.
        arguments: what the loss is told.
    """

    name: str
    start: float = 1.0
    end: float = 1.0
    arguments: Mapping[str, Value] = field(default_factory=dict)

    def factor(self, progress: float) -> float:
        """The factor when a share of the budget is spent, 0..1."""
        return self.start + (self.end - self.start) * progress

    def __str__(self) -> str:
        told = ", ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                         for key, value in self.arguments.items())  # fmt: skip
        factor = f"{self.start:g}" if self.start == self.end else f"ramp({self.start:g}, {self.end:g})"
        return f"{factor}*{self.name}" + (f"({told})" if told else "")


def arguments_of(function: Callable[..., Tensor]) -> dict[str, Value]:
    """What a loss may be told, with its defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def parse_formula(formula: str, *, losses: Mapping[str, Callable[..., Tensor]]) -> tuple[Term, ...]:
    """The terms of a formula.

    Args:
        formula: see the file's head.
        losses: the functions that may be named.

    Raises:
        RecipeError: a term cannot be read, a name or argument is unknown, or a number is out of range.
    """
    # A '+' that belongs to an exponent, as in 1e+2, parts no terms.
    texts = re.split(r"(?<![\d.]e)\+", formula, flags=re.IGNORECASE)
    return tuple(_term(text.strip(), formula, losses) for text in texts)


def _term(text: str, formula: str, losses: Mapping[str, Callable[..., Tensor]]) -> Term:
    match = _TERM.fullmatch(text)
    if match is None:
        problem = f"loss formula '{formula}': cannot read '{text}'"
        raise RecipeError(problem, mend="write it like 'dice + 2*ce' or 'tversky(alpha=0.3, beta=0.7)'")
    name = match["name"].lower()
    if name not in losses:
        raise RecipeError(f"there is no loss '{name}'", mend=nearest(name, losses))
    start = float(match["start"] or match["factor"] or 1)
    end = float(match["end"] or start)
    if not (math.isfinite(start) and math.isfinite(end) and max(start, end) > 0):
        problem = f"loss formula '{formula}': factor {start:g} of '{name}'"
        raise RecipeError(problem, mend="use a factor above 0, or leave the term out")
    return Term(name, start, end, _arguments(match["arguments"], name, arguments_of(losses[name])))


def _arguments(text: str | None, name: str, known: Mapping[str, Value]) -> dict[str, Value]:
    told: dict[str, Value] = {}
    for piece in (text or "").split(",") if (text or "").strip() else ():
        match = _ARGUMENT.fullmatch(piece)
        if match is None:
            raise RecipeError(f"loss '{name}': cannot read '{piece.strip()}'", mend="write arguments like gamma=2")
        key = match["key"].lower()
        if key not in known:
            mend = nearest(key, known) if known else "it takes none"
            raise RecipeError(f"loss '{name}' has no argument '{key}'", mend=mend)
        told[key] = _checked(match["word"] or float(match["number"]), name, key)
    return told


def _checked(value: Value, name: str, key: str) -> Value:
    if key in _MENUS:
        if value not in _MENUS[key]:
            raise RecipeError(f"loss '{name}': {key}={value}", mend=nearest(str(value), _MENUS[key]))
        return value
    low, high = _RANGES[key]
    if not isinstance(value, float) or not low <= value <= high:
        raise RecipeError(f"loss '{name}': {key}={value}", mend=f"use a number from {low:g} to {high:g}")
    return value
