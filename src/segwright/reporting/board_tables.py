"""A leaderboard as a table: rows of texts for a terminal, CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segwright.errors import OutputError, one_line
from segwright.files import csv_text, write_text
from segwright.reporting.frame import is_report
from segwright.studies.leaderboard import TOO_CLOSE, Difference, Leaderboard, Row

NOTHING = "–"
FIGURE_KEYS = {"miou": "mIoU", "dice": "Dice", "pixel_accuracy": "pixel accuracy"}


def heads(table: Leaderboard, *, classes: bool = True) -> list[str]:
    """The columns of the table for people."""
    told = ["row", "mIoU", "sd", "seeds", "95 % interval", "to the best", "p"]
    if table.baseline is not None:
        told += [f"to {table.baseline}", "p "]
    told += [f"in the paper: {FIGURE_KEYS.get(key, key)}" for key in table.figures]
    if classes:
        told += list(table.classes.names)
    return [*told, "minutes", "M parameters", "images/s", "verdict"]


def cells(table: Leaderboard, row: Row, *, classes: bool = True) -> list[str]:
    """A row of the table for people, a text for each of `heads`."""
    told = [row.name, number(row.miou.estimate), number(row.deviation), str(row.seeds), _range(row)]
    told += _difference(row.to_best)
    if table.baseline is not None:
        told += _difference(row.to_baseline)
    told += [_figure(row.figure.get(key)) for key in table.figures]
    if classes:
        told += [number(value, 3) for value in row.iou] or [NOTHING] * table.classes.num_classes
    cost = row.cost
    millions = None if cost.parameters is None else cost.parameters / 1e6
    return [*told, number(cost.minutes, 1), number(millions, 2), number(cost.images_per_second, 0), said(table, row)]


def number(value: float | None, digits: int = 4) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _range(row: Row) -> str:
    return NOTHING if math.isnan(row.miou.low) else f"{row.miou.low:.4f} to {row.miou.high:.4f}"


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return [NOTHING, NOTHING]
    return [f"{found.gap.comparison.difference.estimate:+.4f}", p_text(found.p_value)]


def p_text(value: float) -> str:
    """A p-value as it is read: never as zero."""
    if math.isnan(value):
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else NOTHING if value is None else one_line(str(value))


def said(table: Leaderboard, row: Row) -> str:
    """What is to be said of a row in words: against the baseline where there is one, else against the best."""
    parts = []
    if row.to_best is None and not math.isnan(row.miou.low) and row is table.rows[0]:
        parts.append("best")
    found = row.to_baseline if table.baseline is not None and row.to_baseline is not None else row.to_best
    if found is not None:
        parts.append(verdict(found))
    return "; ".join([*parts, *([row.note] if row.note else [])])


def verdict(found: Difference) -> str:
    """A difference in words, with what would settle it."""
    if found.verdict == "one seed":
        return f"one seed: train more to tell it from {found.to}"
    if found.verdict != TOO_CLOSE:
        return f"{found.verdict} than {found.to}"
    return f"{TOO_CLOSE} with {found.to}{settled_by(found)}"


def settled_by(found: Difference) -> str:
    """`; about 900 images or 8 seeds would settle it`."""
    if found.needed is None or (found.needed.units is None and found.needed.seeds is None):
        return "; no number of images or seeds in reach would settle it"
    ways = []
    if found.needed.units is not None:
        ways.append(f"{_round(found.needed.units):,} images or groups (now {found.gap.units})")
    if found.needed.seeds is not None:
        ways.append(f"{_round(found.needed.seeds)} seeds (now {found.gap.seeds})")
    return f"; about {' or '.join(ways)} would settle it"


def _round(count: int) -> int:
    """Two digits: more are not known."""
    return count if count < 100 else round(count, 2 - len(str(count)))


def markdown(table: Leaderboard) -> str:
    """As a Markdown table, with what it means below."""
    columns = heads(table)
    lines = [_markdown_line(columns), _markdown_line(["---", *["---:"] * (len(columns) - 2), "---"])]
    lines += [_markdown_line(cells(table, row)) for row in table.rows]
    return "\n".join([*lines, "", *footnotes(table)]) + "\n"


def _markdown_line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(re.sub(r"([|\\`*_<>\[\]])", r"\\\1", one_line(text)) for text in texts) + " |"


def latex(table: Leaderboard) -> str:
    r"""As a LaTeX table of the package booktabs; the best mIoU is bold."""
    columns = heads(table)[:-1]
    lines = [
        "% needs \\usepackage{booktabs}",
        *(f"% {line}" for line in footnotes(table)),
        "\\begin{tabular}{l" + "r" * (len(columns) - 1) + "}",
        "\\toprule",
        " & ".join(_tex(head) for head in columns) + r" \\",
        "\\midrule",
    ]
    for place, row in enumerate(table.rows):
        texts = [_tex(text) for text in cells(table, row)[:-1]]
        if place == 0:
            texts[1] = f"\\textbf{{{texts[1]}}}"
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


_TEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$",
    "–": "--", "|": r"$|$", **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(mark, mark) for mark in one_line(text))


def footnotes(table: Leaderboard) -> list[str]:
    """What the numbers mean, in a few sentences."""
    units = f"{table.images} images" + ("" if table.units == table.images else f" in {table.units} groups")
    told = [
        f"{table.split}: {units}, {table.runs} runs. {table.sentence}",
        "The score of a row is the mean over its seeds; sd is over seeds. Intervals and p-values draw images (or "
        "groups) and seeds anew; p is Holm-corrected over the rows.",
    ]
    if any(row.seeds == 1 for row in table.rows):
        told.append("A row of one seed: its interval is about images alone and says nothing of other seeds.")
    return told


_FIRST_HEADS = ("row", "seeds", "miou")


def table_rows(table: Leaderboard) -> list[list[Any]]:
    """The table for programs: plain numbers, one column each, heads first."""
    names = [*_FIRST_HEADS, "sd", "low", "high"]
    parts = ["difference", "low", "high", "p", "p_holm", "verdict"]
    names += [f"to_best {part}" for part in parts] + [f"to_baseline {part}" for part in parts]
    names += [f"paper {key}" for key in table.figures] + [f"iou {name}" for name in table.classes.names]
    rows: list[list[Any]] = [[*names, "minutes", "parameters", "images_per_second", "note"]]
    for row in table.rows:
        cost = [row.cost.minutes, row.cost.parameters, row.cost.images_per_second]
        rows.append([
            row.name, row.seeds, row.miou.estimate, row.deviation, row.miou.low, row.miou.high,
            *_plain(row.to_best), *_plain(row.to_baseline),
            *(_blank(row.figure.get(key)) for key in table.figures),
            *(row.iou or [math.nan] * table.classes.num_classes), *map(_blank, cost), row.note,
        ])  # fmt: skip
    return rows


def _plain(found: Difference | None) -> list[Any]:
    if found is None:
        return [""] * 6
    comparison = found.gap.comparison
    edges = comparison.difference
    return [edges.estimate, edges.low, edges.high, comparison.p_value, found.p_value, found.verdict]


def _blank(value: Any) -> Any:
    return "" if value is None else value


def csv_lines(table: Leaderboard) -> list[str]:
    """The lines of `results.csv`."""
    return csv_text(table_rows(table)).splitlines()


TABLE_FILES = ("results.csv", "leaderboard.md", "leaderboard.tex")


def require_ours(folder: Path, page: Path) -> None:
    """Make sure that no file is overwritten that segwright did not write.

    Args:
        folder: where tables are to be written.
        page: the page beside them, by which the others are known as ours.

    Raises:
        OutputError: another file stands there.
    """
    table, *others = (folder / name for name in TABLE_FILES)
    strange = [table] if table.is_file() and not _begins_as_ours(table) else []
    if not is_report(page):
        strange += [file for file in (*others, page) if file.exists()]
    if strange:
        mend = "move it, or make the table of another folder"
        raise OutputError("stands there, and segwright did not write it", mend=mend, file=strange[0])


def _begins_as_ours(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.readline().startswith(",".join(_FIRST_HEADS).encode())


def write_tables(table: Leaderboard, folder: Path) -> list[Path]:
    """Write `results.csv`, `leaderboard.md` and `leaderboard.tex` into a study's folder."""
    texts = (csv_text(table_rows(table)), f"# {one_line(table.name)}\n\n{markdown(table)}", latex(table))
    files = [folder / name for name in TABLE_FILES]
    for file, text in zip(files, texts, strict=True):
        write_text(file, text)
    return files
