"""The page of an audit: whole, self-contained, with pictures of every finding, in words that people use."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from segwright.auditing.examples import PICTURES
from segwright.auditing.findings import KINDS, Answer, Finding
from segwright.auditing.frequencies import examine
from segwright.auditing.opinions import write_opinions
from segwright.auditing.record import write_audit
from segwright.auditing.survey import Survey, take_survey
from segwright.auditing.verdict import Audit
from segwright.data.synthetic import write_image, write_terrain
from segwright.errors import DataError, OutputError
from segwright.files import read_image
from segwright.pictures import outlined
from segwright.reporting.audit_page import lead, write_audit_page

VOID_TAGS = {"meta", "img", "br", "link", "input", "hr", "wbr"}


class Page(HTMLParser):
    """What is in a page, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words += data

    def pictures(self) -> list[str]:
        return [str(attributes["alt"]) for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Thirty pictures with masks, of which one mask is cut short."""
    root = write_terrain(tmp_path_factory.mktemp("page") / "photos", images=30, size=(40, 56), layout="pairs")
    mask = root / "masks" / "terrain_0004.png"
    mask.write_bytes(mask.read_bytes()[:60])
    return take_survey(root, progress=False)


def audit(survey: Survey, *findings: Finding, out: Path) -> Path:
    """Write an audit with these findings and the counts of the classes."""
    answers = {"integrity": Answer({}, findings), "frequencies": Answer(examine(survey).facts)}
    write_audit(Audit(survey.root, survey, answers), out)
    return out


def test_a_finding_of_every_kind_can_be_shown(survey: Survey, tmp_path: Path) -> None:
    ids = survey.ids
    findings = [
        Finding(kind, f"Sentence about {kind}.", ids[k % 20 : k % 20 + 3], notes={ids[k % 20]: f"seen in {kind}"})
        for k, kind in enumerate(KINDS)
    ]
    page = Page(write_audit_page(audit(survey, *findings, out=tmp_path / "audit")))
    assert not page.faults
    assert not page.open
    for kind, told in KINDS.items():
        for text in (told.title, told.cause, told.cure, f"Sentence about {kind}.", f"seen in {kind}"):
            assert text in page.words, text


def test_pictures_are_those_of_the_finding_and_not_too_many(survey: Survey, tmp_path: Path) -> None:
    finding = Finding("noise_image", "All of them.", survey.ids, notes={name: f"note of {name}" for name in survey.ids})
    page = Page(write_audit_page(audit(survey, finding, out=tmp_path / "audit")))
    assert page.pictures() == [f"image of {name}" for name in survey.ids[:PICTURES]]
    assert f"and {30 - PICTURES} more" in page.words
    for name in survey.ids:
        assert f"note of {name}" in page.words


def test_what_belongs_together_stands_side_by_side(survey: Survey, tmp_path: Path) -> None:
    ids = survey.ids
    shared = Finding("shared_mask", "One mask.", ids[:20], groups=(ids[:20],))
    copies = Finding("copies", "Copies.", ids[20:26], groups=(ids[20:23], ids[24:26]))
    page = Page(write_audit_page(audit(survey, shared, copies, out=tmp_path / "audit")))
    expected = [f"the mask of {ids[0]}", *(f"image of {name}" for name in ids[:6])]
    expected += [f"image of {name}" for name in (*ids[20:22], *ids[24:26])]
    assert page.pictures() == expected


def test_a_mask_that_cannot_be_read_costs_only_its_own_picture(survey: Survey, tmp_path: Path) -> None:
    finding = Finding("empty_mask", "Two.", (survey.ids[4], survey.ids[5]))
    page = Page(write_audit_page(audit(survey, finding, out=tmp_path / "audit")))
    assert page.pictures() == [
        f"image of {survey.ids[4]}", f"image of {survey.ids[5]}", f"image with its mask of {survey.ids[5]}"
    ]  # fmt: skip


def test_what_a_model_sees_stands_beside_the_mask(survey: Survey, tmp_path: Path) -> None:
    name = survey.ids[9]
    seen = np.zeros((5, 20, 28), dtype=np.float32)
    seen[3] = 1
    write_opinions(tmp_path / "told.npz", [(name, seen)], classes=survey.classes.names)
    findings = (Finding("doubtful_mask", "Two.", (name, survey.ids[10])),)
    audited = Audit(survey.root, survey, {"label_noise": Answer({}, findings)}, probabilities=tmp_path / "told.npz")
    write_audit(audited, tmp_path / "audit")
    page = Page(write_audit_page(tmp_path / "audit"))
    views = ["image", "image with its mask", "what a model sees"]
    assert page.pictures()[:3] == [f"{view} of {name}" for view in views]
    assert f"what a model sees of {survey.ids[10]}" not in page.pictures()


def test_a_moved_mask_is_drawn_where_it_would_fit(survey: Survey, tmp_path: Path) -> None:
    name = survey.ids[9]
    facts = {"moved": {name: {"gain": 5.0, "px": [4.0, -3.0]}}}
    finding = Finding("shifted_mask", "One.", (name,))
    write_audit(Audit(survey.root, survey, {"alignment": Answer(facts, (finding,))}), tmp_path / "audit")
    page = Page(write_audit_page(tmp_path / "audit"))
    assert page.pictures()[:2] == [f"image of {name}", f"mask (orange) and where it would fit better (blue) of {name}"]


def test_examples_are_the_pictures_themselves(survey: Survey, tmp_path: Path) -> None:
    folder = audit(survey, Finding("dark_image", "One.", survey.ids[7:8]), out=tmp_path / "audit")
    kept = read_image(folder / "examples" / "0000.webp").astype(float)
    assert np.abs(kept - survey.read(7)[0]).mean() < 12
    tree = json.loads((folder / "audit.json").read_text())
    assert tree["pictures"][survey.ids[7]]["image_file"] == f"images/{survey.ids[7]}.png"


def test_the_table_of_classes_counts_what_is_there(survey: Survey, tmp_path: Path) -> None:
    page = Page(write_audit_page(audit(survey, out=tmp_path / "audit")))
    for name in survey.classes.names:
        assert name in page.words
    facts = examine(survey).facts["classes"][1]
    assert f"{facts['images']} {facts['objects']}" in page.words
    assert "median_frequency" in page.words


def test_nothing_found_is_said_so(survey: Survey, tmp_path: Path) -> None:
    folder = audit(survey, out=tmp_path / "audit")
    page = Page(write_audit_page(folder))
    assert "Fine" in page.words
    assert "Nothing was found in 30 images" in page.words
    assert f"segwright train {survey.root}" in page.words
    assert not page.pictures()


@pytest.mark.parametrize(
    ("mend", "look", "said"),
    [
        (1, 0, "In 2 images, 1 thing would spoil"),
        (2, 1, "2 things would spoil a training or its score and 1 more is worth a look."),
        (0, 1, "In 2 images, 1 thing is worth a look."),
        (0, 3, "In 2 images, 3 things are worth a look."),
    ],
)
def test_the_verdict_is_a_sentence(mend: int, look: int, said: str) -> None:
    assert said in lead({"counts": {"mend": mend, "look": look}, "images": 2})


def test_nothing_is_loaded_from_outside_and_nothing_runs(survey: Survey, tmp_path: Path) -> None:
    page = Page(write_audit_page(audit(survey, Finding("copies", "x", survey.ids), out=tmp_path / "audit")))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#"))
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    links = {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"}
    assert links
    assert links <= ids


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    root = write_terrain(tmp_path / "photos", images=6, size=(32, 32), layout="pairs")
    evil = "a<b onerror=x>&amp;'\""
    for part in ("images", "masks"):
        (root / part / "terrain_0001.png").rename(root / part / f"{evil}.png")
    (root / "classes.txt").write_text("<script>alert(1)</script>\nb\nc\nd\ne\n")
    survey = take_survey(root, progress=False)
    finding = Finding("constant_mask", f"{evil}.", (evil,), notes={evil: f"note {evil}"})
    page = Page(write_audit_page(audit(survey, finding, out=tmp_path / "audit")))
    assert not page.faults
    assert all(tag != "script" and "onerror" not in attributes for tag, attributes in page.tags)
    assert f"note {evil}" in page.words
    assert "<script>alert(1)</script>" in page.words


def test_a_page_is_renewed_but_nothing_else_is(survey: Survey, tmp_path: Path) -> None:
    folder = audit(survey, out=tmp_path / "audit")
    write_audit_page(folder)
    write_audit_page(folder)
    mine = tmp_path / "mine.html"
    mine.write_text("my notes")
    with pytest.raises(OutputError, match="no segwright page"):
        write_audit_page(folder, out=mine)
    assert mine.read_text() == "my notes"


def test_a_damaged_audit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"audit\.json"):
        write_audit_page(tmp_path)
    (tmp_path / "audit.json").write_text('{"findings": 3}')
    with pytest.raises(DataError, match="Audit again"):
        write_audit_page(tmp_path)


def test_outlines_are_drawn_where_labels_meet() -> None:
    image = np.full((3, 6, 6), 90, dtype=np.uint8)
    mask = np.zeros((6, 6), dtype=np.uint8)
    mask[:, 3:] = 1
    shown = outlined(image, {(200, 10, 10): mask})
    np.testing.assert_array_equal(shown[0, :, 0], [90, 90, 200, 200, 90, 90])


def test_pictures_of_any_size_are_scaled_down(tmp_path: Path) -> None:
    for part, pixels in (("images", np.zeros((3, 300, 900), np.uint8)), ("masks", np.zeros((1, 300, 900), np.uint8))):
        pixels[:, :, 450:] = 1
        write_image(tmp_path / "photos" / part / "wide.png", pixels)
    survey = take_survey(tmp_path / "photos", progress=False)
    folder = audit(survey, Finding("constant_mask", "x", survey.ids), out=tmp_path / "audit")
    assert read_image(folder / "examples" / "0000.webp").shape == (3, 107, 320)
