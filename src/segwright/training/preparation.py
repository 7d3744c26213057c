"""From a recipe to the images of a run: source, pack, classes, split; checked for all that would poison it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from segwright.data.pack import Pack, open_pack
from segwright.data.sources import Source
from segwright.data.splits import find_groups, make_split, read_split
from segwright.errors import DataError, RecipeError, RunError, SplitError
from segwright.files import read_json
from segwright.recipe import ClassesRecipe, DataRecipe, Recipe
from segwright.run_images import source_of
from segwright.training.learnable import check_labels
from segwright.training.resuming import ImageChanges, compare_images
from segwright.types import SPLIT_NAMES, ClassSet, SplitName


@dataclass(frozen=True)
class Prepared:
    """The images of a run.

    Attributes:
        source: where they come from.
        pack: all of them, decoded; dropped ones too.
        classes: with the rules of the recipe.
        split: side of each id; ids that stand on no side are left out.
        dropped: id to reason, beside those that the source's card drops.
        changes: what is not as it was when the run was started; None for a new run.
        notes: what is odd about the masks, in sentences.
    """

    source: Source
    pack: Pack
    classes: ClassSet
    split: dict[str, SplitName]
    dropped: dict[str, str]
    changes: ImageChanges | None = None
    notes: tuple[str, ...] = ()

    def indices(self, side: SplitName) -> Int[np.ndarray, " M"]:
        """Positions in the pack of one side."""
        return np.array([i for i, name in enumerate(self.pack.ids) if self.split.get(name) == side], dtype=np.int64)


def prepare(recipe: Recipe, *, run: Path | None = None, force: bool = False, progress: bool = True) -> Prepared:
    """Open, pack, drop and divide the images of a recipe.

    Args:
        recipe: says where and how.
        run: a run that goes on: its division counts, and its images must be as they were; None for a new run.
        force: take images that changed, and leave out those that are gone or new.
        progress: show a bar while packing.

    Raises:
        DataError: the source cannot be used, or an id to drop is not there.
        RunError: images changed since the run was started.
        SplitError: a side is empty, or the same image or group stands on two sides.
    """
    source = source_of(recipe)
    if not source.labelled:
        mend = "put the masks into a folder named masks beside the images, under the same names"
        raise DataError(f"none of its {len(source.samples)} images has a mask", mend=mend, file=source.root)
    pack = open_pack(
        source, working_size_px=recipe.data.working_size_px, resident=recipe.data.resident, progress=progress
    )
    dropped = _dropped(recipe.data, source, pack)
    refit = recipe.data.split.refit is not None
    split = _divide(recipe, source, pack, dropped=dropped, refit=refit) if run is None else _own_split(run, pack)
    changes = None if run is None else _compared(run, pack, split, force=force)
    if source.classes.num_classes < 2:
        mend = "name background too, or give classes.mask_values"
        raise RecipeError("there is one class only, so nothing to tell apart", mend=mend, file=source.root)
    spec = recipe.data.split.groups or source.groups
    needed: tuple[SplitName, ...] = ("train",) if refit else ("train", "val")
    _refuse_leaks(pack, split, groups=pack.groups if spec is None else find_groups(pack.ids, spec), needed=needed)
    classes = _with_rules(source.classes, recipe.classes)
    notes = check_labels(pack, split, classes=classes)
    if refit:
        notes = (*notes, "the validation images are learnt from too (data.split.refit), and nothing is validated")
    return Prepared(source, pack, classes, split, dropped, changes, notes)


def _compared(run: Path, pack: Pack, split: dict[str, SplitName], *, force: bool) -> ImageChanges:
    changes = compare_images(run, pack, split)
    if changes and not force:
        mend = "put them back, go on with them by --force, or start a new run from this one with --from"
        raise RunError(f"images are not what this run was trained with: {changes}", mend=mend, file=run)
    return changes


def _own_split(run: Path, pack: Pack) -> dict[str, SplitName]:
    """The division of a run, without images that are gone; new ones stand on no side."""
    tree = read_json(run / "split.json")
    if not isinstance(tree, dict):
        raise SplitError("is no split", mend="put back the file that the run was started with", file=run / "split.json")
    sides = {name: side for side in SPLIT_NAMES for name in tree.get(side, [])}
    return {name: sides[name] for name in pack.ids if name in sides}


def _with_rules(classes: ClassSet, asked: ClassesRecipe) -> ClassSet:
    """The source's classes with the recipe's rules; where the recipe has none, those of the source's card stay."""

    def labels(rule: str) -> tuple[int, ...]:
        named = tuple(classes.index(member) for member in getattr(asked, rule))
        return named or tuple(getattr(classes, rule))

    ruled = replace(
        classes,
        ignore_in_loss=labels("ignore_in_loss"),
        ignore_in_score=labels("ignore_in_score"),
        leave_out_of_mean=labels("leave_out_of_mean"),
        never_predict=labels("never_predict"),
    )
    if not ruled.scored:
        raise RecipeError("no class is left to score", mend="shorten classes.ignore_in_score or leave_out_of_mean")
    learnt = [ruled.names[k] for k in ruled.never_predict if k not in ruled.ignore_in_loss]
    if learnt:
        raise RecipeError(
            f"class '{learnt[0]}' is never predicted but stands in the loss",
            mend=f"add it to classes.ignore_in_loss: [{learnt[0]}]",
        )
    return ruled


def _dropped(data: DataRecipe, source: Source, pack: Pack) -> dict[str, str]:
    """Ids that are left out, each with its reason."""
    dropped: dict[str, str] = {}
    for name in data.drop:
        if name not in pack.ids:
            mend = "use ids as in the run's data.yaml"
            raise DataError(f"there is no image '{name}' to drop", mend=mend, file=source.root)
        dropped[name] = "named in data.drop"
    if data.drop_noise:
        for i in pack.noise_like():
            dropped.setdefault(pack.ids[i], f"no spatial structure (neighbour correlation {pack.noise[i]:.2f})")
    return dropped


def _divide(
    recipe: Recipe, source: Source, pack: Pack, *, dropped: dict[str, str], refit: bool
) -> dict[str, SplitName]:
    split = _divided(recipe, source, pack, dropped=dropped)
    if not refit:
        return split
    bare = {name for i, name in enumerate(pack.ids) if split.get(name) == "val" and not pack.has_mask[i]}
    return {name: "train" if side == "val" else side for name, side in split.items() if name not in bare}


def _divided(recipe: Recipe, source: Source, pack: Pack, *, dropped: dict[str, str]) -> dict[str, SplitName]:
    asked = recipe.data.split
    file = Path(asked.file) if asked.file is not None else source.split_file
    if file is not None and asked.kind in ("auto", "given"):
        given = read_split(file, pack.ids)
        return {name: side for name, side in given.items() if name not in dropped}
    # Unlabelled images can be predicted, but neither learnt from nor scored.
    dealt = [
        i for i, name in enumerate(pack.ids)
        if name not in dropped and (pack.has_mask[i] or pack.given_split[i] == "test")
    ]  # fmt: skip
    groups = _groups(asked.groups or source.groups, pack)
    return make_split(
        [pack.ids[i] for i in dealt],
        kind=asked.kind,
        given=[pack.given_split[i] for i in dealt],
        groups=[groups[i] for i in dealt],
        presence=pack.class_pixels[dealt, : source.classes.num_classes] > 0,
        val=asked.val,
        test=asked.test,
        folds=asked.folds,
        fold=asked.fold,
        seed=asked.seed,
    )


def _groups(spec: str | None, pack: Pack) -> list[str | None]:
    """The group of each image; equal pictures are one group, so that they never stand on two sides."""
    named = pack.groups if spec is None else find_groups(pack.ids, spec)
    first: dict[str, int] = {}
    groups = list(named)
    for i, image_digest in enumerate(pack.image_digest):
        twin = first.setdefault(image_digest, i)
        sides = {pack.given_split[i], pack.given_split[twin]}
        # Where the source itself divides twins, `_refuse_leaks` says so in plainer words.
        if twin != i and groups[i] is None and (len(sides) == 1 or None in sides):
            groups[twin] = groups[twin] or f"picture {pack.ids[twin]}"
            groups[i] = groups[twin]
    return groups


def groups_of(recipe: Recipe, images: Prepared) -> list[str | None]:
    """The group of each image of a run, as its division took it."""
    return _groups(recipe.data.split.groups or images.source.groups, images.pack)


def _refuse_leaks(
    pack: Pack, split: dict[str, SplitName], *, groups: Sequence[str | None], needed: Sequence[SplitName]
) -> None:
    """Nothing to score, no training image, one group or one picture on two sides: all end here."""
    sides = {side: [i for i, name in enumerate(pack.ids) if split.get(name) == side] for side in SPLIT_NAMES}
    for side in needed:
        labelled = [i for i in sides[side] if pack.has_mask[i]]
        if not labelled:
            raise SplitError(f"the {side} side has no labelled image", mend="give it some, or change data.split")
        if side == "train" and len(labelled) < len(sides[side]):
            name = next(pack.ids[i] for i in sides[side] if not pack.has_mask[i])
            raise SplitError(f"image '{name}' is to be trained on but has no mask", mend="label it or leave it out")
    for what, key in (("group", groups), ("picture", pack.image_digest)):
        found: dict[str, dict[SplitName, str]] = defaultdict(dict)
        for side, members in sides.items():
            for i in members:
                if key[i] is not None:
                    found[str(key[i])].setdefault(side, pack.ids[i])
        leaking = [places for places in found.values() if len(places) > 1]
        if leaking:
            pair = " and ".join(f"'{name}' ({side})" for side, name in leaking[0].items())
            raise SplitError(
                f"{len(leaking)} times the same {what} stands on two sides of the split, first {pair}",
                mend="the score would flatter; move them to one side, or drop copies with data.drop",
            )
