"""The images of a run: what it was trained on and is scored on, found again.

A run's `recipe.yaml` names the data, and its `split.json` the images of each side; with both, any later verb finds the
same images again. Other data are read as the run's own were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.data.card import read_card
from segwright.data.pack import Pack, open_pack
from segwright.data.sources import Source, open_source
from segwright.data.splits import find_groups, read_split
from segwright.errors import DataError, RecipeError, RunError
from segwright.files import read_json
from segwright.recipe import Recipe
from segwright.runs import existing, recipe_of, stem_of
from segwright.types import SPLIT_NAMES, ClassSet, SplitName

IMAGES_FILE = "images.json"
"""Of a run: the digests of each image and mask, and its side, by id."""


def source_of(recipe: Recipe) -> Source:
    """The source that a recipe names, with its classes.

    Raises:
        RecipeError: it names none.
        DataError: the source cannot be read.
        MaskError: masks hold values that fit no classes.
    """
    if recipe.data.path is None:
        raise RecipeError("'data.path' is not set", mend="name the folder or file with the images")
    asked = recipe.classes
    return open_source(
        Path(recipe.data.path),
        format=recipe.data.format,
        names=asked.names,
        colors=asked.colors,
        mask_values=asked.mask_values,
        void_values=asked.void_values,
    )


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images that a run is scored on.

    Attributes:
        pack: at native size, unless another was asked for.
        indices: positions in the pack.
        groups: of each image of the pack; None where no group is known. An image without one is its own.
    """

    pack: Pack
    indices: list[int]
    groups: list[str] | None


def own_images(
    recipe: Recipe, run: Path, *, side: str, working_size_px: int | None = None, progress: bool
) -> LabelledImages:
    """The images of one side of a run's split, at native size unless told another.

    Raises:
        RunError: the run has none on that side, or has learnt from those that it should be judged by.
        SplitError: images of the run are no longer there.
    """
    refit = recipe.data.split.refit is not None
    if refit and side == "val":
        mend = "score it on its test side (--split test) or on other images (--data)"
        raise RunError("has learnt from its validation images too, so they judge nothing", mend=mend, file=run)
    source = source_of(recipe)
    pack = open_pack(source, working_size_px=working_size_px, resident=recipe.data.resident, progress=progress)
    split = read_split(run / "split.json", pack.ids, needed=("train",) if refit else ("train", "val"))
    indices = [i for i, name in enumerate(pack.ids) if split.get(name) == side]
    if not indices:
        there = ", ".join(sorted(set(split.values())))
        raise RunError(f"this run has no images in '{side}'", mend=f"there are: {there}", file=run)
    return LabelledImages(pack, indices, _groups(pack, indices, recipe.data.split.groups or source.groups))


def require_comparable(folders: Sequence[Path], classes: Sequence[ClassSet], *, judged: bool = True) -> None:
    """Runs of the same classes, and where they are judged on the validation images of the first, ignorant of these.

    Raises:
        RunError: one has other classes, or has learnt from such an image.
    """
    for folder, own in zip(folders[1:], classes[1:], strict=True):
        if own.names != classes[0].names:
            problem = f"has the classes {', '.join(own.names)}, and {folders[0]} {', '.join(classes[0].names)}"
            raise RunError(problem, mend="take runs of the same data", file=folder)
        if judged:
            refuse_leak(folder, folders[0], sides=("val",))


def require_unseen(average: Path, members: Sequence[Path], info: Mapping[str, Any], *, side: str) -> None:
    """Make sure that an average may be judged by one side of its first run.

    Args:
        average: its folder.
        members: its runs; none of a single run, which `own_images` looks after.
        info: of its bundle.
        side: train, val or test.

    Raises:
        RunError: a run has learnt from these images, or the weights of the average were fitted on them.
    """
    if members and side == "val" and "scored_with" in (info.get("score") or {}):
        mend = "score it with --split test or on other images (--data); its score on held-out halves is in its card.md"
        raise RunError(
            "its weights were fitted on the validation images, so they judge nothing", mend=mend, file=average
        )
    sides = [name for name in SPLIT_NAMES if name == side and name != "train"]
    for run in members[1:]:
        refuse_leak(run, members[0], sides=sides)


def keeps_sides(run: Path) -> bool:
    """Whether a folder tells which images a model has learnt from."""
    return any((run / name).is_file() for name in (IMAGES_FILE, "split.json"))


def refuse_leak(learner: Path, judged: Path, *, sides: Sequence[SplitName]) -> None:
    """Make sure that a run has learnt from no image that another one is judged by.

    Pictures are told apart by their digests where both runs keep these, else by their ids.

    Args:
        learner: the folder of a run.
        judged: the same; it may be the same run.
        sides: whose labelled images it is judged by.

    Raises:
        RunError: it has.
    """
    by_digest = all((run / IMAGES_FILE).is_file() for run in (learner, judged))
    learnt = _on_sides(learner, ("train",), by_digest=by_digest)
    held = _on_sides(judged, sides, by_digest=by_digest)
    seen = [held[key] for key in held.keys() & learnt.keys()]
    if not seen:
        return
    after = recipe_of(learner).data.split.refit
    mend = "train both with one split (data.split.file)" if after is None else f"take {after}, which it is a refit of"
    problem = f"has learnt from {len(seen)} images that {judged} is judged by, such as '{min(seen)}'"
    raise RunError(problem, mend=mend, file=learner)


def _on_sides(run: Path, sides: Sequence[SplitName], *, by_digest: bool) -> dict[str, str]:
    """Id of each labelled image of some sides, by the digest of its picture or by the id itself."""
    if by_digest:
        facts = read_json(run / IMAGES_FILE).items()
        return {image: name for name, (image, mask, side) in facts if mask and side in sides}
    split = read_json(run / "split.json")
    return {name: name for side in sides for name in split.get(side, ())}


def other_images(
    run: Path, data: Path, *, split: str | None, working_size_px: int | None = None, progress: bool
) -> LabelledImages:
    """The labelled images of other data, or of the side that it names itself; masks are read as the run's own were.

    Raises:
        DataError: the data cannot be read, has no such images, or names other classes.
        MaskError: a mask holds a value that the run knows no class for.
    """
    card = read_card(run / "data.yaml")
    source = open_source(
        existing(data),
        names=card.classes,
        colors=card.colors,
        mask_values=card.mask_values,
        void_values=card.void_values,
        nearest=card.nearest,
    )
    source.require_classes(card.classes)
    pack = open_pack(source, working_size_px=working_size_px, progress=progress)
    indices = [i for i in range(len(pack.ids)) if pack.has_mask[i] and split in (None, pack.given_split[i])]
    if not indices:
        which = f"labelled images in '{split}'" if split else "labelled images"
        raise DataError(f"holds no {which}", mend="give images with masks", file=data)
    return LabelledImages(pack, indices, _groups(pack, indices, source.groups))


def _groups(pack: Pack, indices: list[int], spec: str | None) -> list[str] | None:
    found = pack.groups if spec is None else find_groups(pack.ids, spec)
    if all(found[i] is None for i in indices):
        return None
    return [f"image {name}" if group is None else group for name, group in zip(pack.ids, found, strict=True)]


def name_of_scores(data: Path, *, split: str | None) -> str:
    """How the scores of other data are called; never as those of one of the run's own sides, however predicted."""
    name = stem_of(data) if split is None else f"{stem_of(data)}-{split}"
    # Beside NAME.csv stand NAME_images.csv and NAME_examples.npz, which must not be those of another name.
    name = re.sub(r"_(images|examples)$", r"-\1", name)
    return f"data-{name}" if name.partition("-")[0] in SPLIT_NAMES else name
