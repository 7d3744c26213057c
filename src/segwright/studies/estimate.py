"""What a study would cost, before it is started: three training steps are timed for every kind of run.

Runs are of one kind that share images, network, batch, crop and loss. The time of a run is what its steps and
validations take alone on its share of the cores, and making it ready; its disk is its bundle, as it is saved, and its
last state (weights, their average and the optimiser's numbers).
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from segwright.data.eval_loader import EvalLoader
from segwright.errors import SegwrightError
from segwright.hardware import Precision, autocast, choose_device, choose_precision
from segwright.launch.local import usable_cores
from segwright.recipe import DEFAULT_EPOCHS, make_recipe
from segwright.studies.grid import Trial
from segwright.studies.state import State, state_of
from segwright.tensors import Batch
from segwright.training.assembly import loaders_of, module_of, start_of
from segwright.training.budget import Budget
from segwright.training.callbacks import VALIDATIONS
from segwright.training.module import SegmentationModule
from segwright.training.preparation import prepare

TIMED_STEPS = 3


@dataclass(frozen=True)
class Cost:
    """What a kind of run takes.

    Attributes:
        ready_seconds: until the first step.
        step_seconds: of a training step.
        validation_seconds: of a validation.
        images: to train on.
        size_bytes: of a run's folder.
        note: why it could not be measured; empty where it was.
    """

    ready_seconds: float = 0.0
    step_seconds: float = 0.0
    validation_seconds: float = 0.0
    images: int = 0
    size_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study that was not started.

    Attributes:
        name: of the run.
        state: how far it is.
        minutes: that it would take from the beginning; None where nothing could be measured.
        size_bytes: of its folder.
        note: why it cannot be trained as it is.
    """

    name: str
    state: State
    minutes: float | None
    size_bytes: int
    note: str


@dataclass(frozen=True)
class Estimate:
    """What a study would cost.

    Attributes:
        runs: all of them.
        wall_minutes: of those that are not done, so many at a time.
        jobs: at a time.
    """

    runs: tuple[PlannedRun, ...]
    wall_minutes: float
    jobs: int


def estimate(trials: Sequence[Trial], out: Path, *, jobs: int) -> Estimate:
    """Measure each kind of run that is not done yet.

    Args:
        trials: of the study.
        out: its folder, which need not be there.
        jobs: runs at a time: each has that share of the cores.
    """
    costs: dict[str, Cost] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, usable_cores() // jobs))
    try:
        runs = [_planned(trial, out, costs) for trial in trials]
    finally:
        torch.set_num_threads(threads)
    minutes = sum(run.minutes or 0.0 for run in runs if run.state != "done")
    return Estimate(tuple(runs), wall_minutes=minutes / jobs, jobs=jobs)


def _planned(trial: Trial, out: Path, costs: dict[str, Cost]) -> PlannedRun:
    state = state_of(out, trial.name)
    if state == "done":
        return PlannedRun(trial.name, state, None, 0, "")
    kind = _kind(trial)
    if kind not in costs:
        costs[kind] = _measured(trial)
    cost = costs[kind]
    return PlannedRun(trial.name, state, None if cost.note else _minutes(trial, cost), cost.size_bytes, cost.note)


def _kind(trial: Trial) -> str:
    tree = trial.recipe
    data = {key: value for key, value in tree["data"].items() if key != "split"}
    return json.dumps(
        [data, tree["model"], tree["loss"], tree["mix"], tree["augment"], tree["training"]["batch_size"]],
        sort_keys=True,
    )


def _minutes(trial: Trial, cost: Cost) -> float:
    training = trial.recipe["training"]
    if training["minutes"] is not None:
        return float(training["minutes"]) + (cost.ready_seconds + cost.validation_seconds) / 60
    epochs = training["epochs"] or DEFAULT_EPOCHS
    images = cost.images + (0 if trial.copies is None else trial.copies.count)
    steps = epochs * max(1, round(images / training["batch_size"]))
    # The scores at the end take one more.
    validations = -(-epochs // max(1, epochs // VALIDATIONS)) + 1
    seconds = cost.ready_seconds + steps * cost.step_seconds + validations * cost.validation_seconds
    return float(seconds) / 60


def _measured(trial: Trial) -> Cost:
    began = time.perf_counter()
    try:
        recipe = make_recipe(trial.recipe)
        device = choose_device()
        precision = choose_precision(recipe.training.precision, device=device)
        images = prepare(recipe, progress=False)
        start = start_of(recipe, images, start_from=None, resumed=False)
        loader, validation = loaders_of(start.recipe, images, device=device)
        budget = Budget(steps=1, seconds=None)
        module = module_of(start.recipe, images, start.model, budget=budget, say=lambda line: None).to(device)
        ready = time.perf_counter() - began
        meter = _Meter(module, device, precision)
        return Cost(
            ready_seconds=ready,
            step_seconds=statistics.median([meter.step(batch) for batch in _batches(loader)][1:]),
            validation_seconds=meter.validation(validation),
            images=len(images.indices("train")),
            size_bytes=meter.size_bytes(),
        )
    except SegwrightError as error:
        return Cost(note=str(error))


def _batches(loader: Iterable[Batch]) -> Iterator[Batch]:
    """One to warm up, and those that are timed; a small set gives some of them again."""
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    return itertools.islice(epochs, TIMED_STEPS + 1)


class _Meter:
    """Times a module outside of a run."""

    def __init__(self, module: SegmentationModule, device: torch.device, precision: Precision) -> None:
        self._module, self._device, self._precision = module.train(), device, precision
        learning = [weight for weight in module.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(learning, lr=0.0)

    def step(self, batch: Batch) -> float:
        """Seconds of a training step."""
        began = time.perf_counter()
        with autocast(self._precision, device=self._device):
            loss = self._module.training_step(batch, 0)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        self._optimizer.step()
        return self._since(began)

    def validation(self, loader: EvalLoader) -> float:
        """Seconds of a validation, from one batch of it."""
        self._module.eval()
        batch = next(iter(loader))
        began = time.perf_counter()
        with torch.inference_mode(), autocast(self._precision, device=self._device):
            self._module.validation_step(batch, 0)
        return self._since(began) * len(loader)

    def size_bytes(self) -> int:
        """Of a run: the weights in its bundle, and its last state."""
        bundle = list(self._module.model.state_dict().values())
        moments = (value for state in self._optimizer.state.values() for value in state.values())
        tensors = [*bundle, *self._module.state_dict().values(), *moments]
        return sum(one.numel() * one.element_size() for one in tensors if isinstance(one, torch.Tensor))

    def _since(self, began: float) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - began
