"""What a study needs and does not bring: files that somebody has to put there before it can run.

A file is looked for beside the study file, then below the folder that SEGWRIGHT_DATA names, so that large files may lie
in one place for all projects.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from segwright.errors import DataError
from segwright.studies.study_file import Need

DATA_VARIABLE = "SEGWRIGHT_DATA"


def found_in_data(needs: Sequence[Need], folder: Path) -> dict[str, Path]:
    """Where those lie that are not beside the study file, by the path that the file gives; without those missing.

    Args:
        needs: of the study.
        folder: that its paths are relative to.
    """
    data = _data_folder()
    if data is None:
        return {}
    places = {need.path: data / (need.in_data or need.path) for need in needs if not _beside(need, folder).exists()}
    return {path: place for path, place in places.items() if place.exists()}


def require_needs(needs: Sequence[Need], folder: Path) -> None:
    """Refuse to begin what cannot be done.

    Args:
        needs: of the study.
        folder: that its paths are relative to.

    Raises:
        DataError: naming the first thing that is missing, where it is from, and where to put it.
    """
    elsewhere = found_in_data(needs, folder)
    missing = [need for need in needs if need.path not in elsewhere and not _beside(need, folder).exists()]
    if not missing:
        return
    first, *others = missing
    problem = f"is missing: {first.what}" if first.what else "is missing, and the study needs it"
    if others:
        problem += f" (and so {'is' if len(others) == 1 else 'are'} {', '.join(need.path for need in others)})"
    data = _data_folder()
    below = "" if data is None else f"; {data / (first.in_data or first.path)} is read too"
    how = first.how.rstrip(". ") or "put it there"
    raise DataError(problem, mend=f"{how}{below}", file=_beside(first, folder))


def _beside(need: Need, folder: Path) -> Path:
    return Path(os.path.normpath(folder / Path(need.path).expanduser()))


def _data_folder() -> Path | None:
    told = os.environ.get(DATA_VARIABLE)
    return Path(told).expanduser().absolute() if told else None
