"""What a run that goes on must agree with: the recipe and the images that it was trained with so far.

A budget may always be extended. Any other change is named, and refused unless it is forced; what would no longer be the
same run (another model, another split) is a new run, started with `--from`.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.data.pack import Pack
from segwright.errors import RunError, brief
from segwright.files import read_json, write_json
from segwright.models.branches import with_never_predict
from segwright.recipe import Recipe, make_recipe, override, read_resolved
from segwright.run_images import IMAGES_FILE
from segwright.runs import STAGED_FILE, STAGES
from segwright.training.state import SavedState
from segwright.types import SplitName

_FREE = (
    "training.epochs", "training.minutes", "training.early_stopping", "training.minimum_gain", "training.tensorboard",
    "training.devices", "data.path", "data.resident", "data.audit",
)  # fmt: skip
"""Keys that may change: they move neither weights nor images, which are compared by their content."""

_FIXED = (
    "model", "optimizer.name", "optimizer.layer_decay", "training.trainable", "training.swa",
    "training.average_cycles", "training.watch", "data.format", "data.split", "data.drop", "data.drop_noise",
    "classes.names", "classes.colors", "classes.mask_values", "classes.void_values",
)  # fmt: skip
"""Keys and branches that make another run, whatever is forced."""


def recipe_to_go_on(
    run: Path, state: SavedState | None, *, changes: Sequence[str], force: bool
) -> tuple[Recipe, list[str]]:
    """The recipe of a run with what is changed now, and these changes in words.

    Args:
        run: its `recipe.yaml` may have been edited.
        state: from which the run goes on; None where it starts again, with whatever recipe.
        changes: `key.path=value` texts.
        force: take changes that are not free.

    Raises:
        RecipeError: a key or value is wrong.
        RunError: a change is refused.
    """
    recipe = override(read_resolved(run / "recipe.yaml"), changes)
    if recipe.data.path is not None:
        path = str(Path(recipe.data.path).expanduser().resolve())
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": path})})
    if state is None or state.recipe is None:
        return recipe, []
    words = check_recipe(state.recipe, recipe, run=run, force=force)
    check_budget(recipe, state, changes=words, run=run)
    return recipe, words


def check_recipe(before: Mapping[str, Any], asked: Recipe, *, run: Path, force: bool) -> list[str]:
    """The changes of a recipe, in words; those that are not free only where they are forced.

    Args:
        before: the recipe's tree, as the run was trained with it.
        asked: what is to be trained now.
        run: named in errors.
        force: take changes that are not free.

    Raises:
        RunError: a change is not free, or would make another run.
    """
    # Read as a recipe, a tree of old gets the keys that came since, at their usual values.
    was, now = make_recipe(before).as_dict(), asked.as_dict()
    for tree in (was, now):
        # Models within the model follow the rules of the classes, which are compared themselves.
        tree["model"]["arguments"] = with_never_predict(tree["model"]["arguments"], ())
    changes = list(_differences(was, now))
    fixed = [text for key, text in changes if _among(key, _FIXED)]
    if bool(was["training"]["ema"]) != bool(now["training"]["ema"]):
        # The state holds an average where there is one, and none can be made up.
        fixed += [text for key, text in changes if key == "training.ema"]
    if fixed:
        mend = f"undo that, or start a new run from this one (segwright train DATA --from {shlex.quote(str(run))})"
        raise RunError(f"this would be another run: {'; '.join(fixed)}", mend=mend, file=run)
    bound = [text for key, text in changes if not _among(key, _FREE)]
    if bound and not force:
        raise RunError(
            f"the recipe is not the one that this run was trained with: {'; '.join(bound)}",
            mend="undo that, or go on with it by --force",
            file=run,
        )
    return [text for _, text in changes]


def is_bound(changes: Sequence[str]) -> bool:
    """Whether changes, as `check_recipe` words them, hold one that had to be forced."""
    return any(not _among(text.partition(":")[0], _FREE) for text in changes)


def check_budget(recipe: Recipe, state: SavedState, *, changes: Sequence[str], run: Path) -> None:
    """A budget that is set anew must leave something to do.

    Raises:
        RunError: it is spent already.
    """
    asked = recipe.training
    if not any(text.startswith(("training.epochs:", "training.minutes:")) for text in changes):
        return
    if asked.minutes is None and asked.epochs is not None and asked.epochs <= state.epochs:
        problem = f"{state.epochs} epochs are done, and --epochs {asked.epochs} counts from the beginning"
        raise RunError(problem, mend=f"give more than {state.epochs}", file=run)
    if asked.minutes is not None and asked.minutes * 60 <= state.seconds:
        spent = f"{state.seconds / 60:.1f}"
        problem = f"{spent} minutes are spent, and --minutes {asked.minutes:g} counts from the beginning"
        raise RunError(problem, mend=f"give more than {spent}", file=run)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], *, above: str = "") -> Iterator[tuple[str, str]]:
    """(key, 'key: old -> new') of every leaf that differs."""
    for name in {**before, **now}:
        key = above + name
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and name != "arguments":
            yield from _differences(old, new, above=f"{key}.")
        elif old != new:
            yield key, f"{key}: {brief(old)} -> {brief(new)}"


def _among(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


@dataclass(frozen=True)
class ImageChanges:
    """Ids whose image, mask or side is no longer what a run was started with."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    images: tuple[str, ...]
    masks: tuple[str, ...]
    moved: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.images or self.masks or self.moved)

    def __str__(self) -> str:
        named = (
            ("new", self.added), ("gone", self.removed), ("with another picture", self.images),
            ("with another mask", self.masks), ("on another side of the split", self.moved),
        )  # fmt: skip
        return "; ".join(f"{len(ids)} {what} ({_few(ids)})" for what, ids in named if ids)


def write_images(run: Path, pack: Pack, split: Mapping[str, SplitName]) -> None:
    """Keep the digests of every image and mask, and its side: they tell later what changed."""
    write_json(run / IMAGES_FILE, {name: list(facts) for name, facts in _facts(pack, split).items()})


def compare_images(run: Path, pack: Pack, split: Mapping[str, SplitName]) -> ImageChanges:
    """What changed since `write_images`.

    Raises:
        RunError: the run keeps no digests.
    """
    if not (run / IMAGES_FILE).is_file():
        raise RunError(f"has no {IMAGES_FILE}, so its images cannot be compared", mend="start a new run", file=run)
    before, now = read_json(run / IMAGES_FILE), _facts(pack, split)
    both = [name for name in now if name in before]

    def differing(place: int) -> tuple[str, ...]:
        return tuple(name for name in both if now[name][place] != before[name][place])

    return ImageChanges(
        added=tuple(name for name in now if name not in before),
        removed=tuple(name for name in before if name not in now),
        images=differing(0),
        masks=differing(1),
        moved=differing(2),
    )


def _facts(pack: Pack, split: Mapping[str, SplitName]) -> dict[str, tuple[str, str, str | None]]:
    digests = zip(pack.ids, pack.image_digest, pack.mask_digest, strict=True)
    return {name: (image, mask, split.get(name)) for name, image, mask in digests}


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def tidy(run: Path) -> None:
    """Remove what a killed process left half-written, and bring back a bundle that it was about to replace.

    Only for a process that holds the lock of the run.
    """
    for left in [*run.glob(".*.part"), *run.glob("scores/.*.part")]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    old = run / ".bundle.old"
    if old.is_dir():
        if (run / "bundle").exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(run / "bundle")


def command_to_resume(run: Path) -> str:
    """What a user types to go on with a run, or with the run that this one is a stage of."""
    beside = run.resolve().parent  # which has no name of its own where the program runs within it
    if (beside / STAGED_FILE).is_file():
        run = beside.with_name(beside.name.removesuffix(STAGES))
    return f"segwright train {shlex.quote(str(run))} --resume"
