"""Reading a study file, and the one that it stands on.

    like: study.yaml                        # its keys hold here too, unless they are given
    base: {data: {path: standin.npz}}       # merged with the other base, key by key
    always: {training.minutes: 5, training.epochs: null}
    changes: {wide: {model.arguments.width: 16}, huge: null}

`changes` are of rows of the other file, by their names: keys that are different here, or null for a row that is left
out. `base` and `always` are merged, and ours wins; any other key that is given takes the place of theirs. Paths are
relative to the file that names them. Without a `name` of its own such a study is called after both files, as
`mars-standin`: so it never shares a folder with the study that it is like.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segwright.errors import RecipeError, brief, nearest
from segwright.files import read_yaml, real
from segwright.recipe import make_recipe
from segwright.studies.origins import changes_in_words_of, in_words_of, path_in_words_of
from segwright.studies.study_file import StudyFile, make_study_file


def read_study_file(path: Path) -> StudyFile:
    """Read a study file, whole: with what it takes from the one that it is `like`.

    Raises:
        DataError: it, or a file that it names, is missing or no YAML.
        RecipeError: it has an unknown key or a wrong value, or stands on itself.
    """
    return make_study_file(_whole(path, above=()), file=path)


def base_of(base: Any, folder: Path) -> tuple[dict[str, Any], Path]:
    """A base's tree, which may stand in a file of its own, and the folder that its paths are relative to.

    Raises:
        DataError: the file is missing or no YAML.
        RecipeError: it is no recipe.
    """
    if isinstance(base, dict):
        return base, folder
    file = folder / Path(base).expanduser()
    tree = read_yaml(file)
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of keys", mend="start it with 'data:' or 'model:'", file=file)
    return tree, file.resolve().parent


def name_of(name: Any, path: Path) -> str:
    """What a study is called: its name, else its file, else the folder of a file that is called `study`."""
    return str(name) if name else path.resolve().parent.name if _is_plain(path) else path.stem


def _is_plain(path: Path) -> bool:
    return path.stem in ("study", "STUDY")


def _whole(path: Path, *, above: tuple[Path, ...]) -> dict[str, Any]:
    """The tree of a file without `like`: joined with those that it stands on, each checked by itself."""
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise RecipeError("a study is a mapping of keys", mend="start it with 'base:' or 'like:'", file=path)
    if "like" not in tree:
        return tree
    like = tree["like"]
    if not isinstance(like, str) or not like:
        raise RecipeError(f"'like' = {brief(like)}: must be the path of a study file", file=path)
    folder = _folder_of(tree, path)
    other = folder / Path(like).expanduser()
    around = (*above, real(path))
    if real(other) in around:
        raise RecipeError(f"'like' = '{like}' leads in a circle", mend="let one of these files stand alone", file=path)
    theirs = _whole(other, above=around)
    make_study_file(theirs, file=other)
    return _joined_files(theirs, tree, other=other, path=path, folder=folder)


def _folder_of(tree: Mapping[str, Any], path: Path) -> Path:
    told = tree.get("folder")
    return Path(told) if isinstance(told, str) else path.resolve().parent


def _joined_files(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], *, other: Path, path: Path, folder: Path
) -> dict[str, Any]:
    moved = _moved(theirs, file=other, folder=folder)
    own = {key: value for key, value in ours.items() if key not in ("like", "changes")}
    if isinstance(own.get("base"), str | dict):
        base, origin = base_of(own["base"], folder)
        own["base"] = in_words_of(base, origin=origin, folder=folder)
    merged = {**moved, **own}
    if ours.get("changes"):
        merged["list"] = _changed_rows(merged.get("list", ()), ours["changes"], file=path)
    for key in ("base", "always"):
        if key in moved and key in own:
            merged[key] = _joined(moved[key], own[key])
    if not own.get("name"):
        own_name = name_of(None, path)
        merged["name"] = own_name if _is_plain(path) else f"{name_of(theirs.get('name'), other)}-{own_name}"
    return merged


def _changed_rows(rows: Any, changes: Any, *, file: Path) -> list[Any]:
    """The rows of the other file, some of them different or left out."""
    if not isinstance(changes, Mapping) or not all(isinstance(own, Mapping | None) for own in changes.values()):
        mend = "write {name of a row: {key: value}}, or null to leave the row out"
        raise RecipeError(f"'changes' = {brief(changes)}: must name rows and their keys", mend=mend, file=file)
    names = [row.get("name") for row in rows]
    unknown = next((name for name in changes if name not in names), None)
    if unknown is not None:
        raise RecipeError(
            f"'changes' names '{unknown}', which is no row", mend=nearest(str(unknown), filter(None, names)), file=file
        )
    own = [changes.get(name, {}) for name in names]
    return [{**row, **more} for row, more in zip(rows, own, strict=True) if more is not None]


def _joined(theirs: Any, ours: Any) -> Any:
    """Mappings key by key, all else ours."""
    if not isinstance(theirs, Mapping) or not isinstance(ours, Mapping):
        return ours
    both = {key: _joined(theirs[key], ours[key]) for key in theirs if key in ours}
    return {**theirs, **ours, **both}


def _moved(tree: Mapping[str, Any], *, file: Path, folder: Path) -> dict[str, Any]:
    """A checked tree whose paths are told from another folder."""
    origin = _folder_of(tree, file)

    def told(changes: Mapping[str, Any]) -> dict[str, Any]:
        return changes_in_words_of(folder, changes, origin=origin)

    moved = {key: value for key, value in tree.items() if key != "folder"}
    base, place = base_of(tree["base"], origin)
    make_recipe(base, file=file)
    moved["base"] = in_words_of(base, origin=place, folder=folder)
    for key in ("grid", "always"):
        if tree.get(key):
            moved[key] = told(tree[key])
    if tree.get("list"):
        moved["list"] = [told(_with_data_path(row)) for row in tree["list"]]
    if tree.get("random"):
        moved["random"] = {**tree["random"], "keys": told(tree["random"]["keys"])}
    if tree.get("needs"):
        needs = [{"in_data": need["path"], **need} for need in tree["needs"]]
        moved["needs"] = [
            {**need, "path": path_in_words_of(need["path"], origin=origin, folder=folder)} for need in needs
        ]
    return moved


def _with_data_path(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row whose `source` stands under the key that it is short for."""
    if "source" not in row:
        return row
    return {key: value for key, value in row.items() if key != "source"} | {"data.path": row["source"]}
