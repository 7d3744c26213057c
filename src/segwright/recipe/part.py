"""What branches of a recipe are made of: strict tables, and values within their limits."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _one_or_several(value: Any) -> Any:
    several = value if isinstance(value, list | tuple) else [value]
    if not several or not all(type(one) is int and -(2**31) <= one < 2**31 for one in several):
        raise ValueError("this is a whole number of at most 31 bits, or a list of such for classes that become one")
    return value


StoredValues = Annotated[int | tuple[int, ...], BeforeValidator(_one_or_several)]
"""What masks hold where a class is; of several values the first is written where masks are."""


class Part(BaseModel):
    """A branch of the recipe: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
