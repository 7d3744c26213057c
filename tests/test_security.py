"""What the source itself must never do: see docs/security.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import segwright

SOURCE = sorted(Path(segwright.__file__).parent.rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, dict[str, ast.expr], int]]:
    """Name, keywords and line of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}, node.lineno


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: path.name)
def test_nothing_read_can_run_code(path: Path) -> None:
    for name, told, line in calls(path):
        where = f"{path}:{line}"
        assert name not in {"eval", "exec", "os.system", "os.popen", "compile", "__import__"}, where
        assert not name.startswith(("pickle.", "joblib.", "dill.", "marshal.", "shelve.")), where
        assert not name.endswith(("yaml.load", "unsafe_load")), where
        assert "shell" not in told or not name.startswith("subprocess."), where
        if name.endswith("np.load"):
            assert ast.unparse(told["allow_pickle"]) == "False", where
        if name.endswith("torch.load"):
            assert ast.unparse(told["weights_only"]) == "True", where


def test_every_template_escapes() -> None:
    made = [(told, line, path) for path in SOURCE for name, told, line in calls(path) if name.endswith("Environment")]
    assert made
    for told, line, path in made:
        assert ast.unparse(told["autoescape"]) == "True", f"{path}:{line}"
