"""How one measure is spread over the pictures of a data set: range, mean, deviation, and which curve describes it.

A gamma curve (alpha, loc, beta) is fitted by maximum likelihood and judged by its quantiles, not by its parameters:
where the values are nearly normal, alpha and loc run away together and mean nothing. So the normal curve is judged
beside it, and the simpler one is named where it fits as well.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

FITTED = 5000
"""Values that a curve is fitted to, at most."""

AS_GOOD = 0.05
"""Standard deviations by which the normal curve may fit worse and still be named: it has a parameter less."""

Curve = Literal["normal", "gamma", "neither"]


def describe(values: Float[np.ndarray, " N"]) -> dict[str, Any]:
    """Plain numbers of at least one value.

    `misfit` is the largest distance of a quantile from that of the curve, in standard deviations. A curve fits where
    that is below 0.2 and what chance adds: the outer quantiles of N values waver by about 4 / sqrt(N).
    """
    spread = float(values.std())
    found: dict[str, Any] = {
        "count": len(values),
        "min": _short(values.min()),
        "max": _short(values.max()),
        "mean": _short(values.mean()),
        "std": _short(spread),
    }
    if len(values) < 10 or spread < 1e-6 * max(1.0, abs(float(values.mean()))):
        return found
    places = np.quantile(values, QUANTILES)
    normal = float(np.abs(stats.norm.ppf(QUANTILES, values.mean(), spread) - places).max()) / spread
    found["normal"] = {"misfit": _short(normal)}
    gamma = np.inf
    parameters = fit_gamma(values)
    if parameters is not None:
        alpha, loc, beta = parameters
        gamma = float(np.abs(stats.gamma.ppf(QUANTILES, alpha, loc, beta) - places).max()) / spread
        found["gamma"] = {"alpha": _short(alpha), "loc": _short(loc), "beta": _short(beta), "misfit": _short(gamma)}
    found["fits"] = _better(normal, gamma, enough=0.2 + 4 / np.sqrt(len(values)))
    return found


def _better(normal: float, gamma: float, *, enough: float) -> Curve:
    if min(normal, gamma) > enough:
        return "neither"
    return "normal" if normal <= gamma + AS_GOOD else "gamma"


def fit_gamma(values: Float[np.ndarray, " N"]) -> tuple[float, float, float] | None:
    """Alpha (shape), loc and beta (scale); None where no gamma curve can be fitted."""
    some = values if len(values) <= FITTED else np.random.default_rng(0).choice(values, FITTED, replace=False)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = stats.gamma.fit(some)
        except (stats.FitError, RuntimeError, ValueError, FloatingPointError):
            return None
    alpha, loc, beta = (float(one) for one in found)
    return (alpha, loc, beta) if np.isfinite(found).all() and alpha > 0 and beta > 0 else None


def _short(value: float) -> float:
    """Six figures."""
    return float(f"{float(value):.6g}")
