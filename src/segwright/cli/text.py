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
    columns = list(zip(heads, *texts, strict=True))
    widths = [_least_width(column, wraps=column[0] not in right) for column in columns]
    whole = [_least_width(column, wraps=False) for column in columns]
    room = console.width - _EDGE
    for number, part in enumerate(_parts(widths, room=room)):
        table = Table(title=None if number else escape(title), title_justify="left", box=box.SIMPLE_HEAD)
        # Rich shares too little room out evenly, and would cut the words of one column to wrap another.
        shares = _shares([widths[place] for place in part], [whole[place] for place in part], room=room)
        for place, share in zip(part, shares, strict=True):
            number_like = heads[place] in right
            table.add_column(
                escape(one_line(heads[place])),
                justify="right" if number_like else "left",
                no_wrap=number_like,
                width=max(1, min(share, room) - _SPACING),
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


def _shares(least: Sequence[int], whole: Sequence[int], *, room: int) -> list[int]:
    """Widths of columns that stand beside each other: what each needs, and of the rest as much as the others.

    >>> _shares([10, 5, 5], [10, 8, 40], room=40)
    [10, 8, 22]
    """
    shares = list(least)
    for _ in range(room - sum(least)):
        short = [place for place, share in enumerate(shares) if share < whole[place]]
        if not short:
            break
        shares[min(short, key=lambda place: shares[place] - least[place])] += 1
    return shares


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
