"""All keys of a recipe as tables: what each may be, what it is where nothing is said, and what it means.

They are read off the models of `branches.py`, for `segwright keys` and for the page of the documentation, which
`python -m segwright.recipe.keys > docs/recipe.md` writes.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from segwright.errors import RecipeError, nearest
from segwright.recipe import STAGE_BRANCHES, Part, Recipe

HEADS = ("key", "values", "default", "what")
"""Of the columns of a table."""


@dataclass(frozen=True)
class Key:
    """A row.

    Attributes:
        name: all of it, such as `data.split.kind`.
        values: what it may be, in words.
        default: what it is where nothing is said, as YAML.
        line: what it means.
    """

    name: str
    values: str
    default: str
    line: str

    @property
    def last(self) -> str:
        """The name without the parts that it stands in."""
        return self.name.rpartition(".")[2]

    def as_row(self) -> list[str]:
        """Cells, as `HEADS` names them."""
        return [self.name, self.values, self.default, self.line]


@dataclass(frozen=True)
class KeyTable:
    """The keys of one part of a recipe.

    Attributes:
        name: of the part, such as `data.split`.
        text: what the part is about.
        keys: without those of parts within it.
    """

    name: str
    text: str
    keys: tuple[Key, ...]


def key_tables() -> tuple[KeyTable, ...]:
    """All keys, part by part, in the order in which a recipe is written."""
    schema = Recipe.model_json_schema()
    stages = f"list of mappings: a name, and any of {', '.join(STAGE_BRANCHES)}"
    single = [
        KeyTable(name, "", (Key(name, stages if name == "stages" else _values(found), _default(name), _line(found)),))
        for name, found in schema["properties"].items()
        if _part_of(Recipe, name) is None
    ]
    return (*_tables_below(Recipe, "", schema["$defs"]), *single)


def _tables_below(branch: type[Part], path: str, parts: Mapping[str, Any]) -> Iterator[KeyTable]:
    for name in branch.model_fields:
        part = _part_of(branch, name)
        if part is None:
            continue
        below = f"{path}{name}."
        own = {key: found for key, found in parts[part.__name__]["properties"].items() if _part_of(part, key) is None}
        keys = (Key(below + key, _values(found), _default(below + key), _line(found)) for key, found in own.items())
        yield KeyTable(path + name, inspect.cleandoc(part.__doc__ or ""), tuple(keys))
        yield from _tables_below(part, below, parts)


def _part_of(branch: type[Part], name: str) -> type[Part] | None:
    """The part that a key stands for; None where it holds a value."""
    kind = branch.model_fields[name].annotation
    return kind if isinstance(kind, type) and issubclass(kind, Part) else None


def _line(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", ""))


def _default(name: str) -> str:
    value: Any = Recipe().as_dict()
    for step in name.split("."):
        value = value[step]
    return _yaml(value)


def _yaml(value: object) -> str:
    """A value as it stands in a file, on one line.

    >>> _yaml(None), _yaml("auto"), _yaml([0.5, 0.75])
    ('null', 'auto', '[0.5, 0.75]')
    """
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _values(schema: Mapping[str, Any], *, several: bool = False) -> str:
    """What a JSON schema allows, in words.

    >>> _values({"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}})
    'list of numbers, 0 to 1'
    """
    if "anyOf" in schema:
        return ", or ".join(_values(one, several=several) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(_yaml, schema.get("enum", [schema.get("const")])))
    kind, plural = schema["type"], "s" if several else ""
    if kind == "array":
        fixed = schema.get("prefixItems")
        count = f"{len(fixed)} " if fixed else ""
        return f"list{plural} of {count}{_values(fixed[0] if fixed else schema['items'], several=True)}"
    words = {"integer": "whole number", "number": "number", "string": "text", "object": "mapping"}
    bounds = _range(schema)
    plain = {"boolean": "true, false", "null": "null"}
    return plain.get(kind) or words[kind] + plural + (f", {bounds}" if bounds else "")


def _range(schema: Mapping[str, Any]) -> str:
    """The bounds of a number, in words.

    >>> _range({"type": "integer", "minimum": 0, "exclusiveMaximum": 256})
    '0 to 255'
    """
    low, high, below = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMaximum")
    if below is not None and schema["type"] == "integer":
        high, below = below - 1, None
    if low is not None:
        until = (
            f" to {_number(high)}" if high is not None else f" to below {_number(below)}" if below is not None else ""
        )
        return f"{_number(low)}{until}" if until else f"at least {_number(low)}"
    limits = (("above", schema.get("exclusiveMinimum")), ("at most", high), ("below", below))
    return ", ".join(f"{word} {_number(value)}" for word, value in limits if value is not None)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def tables_from(beginning: str) -> tuple[KeyTable, ...]:
    """The tables of the keys whose names begin so, without the other keys.

    Args:
        beginning: such as `augment`, `data.split` or `mix.paste`; nothing for all.

    Raises:
        RecipeError: no key begins so.
    """
    tables = key_tables()
    chosen = [
        KeyTable(table.name, table.text, tuple(key for key in table.keys if key.name.startswith(beginning)))
        for table in tables
    ]
    found = tuple(table for table in chosen if table.keys)
    if not found:
        raise RecipeError(f"no key begins with '{beginning}'", mend=_nearest_keys(beginning, tables))
    return found


def _nearest_keys(beginning: str, tables: tuple[KeyTable, ...]) -> str:
    """The keys of the part that is named, if there is one; else what is called alike, and all parts."""
    for table in tables:
        if beginning.startswith(f"{table.name}.") and "." not in beginning.removeprefix(f"{table.name}."):
            return nearest(beginning, [key.name for key in table.keys])
    word = beginning.rpartition(".")[2]
    named: dict[str, list[str]] = {}
    for table in tables:
        named.setdefault(table.name, []).append(table.name)
        for key in table.keys:
            named.setdefault(key.last, []).append(key.name)
    close = difflib.get_close_matches(word, named, n=2, cutoff=0.6)
    close += [last for last in named if len(word) > 1 and word in last and last not in close][:3]
    alike = list(dict.fromkeys(name for last in close for name in named[last]))
    menu = f"There are: {', '.join(table.name for table in tables)}"
    return f"did you mean {' or '.join(alike)}? {menu}" if alike else menu


def as_page() -> str:
    """The page of the documentation, as Markdown."""
    return "\n".join([_OPENING, *(_section(table) for table in key_tables())])


_OPENING = """\
<!-- Written by: python -m segwright.recipe.keys > docs/recipe.md -->

# All keys of a recipe

A recipe decides a run. It is a YAML file, as in [How to train](how-to/train.md#change-the-recipe); a key that it does
not name has its default. One key is set with `-o`, such as `-o optimizer.lr=3e-4` or `-o data.split.kind=kfold`.
Unknown keys and values out of range are refused. `null` is YAML's word for nothing; what it means for a key stands
beside it.

`segwright keys` prints these tables, `segwright keys augment` the keys that begin so.
"""


def _section(table: KeyTable) -> str:
    rows = [[f"`{key.name}`", key.values, f"`{key.default}`", key.line] for key in table.keys]
    lines = [f"## {table.name}", *([table.text] if table.text else []), markdown_table(HEADS, rows)]
    return "\n\n".join(lines) + "\n"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(as_page())
