"""Texts: JSON and YAML as trees of plain values, CSV as rows of cells."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segwright.errors import DataError
from segwright.files.disk import atomic


def write_text(path: Path, text: str) -> None:
    with atomic(path) as stream:
        stream.write(text.encode("utf-8"))


def write_json(path: Path, tree: Any) -> None:
    """Write JSON; NaN and infinity become null, because no other reader takes them."""
    write_text(path, json.dumps(_finite(tree), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(tree: Any) -> Any:
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    if isinstance(tree, Mapping):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_finite(value) for value in tree]
    return tree


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DataError: the file is missing or is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_without_twins)
    except json.JSONDecodeError as error:
        reason = f"{error.msg}, line {error.lineno}"
    except (ValueError, RecursionError) as error:
        reason = _reason(error)
    raise DataError(f"is no JSON ({reason})", mend="mend or delete the file", file=path)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON and YAML would keep the last of two equal keys and lose the first in silence."""
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key '{twin}' stands twice")
    return tree


def write_yaml(path: Path, tree: Any, *, head: str = "") -> None:
    """Write YAML below a head of comments."""
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
    if any(mark in text for mark in "\x85\u2028\u2029"):
        # Line ends that only Unicode knows would be read as blanks; as escapes they come back.
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=False, width=120)
    write_text(path, head + text)


def read_yaml(path: Path) -> Any:
    """Read YAML with the safe loader.

    Raises:
        DataError: the file is missing, is no YAML, or gives a key twice.
    """
    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _refuse_twins(root, seen=set())
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"is no YAML ({_reason(error)})", mend="mend or delete the file", file=path) from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "brackets within brackets without end"
    return " ".join(str(error).partition("; use sys.")[0].replace('"<unicode string>", ', "").split())


def _refuse_twins(node: yaml.Node, *, seen: set[int]) -> None:
    if id(node) in seen:
        return  # an alias; it may even hold itself
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        # The number 1 and the text '1' are two keys.
        for tag in {key.tag for key, _ in node.value}:
            keys = [key for key, _ in node.value if key.tag == tag and isinstance(key, yaml.ScalarNode)]
            _without_twins([(key.value, None) for key in keys])
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            _refuse_twins(part, seen=seen)


def read_text(path: Path) -> str:
    """Read a UTF-8 text.

    Raises:
        DataError: the file is missing, unreadable or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", mend="check the path", file=path) from None
    except UnicodeDecodeError:
        raise DataError("is no UTF-8 text", mend="check that this is the right file", file=path) from None


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows of cells; numbers get six digits, unknown ones stay empty.

    A text that a spreadsheet would run as a formula (it starts with =, +, -, @, a tab or a line end; OWASP, CSV
    Injection, https://owasp.org/www-community/attacks/CSV_Injection) gets a quote in front; a plain number is none.
    """
    write_text(path, csv_text(rows))


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """The text of a CSV file, see `write_csv`."""
    lines = []
    for row in rows:
        # The writer quotes what its own line ends hold: with both, a lone carriage return in a cell is quoted too.
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow([_cell(value) for value in row])
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6f}"
    runs = isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value)
    return f"'{value}" if runs else str(value)


_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are the wide forms of the first, which spreadsheets in East Asia take for the same."""
