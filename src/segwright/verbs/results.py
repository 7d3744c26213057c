"""Verbs of recorded runs: their table, their comparison, their reports, and how they are found again.

They read what stands on disk; none but `compare`, where it shows images, needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segwright import runs
from segwright.metrics import Definition

if TYPE_CHECKING:
    from segwright.studies.compare import RunComparison
    from segwright.studies.index import Known
    from segwright.studies.leaderboard import Leaderboard


def leaderboard(
    folder: str | Path,
    *,
    by: Sequence[str] = (),
    split: str = "val",
    baseline: str | None = None,
    definition: Definition | None = None,
) -> tuple[Leaderboard, list[Path]]:
    """The table of a study, or of any folder of runs, from their scores on disk.

    Args:
        folder: of a study, or of runs.
        by: keys of the recipe whose values make the rows.
        split: whose scores count.
        baseline: a row that all others are compared with; none: the study's own.
        definition: of the score; none: the study's own.

    Returns:
        The table, and the files that were written: `results.csv` and `leaderboard.md`, `.tex` and `.html`.

    Raises:
        OutputError: another file stands where one of these is to be written.
        SegwrightError: there are no scored runs, or no such key or row.
    """
    from segwright.reporting.board_page import write_board_page
    from segwright.reporting.board_tables import require_ours, write_tables
    from segwright.studies.entries import plan_of
    from segwright.studies.leaderboard import board

    place = runs.existing(Path(folder))
    page = place / "leaderboard.html"
    require_ours(place, page)
    table = board(plan_of(place, by=by, baseline=baseline, definition=definition), split=split)
    # The page first: by it the others are known as ours.
    write_board_page(table, page)
    return table, [*write_tables(table, place), page]


def report(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a run from what stands on disk, as one HTML file.

    Raises:
        RunError: there is no such run.
    """
    from segwright.reporting.page import write_report

    return write_report(runs.find_run(Path(run)), out=None if out is None else Path(out))


def compare(
    runs_of: Sequence[str | Path],
    *,
    out: str | Path = "comparison.html",
    split: str = "val",
    definition: Definition = "declared",
    count: int = 5,
    images: bool = True,
    device: str = "auto",
    progress: bool = True,
) -> tuple[RunComparison, list[Path]]:
    """Compare trained models on the same images.

    Args:
        runs_of: folders of two or more runs; the first is what the others are compared with.
        out: the HTML file; images also go into a PNG of that name.
        split: whose scores.
        definition: of the score.
        count: how many of the best, the worst and the most unlike images are shown.
        images: show images, which the models label for it.
        device: auto, cpu, cuda ...
        progress: show how far it is.

    Returns:
        What was found, and the files that were written.

    Raises:
        SegwrightError: a run is missing, was scored on other images, or its images are no longer there.
    """
    from dataclasses import replace

    from segwright.reporting.comparison_page import write_comparison
    from segwright.studies import compare as comparing

    found = comparing.compare([Path(one) for one in runs_of], split=split, definition=definition)
    if images:
        from segwright.studies.sides import show

        found = replace(found, sides=show(found, count=count, device=device, progress=progress))
    return found, write_comparison(found, Path(out))


def list_runs(
    folder: str | Path = ".",
    *,
    conditions: Iterable[str] = (),
    sort: str | None = None,
    tag: Sequence[str] = (),
    untag: Sequence[str] = (),
) -> list[Known]:
    """The runs of a project for which all conditions hold, tagged where that is asked for.

    Args:
        folder: of the project, or of runs.
        conditions: such as `model=unet`, `miou>0.6`, `tag=good`, `name~night`.
        sort: a key, with a `-` in front for the largest first.
        tag: tags that the runs are given.
        untag: tags that are taken away.

    Raises:
        SegwrightError: there are no runs, or an unknown key.
    """
    from segwright.studies import index

    root = Path(folder)
    found = index.choose(index.known_runs(root), conditions)
    if tag or untag:
        index.tag(found, untag, take_away=True)
        index.tag([index.known(root, run.run) for run in found], tag)
        found = [index.known(root, run.run) for run in found]
    return found if sort is None else index.ordered(found, sort)


def remove_runs(found: Sequence[Known], folder: str | Path = ".") -> list[Path]:
    """Move runs to the folder's `.trash/` and return where they lie now; nothing is deleted.

    Raises:
        SegwrightError: a run is being written, or cannot be moved.
    """
    from segwright.studies import index

    return index.remove(found, Path(folder))
