"""How the command line speaks: examples below the help, tables, and where results went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segwright.errors import one_line


def examples(*lines: str) -> str:
    """Examples for the foot of a help page, one a line."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"  {line}".replace("[", r"\[") for line in lines)])


def show_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table.

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

    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", no_wrap=head in right)
    for row in rows:
        table.add_row(*(escape(one_line(cell)) for cell in row))
    Console().print(table)


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
