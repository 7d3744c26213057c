"""What the documentation says works: the tutorial is followed, and every command that is shown can be parsed."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from segwright.cli import app, main
from segwright.data import synthetic
from segwright.recipe import make_recipe

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
ELSEWHERE = ("pip ", "make ")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"```(\w+)\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    lines = [line for language, text in blocks(page) if language == "bash" for line in text.splitlines()]
    lines += re.findall(r"`(segwright \w+ [^`]+)`", page.read_text())
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith(ELSEWHERE)]


def test_the_tutorial_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for language, text in blocks(ROOT / "docs" / "tutorial.md"):
        if language == "python":
            exec(compile(text, "tutorial.md", "exec"), {})
            continue
        for words in [shlex.split(line, comments=True) for line in text.splitlines()]:
            if words[0] == "python":
                monkeypatch.setattr(sys, "argv", words[2:])
                synthetic.main()
                continue
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as end:
                main()
            assert not end.value.code, f"{words} left with {end.value.code}"
    assert (tmp_path / "runs/first/report.html").exists()
    assert len(list((tmp_path / "masks").glob("*.png"))) == len(list((tmp_path / "photos/test/images").iterdir()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_parsed(page: Path) -> None:
    root = typer.main.get_command(app)
    for words in commands(page):
        if words[0] == "python":
            assert words[1:3] == ["-m", "segwright.data.synthetic"]
            continue
        assert words[0] == "segwright", f"{page.name} shows {words}"
        if len(words) == 1 or words[1].startswith("-"):
            continue
        context = root.make_context("segwright", words[1:])
        name, command, rest = root.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(name, rest, parent=context)


def test_recipes_that_are_shown_are_recipes() -> None:
    import yaml

    shown = [text for page in PAGES for language, text in blocks(page) if language == "yaml"]
    assert shown
    for text in shown:
        make_recipe(yaml.safe_load(text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
