"""What the help pages print is what was written: brackets are no markup."""

from __future__ import annotations

import pytest
import typer
from rich.text import Text

from segwright.cli import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_part_of_a_help_text_is_taken_for_markup(name: str) -> None:
    texts = [COMMANDS[name].help or "", *(getattr(one, "help", None) or "" for one in COMMANDS[name].params)]
    for text in texts:
        assert Text.from_markup(text).plain == text.replace("\\[", "[")
