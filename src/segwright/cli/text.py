"""How the command line speaks: examples below the help, tables, and where results went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segwright.errors import one_line


def examples(*lines: str) -> str:
    """Examples for the foot of a help page, one a line."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"  {line}".replace("[", r"\[") for line in lines)])


def show_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table; one too wide for the terminal in several parts, each with the first column.

    Args:
        title: stands above it.
        heads: of the columns.
        rows: the cells, as plain texts.
        right: heads of the columns that are aligned to the right.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(emoji=False)
    texts = [[one_line(cell) for cell in row] for row in rows]
    widths = [_least_width(column, wraps=column[0] not in right) for column in zip(heads, *texts, strict=True)]
    for number, part in enumerate(_parts(widths, room=console.width - _EDGE)):
        table = Table(title=None if number else escape(title), title_justify="left", box=box.SIMPLE_HEAD)
        for place in part:
            head = heads[place]
            number_like = head in right
            # Rich shares too little room out evenly, and would cut the words of one column to wrap another.
            least = widths[place] - _SPACING
            table.add_column(
                escape(one_line(head)),
                justify="right" if number_like else "left",
                no_wrap=number_like,
                min_width=min(least, console.width - _EDGE - _SPACING),
            )
        for row in texts:
            table.add_row(*(escape(row[place]) for place in part))
        console.print(table)


_SPACING = 3
"""Between columns."""

_EDGE = 1
"""Left of the first column."""


def _least_width(texts: Sequence[str], *, wraps: bool) -> int:
    """The least that a column needs, with its spacing: its longest text, or the longest word where texts may wrap."""
    from rich.cells import cell_len

    return _SPACING + max(cell_len(word) for text in texts for word in (text.split() or [""] if wraps else [text]))


def _parts(widths: Sequence[int], *, room: int) -> list[list[int]]:
    """Places of columns that stand beside each other; the first stands in each part.

    >>> _parts([10, 20, 20, 20], room=52)
    [[0, 1, 2], [0, 3]]
    """
    parts = [[0]]
    for place in range(1, len(widths)):
        part = parts[-1]
        if len(part) > 1 and sum(widths[one] for one in part) + widths[place] > room:
            parts.append([0, place])
        else:
            part.append(place)
    return parts


def say(text: str) -> None:
    """Print a line as it is, however long."""
    from rich.console import Console

    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def shown(path: Path) -> str:
    """A path as short as it can be given again."""
    try:
        return one_line(str(path.resolve().relative_to(Path.cwd())))
    except ValueError:
        return one_line(str(path))


def size_text(size_bytes: int) -> str:
    """Bytes in the unit that people read.

    >>> size_text(3 * 2**20)
    '3.0 MiB'
    """
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
