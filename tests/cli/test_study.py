"""`segwright study`: the plan of a study, real runs, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segwright import verbs
from segwright.cli import main
from segwright.errors import RecipeError
from segwright.studies.estimate import estimate
from segwright.studies.grid import read_study, trials
from segwright.studies.state import place_of

TINY = {
    "model": {"name": "unet", "encoder": None, "arguments": {"width": 4, "depth": 2}},
    "training": {"epochs": 20, "batch_size": 4, "precision": "fp32"},
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    for number in range(12):
        mask = (np.arange(32)[None] >= rng.integers(8, 24)).repeat(32, axis=0).astype(np.uint8)
        image = np.clip(mask * 120 + 60 + rng.normal(0, 12, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / "images" / f"{number:02d}.png")
        Image.fromarray(mask).save(tmp_path / "photos" / "masks" / f"{number:02d}.png")
    rows = [{"name": "ce", "loss.formula": "ce"}, {"name": "slow", "training.minutes": 2, "training.epochs": None}]
    tree = {"base": {"data": {"path": "photos"}, **TINY}, "list": rows, "seeds": [0, 1]}
    (tmp_path / "losses.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "losses.yaml"


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["segwright", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_dry_run_tells_time_and_disk_and_trains_nothing(study, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert call(monkeypatch, "study", str(study), "-o", str(out), "--dry-run", "--jobs", "1") == 0
    told = capsys.readouterr().out
    assert "4 runs" in told
    assert "To be trained: 4 runs, about " in told
    assert told.count("missing") == 4
    assert not out.exists()


def test_what_is_done_costs_nothing_and_what_cannot_be_built_is_told(study, tmp_path):
    tree = yaml.safe_load(study.read_text())
    tree["list"].append({"name": "odd", "model.arguments": {"widht": 4}})
    study.write_text(yaml.safe_dump({**tree, "seeds": [0]}))
    every = trials(read_study(study))
    done = place_of(tmp_path / "out", every[0].name).run
    for part in ("scores/val.json", "bundle/bundle.json"):
        (done / part).parent.mkdir(parents=True)
        (done / part).write_text("{}")
    plan = estimate(every, tmp_path / "out", jobs=2)
    ce, slow, odd = plan.runs
    assert (ce.state, ce.minutes) == ("done", None)
    assert slow.minutes is not None
    assert 2 <= slow.minutes < 3
    # 2,000 weights at least, in the bundle and, with their average and two moments, in the last state.
    assert 20_000 < slow.size_bytes < 2_000_000
    assert odd.minutes is None
    assert "widht" in odd.note
    assert plan.wall_minutes == pytest.approx(slow.minutes / 2)


def test_rows_and_seeds_that_are_not_there(study, monkeypatch, capsys):
    assert call(monkeypatch, "study", str(study), "--only", "dice") == 2
    assert "there is no row 'dice'" in capsys.readouterr().err
    assert call(monkeypatch, "study", str(study), "--seeds", "0;1") == 2
    assert "write 0,1,2" in capsys.readouterr().err.lower()
    assert call(monkeypatch, "study", str(study), "--learning-curve", "--only", "ce") == 2
    with pytest.raises(RecipeError, match="there is no seed 7"):
        verbs.plan_study(study, seeds=[7])
