"""Real data are surveyed without a false alarm; skipped where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segwright.auditing import frequencies, integrity
from segwright.auditing.survey import take_survey
from segwright.data.card import write_card
from segwright.data.sources import open_source

DATA = Path(os.environ.get("SEGWRIGHT_DATA") or Path(__file__).parents[3] / "shared" / "data")
pytestmark = pytest.mark.data


def folder(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent; SEGWRIGHT_DATA names the folder of data")
    return DATA / name


def some_of(name: str, card: Path, *, step: int) -> Path:
    """A card that keeps every so many images."""
    ids = [sample.id for sample in open_source(folder(name)).samples]
    dropped = dict.fromkeys((one for place, one in enumerate(ids) if place % step), "to be quick")
    write_card(card, {"source": str(folder(name).resolve()), "dropped": dropped})
    return card


def test_membranes_are_mapped_without_a_question():
    survey = take_survey(folder("membranes"), progress=False)
    answer = integrity.examine(survey)
    assert answer.findings == ()
    assert answer.facts["usable"] == len(survey.looks) == 20
    assert answer.facts["coding"] == ["mask values 0, 255 are taken as classes 0 to 1"]


def test_nuclei_differ_in_size_and_channels(tmp_path):
    survey = take_survey(some_of("nuclei", tmp_path / "card.yaml", step=8), progress=False)
    answer = integrity.examine(survey)
    assert {finding.kind for finding in answer.findings} == {"mixed_sizes", "mixed_channels"}
    assert {finding.gravity for finding in answer.findings} == {"look"}
    assert answer.facts["usable"] == len(survey.looks) == 38


def test_camvid_is_whole(tmp_path):
    survey = take_survey(some_of("camvid", tmp_path / "card.yaml", step=15), progress=False)
    assert integrity.examine(survey).findings == ()
    answer = frequencies.examine(survey)
    assert {fact["objects"] > 0 for fact in answer.facts["classes"]} == {True}
    assert {finding.gravity for finding in answer.findings} <= {"look"}
