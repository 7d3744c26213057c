"""The verbs: what a user can do, with plain values in and files out.

The command line and `import segwright` both call these, so that both mean the same. A verb is imported when it is first
asked for, and rooms that only one verb needs when it is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segwright.verbs.images import audit, augment
    from segwright.verbs.models import ensemble, evaluate, load, predict
    from segwright.verbs.results import compare, leaderboard, list_runs, remove_runs, report
    from segwright.verbs.studies import learning_curve, plan_study, study, tune
    from segwright.verbs.teaching import pseudo
    from segwright.verbs.training import refit, resume, train

__all__ = [
    "audit",
    "augment",
    "compare",
    "ensemble",
    "evaluate",
    "leaderboard",
    "learning_curve",
    "list_runs",
    "load",
    "plan_study",
    "predict",
    "pseudo",
    "refit",
    "remove_runs",
    "report",
    "resume",
    "study",
    "train",
    "tune",
]

_ROOMS = {
    "audit": "images",
    "augment": "images",
    "pseudo": "teaching",
    "ensemble": "models",
    "evaluate": "models",
    "load": "models",
    "predict": "models",
    "compare": "results",
    "leaderboard": "results",
    "learning_curve": "studies",
    "list_runs": "results",
    "plan_study": "studies",
    "remove_runs": "results",
    "report": "results",
    "study": "studies",
    "tune": "studies",
    "refit": "training",
    "resume": "training",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(importlib.import_module(f"segwright.verbs.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'segwright.verbs' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
