"""segwright: labelled images become a segmentation model that its owner can trust.

    import segwright

    run = segwright.train("photos/", minutes=15)
    prediction = segwright.load(run).predict("new.jpg")

The verbs are those of the command line, and most take its words; `tune` takes its budget as an `Effort`, and `study`
where it runs as `Machines`. They are imported when first used, so that `import segwright` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segwright.verbs import (
        audit,
        augment,
        compare,
        ensemble,
        evaluate,
        leaderboard,
        load,
        predict,
        pseudo,
        refit,
        report,
        resume,
        study,
        train,
        tune,
    )

__all__ = [
    "__version__",
    "audit",
    "augment",
    "compare",
    "ensemble",
    "evaluate",
    "leaderboard",
    "load",
    "predict",
    "pseudo",
    "refit",
    "report",
    "resume",
    "study",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("segwright")
    if name in __all__:
        return getattr(importlib.import_module("segwright.verbs"), name)
    raise AttributeError(f"module 'segwright' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
