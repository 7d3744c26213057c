"""`segwright keys`: on a narrow terminal, without PyTorch, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segwright.cli import main
from segwright.recipe.keys import key_tables


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["segwright", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_every_key_is_printed_whole_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, "keys") == 0
    told = capsys.readouterr().out
    keys = [key for table in key_tables() for key in table.keys]
    words = told.split()
    assert {key.name for key in keys} <= set(words)
    # No cell is cut off at the edge, and no word is parted.
    assert {word for key in keys for word in f"{key.values} {key.default} {key.line}".split()} <= set(words)
    tables = told[: told.rindex("Set one with")]
    assert max(map(len, tables.splitlines())) <= 80


def test_a_beginning_prints_these_keys_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "keys", "data.split") == 0
    told = capsys.readouterr().out
    assert "data.split.kind" in told
    assert "data.path" not in told


def test_an_unknown_beginning_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "keys", "agument") == 2
    told = capsys.readouterr()
    assert told.err.startswith("segwright: no key begins with 'agument'. Did you mean")
    assert "augment" in told.err
    assert not told.out


def test_keys_do_not_wait_for_pytorch() -> None:
    code = (
        "import sys; sys.argv = ['segwright', 'keys']; from segwright.cli import main\n"
        "try: main()\nexcept SystemExit as end: code = end.code\n"
        "sys.exit('torch' if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
