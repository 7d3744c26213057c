"""Names and colours of classes: read from the small files that lie beside data sets, or a fixed set.

Read are `classes.txt`, `class_names.txt`, `labels.txt` (a name a line), `classes.json` (names, or names with values or
colours), `class_dict.csv` or `class_dict_seg.csv` (name, r, g, b), `label_colors.txt` (r g b name, as in CamVid) and
`labelmap.txt` (name:r,g,b, as written by CVAT). The fixed colours are those of Okabe and Ito, then Paul Tol's muted
set, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/, https://sronpersonalpages.nl/~pault/).
"""

from __future__ import annotations

import colorsys
import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.errors import DataError
from segwright.files import read_json, read_text

Color = tuple[int, int, int]

_DISTINCT = (
    "E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7 999999 332288 "
    "88CCEE 44AA99 117733 DDCC77 CC6677 882255 AA4499 661100 6699CC"
)


@dataclass(frozen=True)
class ClassHint:
    """What a file beside the images says about the classes.

    Attributes:
        names: in label order.
        colors: one a class, or empty.
        values: the value in the masks of each class, or empty.
        file: where it was read.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] = ()
    values: tuple[int, ...] = ()
    file: Path | None = None


def default_colors(count: int) -> tuple[Color, ...]:
    """`count` colours, all different, the first 18 easy to tell apart for everyone."""
    colors = [color_of(int(code, 16)) for code in _DISTINCT.split()]
    step = 0
    while len(colors) < count:
        # The golden angle never lands on the same hue twice; three rings of lightness keep neighbours apart.
        red, green, blue = colorsys.hls_to_rgb(step * 0.618034 % 1, (0.35, 0.5, 0.65)[step % 3], 0.65)
        color = (round(red * 255), round(green * 255), round(blue * 255))
        if color not in colors:
            colors.append(color)
        step += 1
    return tuple(colors[:count])


def color_of(code: int) -> Color:
    """0xRRGGBB as (red, green, blue)."""
    return code >> 16 & 255, code >> 8 & 255, code & 255


def code_of(color: Color) -> int:
    """(red, green, blue) as 0xRRGGBB."""
    return color[0] << 16 | color[1] << 8 | color[2]


def find_classes(folder: Path) -> ClassHint | None:
    """The first class file in a folder; None where there is none.

    Raises:
        DataError: the file is there and cannot be understood.
    """
    for name, parse in _PARSERS.items():
        path = folder / name
        if path.is_file():
            hint = parse(path)
            if not hint.names:
                raise DataError("names no class", mend="write one class name a line, or delete it", file=path)
            return hint
    return None


def _names_by_line(path: Path) -> ClassHint:
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    numbered = [re.fullmatch(r"(\d+)\s*[\s:,;=]\s*(.+)", line) for line in lines]
    if all(numbered) and [int(match[1]) for match in numbered if match] == list(range(len(lines))):
        lines = [match[2] for match in numbered if match]
    return ClassHint(tuple(lines), file=path)


def _names_and_colors_by_line(path: Path) -> ClassHint:
    """`64 128 64 Animal` a line, in any white space."""
    rows = [line.split(None, 3) for line in read_text(path).splitlines() if line.strip()]
    return _table([(row[3] if len(row) == 4 else "", row[:3]) for row in rows], path)


def _color_csv(path: Path) -> ClassHint:
    """`name,r,g,b` with or without a heading."""
    rows = [row for row in csv.reader(read_text(path).splitlines()) if row]
    if rows and not rows[0][-1].strip().isdigit():
        rows = rows[1:]
    return _table([(row[0], row[1:4]) for row in rows], path)


def _label_map(path: Path) -> ClassHint:
    """`name:r,g,b:parts:actions` a line; `#` starts a comment."""
    lines = [line.split(":") for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    return _table([(row[0], row[1].split(",") if len(row) > 1 else []) for row in lines], path)


def _table(rows: list[tuple[str, list[str]]], path: Path) -> ClassHint:
    return ClassHint(
        names=tuple(name.strip() for name, _ in rows), colors=tuple(_color(color, path) for _, color in rows), file=path
    )


def _class_json(path: Path) -> ClassHint:
    """A list of names or of {name, value, color}; or a mapping name -> value or colour, or label -> name."""
    tree: Any = read_json(path)
    if isinstance(tree, dict):
        if tree and all(isinstance(name, str) for name in tree.values()):
            tree = [{"name": name, "value": _whole(label, path)} for label, name in tree.items()]
        else:
            tree = [{"name": name, "color" if isinstance(what, list) else "value": what} for name, what in tree.items()]
    if not isinstance(tree, list) or not all(isinstance(one, (str, dict)) for one in tree):
        raise DataError(
            "is no list of classes", mend='write ["sky", "soil"] or [{"name": "sky", "value": 0}]', file=path
        )
    rows = [{"name": one} if isinstance(one, str) else one for one in tree]
    if not all(isinstance(row.get("name"), str) for row in rows):
        raise DataError("holds a class without a name", mend='give every class a "name"', file=path)
    values = tuple(_whole(row["value"], path) for row in rows if row.get("value") is not None)
    colors = tuple(_color(row["color"], path) for row in rows if row.get("color") is not None)
    if len(values) not in (0, len(rows)) or len(colors) not in (0, len(rows)):
        raise DataError("gives only some classes a value or a colour", mend="give all or none of them one", file=path)
    return ClassHint(tuple(row["name"] for row in rows), colors=colors, values=values, file=path)


def _whole(value: object, path: Path) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise DataError(f"'{value}' is no mask value", mend="give a whole number", file=path) from None


def _color(parts: object, path: Path) -> Color:
    try:
        red, green, blue = (int(str(part)) for part in parts)  # type: ignore[attr-defined]  # a wrong kind is the case caught here
    except (TypeError, ValueError):
        raise DataError(f"'{parts}' is no colour", mend="give red, green and blue as 0 to 255", file=path) from None
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise DataError(f"'{parts}' is no colour", mend="give red, green and blue as 0 to 255", file=path)
    return red, green, blue


_PARSERS: dict[str, Callable[[Path], ClassHint]] = {
    "classes.json": _class_json,
    "classes.txt": _names_by_line,
    "class_names.txt": _names_by_line,
    "labels.txt": _names_by_line,
    "class_dict.csv": _color_csv,
    "class_dict_seg.csv": _color_csv,
    "label_colors.txt": _names_and_colors_by_line,
    "labelmap.txt": _label_map,
}
