"""Whether a run folder is whole, and whether two runs are the same bit for bit. Used by the scripts beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from segwright.bundle import load_bundle
from segwright.files import read_json
from segwright.recipe import read_recipe
from segwright.training.state import STATE_FILE, read_state

BUNDLE = ("model.safetensors", "bundle.json", "card.md")


def wrong_in(run: Path) -> list[str]:
    """What has been spoilt: each file is whole or not there; only the last line of metrics.jsonl may be cut."""
    if not run.exists():
        return []
    wrong = []
    for name, read in (
        ("recipe.yaml", read_recipe), ("split.json", read_json), ("images.json", read_json),
        ("environment.json", read_json), (STATE_FILE, lambda path: torch.load(path, weights_only=True)),
    ):  # fmt: skip
        try:
            if name != STATE_FILE or (run / name).exists():
                read(run / name)
        except Exception as error:  # noqa: BLE001  # any fault is what is looked for
            wrong.append(f"{name}: {error}")
    try:
        if (run / "bundle").exists() or (run / ".bundle.old").exists():
            load_bundle(run)
        lines = (run / "metrics.jsonl").read_text().split("\n") if (run / "metrics.jsonl").exists() else []
        for line in lines[:-1]:
            json.loads(line)
    except Exception as error:  # noqa: BLE001  # as above
        wrong.append(str(error))
    return wrong


def differences(one: Path, other: Path) -> list[str]:
    """Weights, moments of the optimiser, validations and bundle of two runs that are not equal."""
    states = [torch.load(path / STATE_FILE, weights_only=True) for path in (one, other)]
    found = [
        f"weights {name}" for name, value in states[0]["state_dict"].items()
        if not torch.equal(value, states[1]["state_dict"][name])
    ]  # fmt: skip
    moments = [saved["optimizer_states"][0]["state"] for saved in states]
    found += [
        f"optimiser {number} {name}" for number, values in moments[0].items() for name, value in values.items()
        if not torch.equal(value, moments[1][number][name])
    ]  # fmt: skip
    if _rows(one) != _rows(other):
        found.append("metrics.jsonl")
    if any((one / "bundle" / name).read_bytes() != (other / "bundle" / name).read_bytes() for name in BUNDLE):
        found.append("bundle")
    return found


def _rows(run: Path) -> list[dict[str, Any]]:
    """The numbers of every validation that do not depend on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]


def step_of(run: Path) -> int | None:
    """The step of the state that a run will go on from."""
    path = run / STATE_FILE
    return read_state(path).step if path.is_file() else None


def leftovers(run: Path) -> list[str]:
    """Hidden files beside the lock: what nobody tidied up."""
    return sorted(path.name for path in run.glob(".*") if path.name != ".lock") if run.exists() else []
