"""The verdict: every question asked of one data set in its order, and what follows from the answers.

It is `mend` where one finding must be mended, `look` where findings are worth a glance only, and `fine` without any.
What a training asks for itself before it starts, of a pack alone, stands in `poison`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from segwright.auditing import alignment, duplicates, frequencies, integrity, label_noise, outliers, shift
from segwright.auditing.findings import Answer, Finding
from segwright.auditing.survey import Survey, take_survey
from segwright.data.splits import find_groups, read_split

Verdict = Literal["fine", "look", "mend"]

QUESTIONS = ("integrity", "frequencies", "outliers", "duplicates", "shift", "alignment", "label_noise")
"""In the order in which they are told."""


@dataclass(frozen=True)
class Audit:
    """What was found in a data set.

    Attributes:
        path: the data, as they were named.
        survey: the looks at every image.
        answers: of each question that was asked, in the order of asking.
        test: the looks at a second data set that stands for the test pictures.
        probabilities: what a model says of images that it was not trained on; None where nobody asked one.
    """

    path: Path
    survey: Survey
    answers: Mapping[str, Answer]
    test: Survey | None = None
    probabilities: Path | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all questions: what must be mended first."""
        found = [finding for answer in self.answers.values() for finding in answer.findings]
        return tuple(sorted(found, key=lambda finding: finding.gravity != "mend"))

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)

    @property
    def drop(self) -> dict[str, str]:
        """Images that a repaired card leaves out, each with the gravest reason."""
        reasons: dict[str, str] = {}
        for finding in self.findings:
            for name, reason in finding.drop.items():
                reasons.setdefault(name, reason)
        return {name: reasons[name] for name in self.survey.ids if name in reasons}


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """What findings come to."""
    if any(finding.gravity == "mend" for finding in findings):
        return "mend"
    return "look" if findings else "fine"


def audit(
    path: Path,
    *,
    test: Path | None = None,
    probabilities: Path | None = None,
    encoder_weights: Path | None = None,
    progress: bool = True,
) -> Audit:
    """Look at every image and mask of a data set and ask all questions.

    Args:
        path: the data, as for `segwright.data.sources.open_source`; what that would refuse becomes a finding.
        test: a second data set that stands for the test pictures; without it, the side that the data calls test.
        probabilities: what a model says of images that it was not trained on; see `label_noise`.
        encoder_weights: a file of an encoder by which unlike pictures are found; None measures them more simply.
        progress: show how far it is, on a terminal.

    Raises:
        DataError: nothing at all is there.
        SplitError: the data's own split or groups do not fit them.
        SegwrightError: the probabilities or the weights cannot be used.
    """
    survey = as_the_card_says(take_survey(path, progress=progress))
    other = None if test is None else take_survey(test, progress=progress)
    answers: dict[str, Answer] = {}
    questions: dict[str, Callable[[], Answer]] = {
        "integrity": lambda: integrity.examine(survey),
        "outliers": lambda: outliers.examine(survey, encoder_weights=encoder_weights),
        "duplicates": lambda: duplicates.examine(survey, test=other),
        # Of what will be left: a hundred masks that go may hold most of a rare class.
        "frequencies": lambda: frequencies.examine(_without(survey, answers)),
    }
    train, target = sides_of(survey, other)
    if train.looks:
        questions["shift"] = lambda: shift.examine(train, target)
    questions["alignment"] = lambda: alignment.examine(survey)
    if probabilities is not None:
        questions["label_noise"] = lambda: label_noise.examine(survey, probabilities, moved=_moved(answers))
    for name in _shown(questions, progress=progress):
        answers[name] = questions[name]()
    return Audit(path, survey, {name: answers[name] for name in QUESTIONS if name in answers}, other, probabilities)


def _without(survey: Survey, answers: Mapping[str, Answer]) -> Survey:
    """The looks that no answer so far would leave out."""
    gone = {name for answer in answers.values() for finding in answer.findings for name in finding.drop}
    return survey.subset([i for i, look in enumerate(survey.looks) if look.id not in gone])


def as_the_card_says(survey: Survey) -> Survey:
    """With the sides and the groups that a card names in files of its own.

    Raises:
        DataError: such a file cannot be read.
        SplitError: it names other images.
    """
    source = survey.source
    if source is None or (source.split_file is None and source.groups is None):
        return survey
    sides = {} if source.split_file is None else read_split(source.split_file, survey.ids)
    groups = [look.group for look in survey.looks] if source.groups is None else find_groups(survey.ids, source.groups)
    return replace(
        survey,
        looks=tuple(
            replace(look, split=sides.get(look.id) if source.split_file is not None else look.split, group=group)
            for look, group in zip(survey.looks, groups, strict=True)
        ),
    )


def with_probabilities(audited: Audit, probabilities: Path) -> Audit:
    """The same audit with the question that needs a model's opinion.

    Raises:
        DataError: the probabilities cannot be read or belong to other images.
    """
    answer = label_noise.examine(audited.survey, probabilities, moved=_moved(audited.answers))
    return replace(audited, answers={**audited.answers, "label_noise": answer}, probabilities=probabilities)


def _moved(answers: Mapping[str, Answer]) -> list[str]:
    return list(answers["alignment"].facts["moved"]) if "alignment" in answers else []


def sides_of(survey: Survey, test: Survey | None) -> tuple[Survey, Survey]:
    """The pictures to learn from and those that stand for later use."""
    if test is not None:
        return survey, test
    learnt = [i for i, look in enumerate(survey.looks) if look.split != "test"]
    return survey.subset(learnt), survey.side("test")


def _shown(names: Iterable[str], *, progress: bool) -> Iterator[str]:
    console = Console(stderr=True)
    hidden = not (progress and console.is_terminal)
    yield from track(list(names), description="comparing images", console=console, transient=True, disable=hidden)
