"""Class weights from the pixel counts of the training split.

With n_c pixels of class c, p_c its share, and weights scaled to a mean of 1 over the classes that occur:

    inverse              1 / p_c
    normalized_inverse   (1 / n_c) / sum_c(1 / n_c)
    median_frequency     median(p) / p_c                  Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734
    enet_log             1 / ln(1.02 + p_c)               Paszke et al. 2016, https://arxiv.org/abs/1606.02147
    mild_log             1 / ln(1.1 + p_c)                enet_log with a larger offset
    effective_number     (1 - beta) / (1 - beta^n_c)      Cui et al. 2019, https://arxiv.org/abs/1901.05555
    sqrt_inverse         1 / sqrt(p_c)

`inverse` and `normalized_inverse` differ by a factor only, which the mean of 1 takes out again: two names that the
literature has for one weighting. `mild_log` lifts a class of 0.5 % about three times over one of 30 %, where `enet_log`
lifts it ten times: enough to be found, without paying for it in false positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from segwright.errors import RecipeError, nearest

Shares = Float[np.ndarray, " K"]

_ENET_OFFSET = 1.02
_MILD_OFFSET = 1.1
_PIXELS_A_UNIT = 1e4
"""Neighbouring pixels say the same: effective numbers count units of this many, with beta = 1 - 1 / (units in all)."""


def _effective_number(counts: Shares) -> Shares:
    units = counts / _PIXELS_A_UNIT
    beta = 1 - 1 / max(float(units.sum()), 2.0)
    return (1 - beta) / (1 - np.power(beta, units))


CLASS_WEIGHTS: dict[str, Callable[[Shares], Shares]] = {
    "none": np.ones_like,
    "inverse": lambda counts: counts.sum() / counts,
    "normalized_inverse": lambda counts: (1 / counts) / (1 / counts).sum(),
    "median_frequency": lambda counts: np.median(counts) / counts,
    "enet_log": lambda counts: 1 / np.log(_ENET_OFFSET + counts / counts.sum()),
    "mild_log": lambda counts: 1 / np.log(_MILD_OFFSET + counts / counts.sum()),
    "effective_number": _effective_number,
    "sqrt_inverse": lambda counts: np.sqrt(counts.sum() / counts),
}


def class_weights(name: str, *, counts: Sequence[int], left_out: Sequence[int] = ()) -> tuple[float, ...]:
    """One weight a class.

    Args:
        name: one of `CLASS_WEIGHTS`.
        counts: pixels of each class in the training split.
        left_out: classes that the loss does not see; their weight is 0 and their pixels do not count as a share.

    Returns:
        Weights with a mean of 1 over the classes that occur; 0 for the others.

    Raises:
        RecipeError: there is no weighting of that name.
    """
    if name not in CLASS_WEIGHTS:
        raise RecipeError(f"there is no class weighting '{name}'", mend=nearest(name, CLASS_WEIGHTS))
    weights = np.zeros(len(counts))
    there = [k for k, count in enumerate(counts) if count > 0 and k not in set(left_out)]
    if there:
        raw = CLASS_WEIGHTS[name](np.array([counts[k] for k in there], dtype=np.float64))
        weights[there] = raw / raw.mean()
    return tuple(float(weight) for weight in weights)
