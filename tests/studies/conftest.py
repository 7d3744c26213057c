from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.files import write_arrays, write_json, write_yaml
from segwright.studies.grid import read_study, trials

CLASSES: dict[str, Any] = {
    "names": ["sky", "soil", "rock"], "colors": [[0, 0, 0], [90, 90, 90], [200, 90, 0]],
    "ignore_in_loss": [], "ignore_in_score": [0], "leave_out_of_mean": [], "never_predict": [],
}  # fmt: skip
IDS = [f"{i:03d}" for i in range(60)]
STUDY: dict[str, Any] = {
    "name": "losses", "question": "Which loss?", "base": {"data": {"path": "photos"}}, "seeds": [0, 1, 2],
    "list": [{"name": "ce"}, {"name": "dice", "loss.formula": "dice", "figure": {"miou": 0.5}},
             {"name": "jaccard", "loss.formula": "jaccard"}],
    "baseline": "ce",
}  # fmt: skip

Confusion = Callable[..., np.ndarray]
WriteRun = Callable[..., None]
WriteStudy = Callable[..., Path]


@pytest.fixture(scope="session")
def confusion() -> Confusion:
    """Makes the counts of images of unlike difficulty, which all runs share; `seed` is of the run."""

    def make(right: float, *, seed: int, images: int = 60) -> np.ndarray:
        hard = np.random.default_rng(99).normal(0, 0.05, images)[:, None]
        rng = np.random.default_rng(seed)
        pixels = np.random.default_rng(98).integers(50, 200, (images, 3))
        hits = rng.binomial(pixels, np.clip(right + hard, 0.01, 0.99))
        counts = np.zeros((images, 3, 3), dtype=np.int64)
        for k in range(3):
            counts[:, k, k], counts[:, k, (k + 1) % 3] = hits[:, k], pixels[:, k] - hits[:, k]
        return counts

    return make


@pytest.fixture(scope="session")
def write_run() -> WriteRun:
    """Writes what a run leaves behind, as far as tables read it."""

    def write(run: Path, counts: np.ndarray, *, ids: list[str] | None = None, groups: list[str] | None = None) -> None:
        extra = {} if groups is None else {"groups": np.array(groups)}
        write_arrays(run / "scores" / "val.npz", {"ids": np.array(ids or IDS), "confusion": counts, **extra})
        declared = {"miou": {"estimate": 0.6}, "dice": {"estimate": 0.7}, "pixel_accuracy": {"estimate": 0.8}}
        summary = {"classes": CLASSES, "images_per_second": 200.0, "definitions": {"declared": declared}}
        write_json(run / "scores" / "val.json", summary)
        (run / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 60}\n{"epoch": 2, "seconds": 120}\n{"epo')
        (run / "bundle").mkdir(exist_ok=True)
        head = json.dumps({
            "__metadata__": {"format": "pt"},
            "conv.weight": {"dtype": "F32", "shape": [4, 3, 3, 3], "data_offsets": [0, 0]},
            "bn.running_mean": {"dtype": "F32", "shape": [4], "data_offsets": [0, 0]},
        }).encode()  # fmt: skip
        (run / "bundle" / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)

    return write


@pytest.fixture
def write_study(tmp_path: Path, confusion: Confusion, write_run: WriteRun) -> WriteStudy:
    """Writes a study's folder whose rows are right to a given share."""

    def write(rights: dict[str, float], *, skip: tuple[str, ...] = (), **more: object) -> Path:
        out = tmp_path / "out"
        write_yaml(out / "study.yaml", {**STUDY, **more})
        for number, trial in enumerate(trials(read_study(out / "study.yaml"))):
            if trial.name.startswith(skip):
                continue
            shift = np.random.default_rng([trial.seed, number]).normal(0, 0.004)
            part = slice(None) if trial.fold is None else slice(trial.fold * 30, trial.fold * 30 + 30)
            counts = confusion(rights[trial.row] + shift, seed=number)[part]
            write_run(out / "runs" / trial.name, counts, ids=IDS[part])
        return out

    return write
