"""`segwright cache`: how much room decoded images take, and how to get it back."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from segwright.cli.text import examples, say, show_table, shown, size_text

EXAMPLES = examples("segwright cache", "segwright cache clear")


def cache(
    what: Annotated[
        Literal["show", "clear"], typer.Argument(help="clear deletes the packs that no process uses.")
    ] = "show",
) -> None:
    """Show the packs of decoded images, or clear them; images are decoded again when next needed."""
    if what == "clear":
        _clear()
    else:
        _show()


def _show() -> None:
    from segwright.data.pack_cache import cache_entries, cache_folder

    entries = cache_entries()
    rows = [[entry.root, str(entry.images), size_text(entry.size_bytes)] for entry in entries]
    if rows:
        show_table("Packs of decoded images", ["source", "images", "size"], rows, right=("images", "size"))
    total = size_text(sum(entry.size_bytes for entry in entries))
    say(f"{len(entries)} packs, {total}, in {shown(cache_folder())}")


def _clear() -> None:
    from segwright.data.pack_cache import clear_cache

    count, size = clear_cache()
    say(f"Deleted {count} packs, {size_text(size)}.")
