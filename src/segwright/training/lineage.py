"""What the weights that a run begins with have learnt from already: run by run, back to the first.

A model that has learnt from an image says nothing by answering it right, however long ago that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from segwright.errors import RunError
from segwright.files import read_json
from segwright.recipe import Recipe
from segwright.run_images import IMAGES_FILE
from segwright.runs import recipe_of, started_from
from segwright.training.preparation import Prepared
from segwright.types import SplitName


def refuse_learnt_images(recipe: Recipe, images: Prepared, *, start_from: Path | None) -> None:
    """Make sure that no weights that a run begins with have learnt from an image that the run is judged by.

    Pictures are told apart by their digests. Of a bundle that was taken out of its run, nothing is known.

    Args:
        recipe: of the run, with its branches.
        images: of the run.
        start_from: the run or bundle that it starts from.

    Raises:
        RunError: they have.
    """
    sides: tuple[SplitName, ...] = ("test",) if recipe.data.split.refit is not None else ("val", "test")
    pack = images.pack
    held = {pack.image_digest[i]: pack.ids[i] for side in sides for i in images.indices(side) if pack.has_mask[i]}
    for run in _lineage([*([] if start_from is None else [start_from]), *map(Path, recipe.model.branches or ())]):
        learnt = {image for image, mask, side in read_json(run / IMAGES_FILE).values() if mask and side == "train"}
        if seen := [held[digest] for digest in held.keys() & learnt]:
            problem = f"has learnt from {len(seen)} images that the new run would be judged by, such as '{min(seen)}'"
            mend = f"divide as it did: --split {run / 'split.json'}"
            if recipe_of(run).data.split.refit is not None:
                mend = f"start from {recipe_of(run).data.split.refit}, which it is a refit of, or train on other images"
            raise RunError(problem, mend=mend, file=run)


def _lineage(origins: Sequence[Path]) -> Iterator[Path]:
    """The runs that keep what they learnt from, among these and all that they came from."""
    left, seen = list(origins), set[Path]()
    while left:
        given = left.pop().expanduser().resolve()
        run = given.parent if given.name == "bundle" else given
        if run in seen or not all((run / name).is_file() for name in (IMAGES_FILE, "recipe.yaml", "environment.json")):
            continue
        seen.add(run)
        yield run
        before = started_from(run)
        left += [*([] if before is None else [before]), *map(Path, recipe_of(run).model.branches or ())]
