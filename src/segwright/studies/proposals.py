"""What is tried next, and what was tried. The only door to Optuna (Akiba et al. 2019, https://arxiv.org/abs/1907.10902).

Values are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011,
https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization), after the base's own values and points
that differ from them in one key. A trial lags behind when its best score so far is below the median of the others at
the same share of their budget, or when Hyperband (Li et al. 2018, https://arxiv.org/abs/1603.06560) drops it. With
several objectives none is said to lag.

All stands in a journal, a file that several machines may write to. A trial is claimed by a locked file: one whose
process is gone is given back, and proposed again with the name of its run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from segwright.errors import MissingExtraError, RunError
from segwright.studies.claims import Claims
from segwright.studies.grid import digest_of
from segwright.studies.space import Search, Space, as_text, ends_of, from_text, one_changed, values_of
from segwright.studies.tuned import State, Tried

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError:
    raise MissingExtraError("Optuna", extra="tune") from None

optuna.logging.set_verbosity(optuna.logging.ERROR)

PrunerName = Literal["median", "hyperband", "none"]

RUNGS = 10
"""A trial is looked at after each tenth of its budget."""

FEWEST_FOR_IMPORTANCES = 4

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
}  # fmt: skip


class Proposal:
    """One trial that is to be made."""

    def __init__(self, trial: Trial, values: Mapping[str, Any]) -> None:
        self._trial = trial
        self.number = trial.number
        self.values = values
        self.run: str | None = trial.user_attrs.get("run")

    def named(self, run: str) -> None:
        """Keep the name of its run."""
        self.run = run
        self._trial.set_user_attr("run", run)

    def took(self, seconds: float) -> None:
        self._trial.set_user_attr("seconds", seconds)

    def lags(self, best: float, *, rung: int) -> bool:
        """Report the best score so far at a tenth of the budget; whether that is too little."""
        self._trial.report(best, rung)
        return rung < RUNGS and bool(self._trial.should_prune())


class Proposals:
    """The journal of a search.

    Args:
        search: what is searched.
        folder: of the journal and the claims.
        budget: of a trial, as keys of `training`; an older search keeps its own.
        pruner: how lagging trials are told.
        seed: of the proposals; the single changes are those of who began.

    Raises:
        RunError: the folder holds a search for something else.
    """

    def __init__(
        self, search: Search, *, folder: Path, budget: Mapping[str, float | int | None], pruner: PrunerName, seed: int
    ) -> None:
        self._search = search
        self._claims = Claims(folder / "claims")
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / "search.journal"))),
            study_name="segwright",
            directions=["maximize"] * len(search.objectives),
            pruner=_pruner(pruner),
            load_if_exists=True,
        )
        self._seed = seed
        self._require_same(folder)
        own = values_of(search.base, search.space)
        with self._claims.alone():
            if "budget" not in self._study.user_attrs:
                self._begin(budget, own)
        first_seed = self._study.user_attrs.get("seed", seed)
        self._single_changes = [] if own is None else one_changed(own, search.space, seed=first_seed)

    @property
    def budget(self) -> Mapping[str, float | int | None]:
        """Of each trial, as keys of `training`."""
        told: Mapping[str, float | int | None] = self._study.user_attrs["budget"]
        return told

    def ask(self) -> tuple[Proposal, int]:
        """The next trial, and the descriptor of its claim."""
        with self._claims.alone():
            # One at a time: what waits is proposed in order, and what was given back must not wait for all of them.
            while self._single_changes and not self._study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
                self._study.enqueue_trial(self._params(self._single_changes.pop(0)), skip_if_exists=True)
            number = len(self._study.get_trials(deepcopy=False))
            self._study.sampler = optuna.samplers.TPESampler(
                seed=(self._seed + 7919 * number) % 2**32, n_startup_trials=8, constant_liar=True
            )
            trial = self._study.ask()
            descriptor = self._claims.take(str(trial.number))
            assert descriptor is not None, "a trial that was just made is nobody's"
            return Proposal(trial, suggested(trial, self._search.space)), descriptor

    def reached(self, proposal: Proposal, scores: Sequence[float]) -> None:
        self._study.tell(proposal.number, list(scores))
        self._claims.give_back(str(proposal.number))

    def ended(self, proposal: Proposal, state: Literal["pruned", "failed"]) -> None:
        """Of a trial without a score."""
        self._study.tell(proposal.number, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)
        self._claims.give_back(str(proposal.number))

    def left_open(self, proposal: Proposal) -> None:
        """Of a trial that may go on."""
        self._claims.give_back(str(proposal.number))

    def give_back_lost(self) -> None:
        """Propose trials again whose process is gone."""
        with self._claims.alone():
            for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                if self._claims.take(str(trial.number)) is None:
                    continue
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                known: dict[str, Any] = {key: one for key, one in trial.user_attrs.items() if key in ("run", "base")}
                self._study.enqueue_trial(trial.params, user_attrs={**known, "instead_of": trial.number})
                self._claims.give_back(str(trial.number))

    def tried(self) -> tuple[Tried, ...]:
        """All trials; one that was given back stands there once."""
        every = self._study.get_trials(deepcopy=False)
        replaced = {trial.user_attrs.get("instead_of") for trial in every}
        return tuple(self._as_tried(trial) for trial in every if trial.number not in replaced)

    def number_of_base(self) -> int | None:
        """The trial of the base's own values; None while it is not done."""
        done = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return next((trial.number for trial in done if "base" in trial.user_attrs), None)

    def importances(self) -> dict[str, float]:
        """Each key's share of the differences in the first objective (Hutter et al. 2014, fANOVA,
        https://proceedings.mlr.press/v32/hutter14.html); empty where too few trials are done to tell.
        """
        done = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(done) < FEWEST_FOR_IMPORTANCES or len({trial.values[0] for trial in done}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        target = None if len(self._search.objectives) == 1 else _first_value
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator, target=target)

    def _require_same(self, folder: Path) -> None:
        before = self._study.user_attrs
        for key, value in _told(self._search).items():
            if key in before and before[key] != value:
                mend = "choose another -o, or give the same study again"
                raise RunError(f"holds a search with another {key}", mend=mend, file=folder)

    def _begin(self, budget: Mapping[str, float | int | None], own: Mapping[str, Any] | None) -> None:
        for key, value in _told(self._search).items():
            self._study.set_user_attr(key, value)
        if own is not None:
            self._study.enqueue_trial(self._params(own), user_attrs={"base": True}, skip_if_exists=True)
        self._study.set_user_attr("seed", self._seed)
        self._study.set_user_attr("budget", dict(budget))

    def _params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """As Optuna keeps them."""
        return {
            key: as_text(value) if isinstance(self._search.space[key], list) else value for key, value in values.items()
        }

    def _as_tried(self, trial: FrozenTrial) -> Tried:
        menus = {key for key, menu in self._search.space.items() if isinstance(menu, list)}
        scores = trial.values if trial.state == TrialState.COMPLETE else ()
        return Tried(
            number=trial.number,
            state=_STATES[trial.state],
            scores=dict(zip(self._search.objectives, scores, strict=False)),
            values={key: from_text(value) if key in menus else value for key, value in trial.params.items()},
            minutes=trial.user_attrs.get("seconds", 0.0) / 60,
            run=trial.user_attrs.get("run", ""),
        )


def suggested(trial: Trial, space: Space) -> dict[str, Any]:
    """What Optuna proposes, as keys and values of a recipe."""
    values: dict[str, Any] = {}
    for key, menu in space.items():
        if isinstance(menu, list):
            values[key] = from_text(str(trial.suggest_categorical(key, [as_text(value) for value in menu])))
            continue
        low, high = ends_of(menu)
        if menu.whole is not None:
            values[key] = trial.suggest_int(key, int(low), int(high))
        else:
            values[key] = trial.suggest_float(key, low, high, log=menu.log is not None)
    return values


def _told(search: Search) -> dict[str, Any]:
    """What makes a search this one."""
    space = {
        key: menu if isinstance(menu, list) else menu.model_dump(mode="json") for key, menu in search.space.items()
    }
    return {
        "space": space,
        "objectives": list(search.objectives),
        "definition": search.definition,
        "base": digest_of(search.base),
    }


def _pruner(name: PrunerName) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=RUNGS, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _first_value(trial: FrozenTrial) -> float:
    return float(trial.values[0])
