"""A report from files alone: everything it needs inside it, nothing from outside, and names that cannot break it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from segwright.data.synthetic import TERRAIN_COLORS, TERRAIN_NAMES, terrain
from segwright.errors import DataError, OutputError, RunError
from segwright.evaluation.summary import summarize
from segwright.files import write_arrays, write_json, write_text, write_yaml
from segwright.metrics import boundary_counts
from segwright.recipe import Recipe, override, write_recipe
from segwright.reporting.contents import flat, read_run
from segwright.reporting.frame import curve, duration, interval, percent
from segwright.reporting.page import write_report
from segwright.types import ClassSet

VOID_TAGS = {"meta", "img", "br", "link", "input", "hr"}


def write_scores(run: Path, *, split: str = "val", classes: ClassSet, images: int = 6, ids: str = "photo") -> None:
    """Scores of a model that sees rocks one pixel too far."""
    confusion, boundary, examples = [], [], {}
    for number in range(images):
        image, mask = terrain(np.random.default_rng(number), (48, 64))
        pred = np.roll(mask, number + 1, axis=1)
        counts = np.zeros((5, 5), dtype=np.int64)
        np.add.at(counts, (mask, pred), 1)
        confusion.append(counts)
        boundary.append(boundary_counts(pred, mask, num_classes=5, tolerance_px=1.0))
        examples |= {f"image_{number}": image, f"mask_{number}": mask, f"pred_{number}": pred}
    examples |= {
        "ids": np.array([f"{ids} {number}" for number in range(images)]),
        "scores": np.linspace(0.9, 0.4, images),
        "kinds": np.array(["best"] * (images // 2) + ["worst"] * (images - images // 2)),
    }
    summary = summarize(np.stack(confusion), np.stack(boundary), classes, resamples=100)
    extra = {"split": split, "unlabelled": 2, "device": "cpu", "precision": "bf16", "images_per_second": 21.0}
    write_json(run / "scores" / f"{split}.json", {**extra, **summary, "seconds": 3.2})
    write_arrays(run / "scores" / f"{split}.npz", {"confusion": np.stack(confusion)})
    write_arrays(run / "scores" / f"{split}_examples.npz", examples)


def terrain_classes(**rules: tuple[int, ...]) -> ClassSet:
    return ClassSet(TERRAIN_NAMES, TERRAIN_COLORS, **rules)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "night-1"
    write_scores(folder, classes=terrain_classes(ignore_in_score=(0,)))
    rows = [
        {"epoch": k + 1, "step": 9 * k, "seconds": 2.5 * k, "train_loss": 2 / (k + 1), "val_loss": 2.5 / (k + 1),
         "val_miou": 0.1 * k, "val_pixel_accuracy": 0.5 + 0.05 * k, "lr": 1e-3, "images_per_second": 40.0 + k}
        for k in range(8)
    ]  # fmt: skip
    write_text(folder / "metrics.jsonl", "\n".join(map(json.dumps, rows)) + '\n{"epoch": 9, "tr')
    write_recipe(folder / "recipe.yaml", override(Recipe(), ["model.name=unet", "training.minutes=5"]))
    write_json(folder / "environment.json", {"seed": 3, "versions": {"torch": "2.11"}, "gpu": None})
    write_yaml(folder / "data.yaml", {"source": "photos", "dropped": {"a": "noise", "b": "noise", "c": "torn"}})
    write_json(folder / "split.json", {"train": ["x"] * 14, "val": ["y"] * 6})
    return folder


class Page(HTMLParser):
    """What is in a page, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_every_section_is_there_and_every_tag_closed(run: Path) -> None:
    target = write_report(run)
    assert target == run / "report.html"
    page = read_page(target)
    assert not page.faults
    assert not page.open
    words = " ".join(page.words.split())
    for expected in (
        "night-1", "Scores on val", "Every class", "What is taken for what", "Best 3", "Worst 3", "Training", "Data",
        "Recipe", "Environment", *TERRAIN_NAMES, "keras-mars", "leave_out_of_mean", "not in the mean", "95 % interval",
        "2 images: noise", "1 images: torn", "versions.torch", "model.name", "training.minutes", "photo 0", "43.5",
        "2 images without a mask were not scored", "Only 6 images", "best epoch was chosen", "0.700 at 8",
    ):  # fmt: skip
        assert expected in words, expected
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 7
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4 * 6


def test_nothing_is_loaded_from_outside_and_nothing_runs(run: Path) -> None:
    page = read_page(write_report(run))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#"))
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_links_inside_the_page_lead_somewhere(run: Path) -> None:
    page = read_page(write_report(run))
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    links = {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"}
    assert links
    assert links <= ids


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    evil = "<script>alert('&')</script>"
    classes = ClassSet((evil, "$x$", "c", "d", "e"), TERRAIN_COLORS)
    write_scores(tmp_path, classes=classes, ids="<img src=x onerror=alert(1)>")
    write_yaml(tmp_path / "recipe.yaml", {"model": {"name": evil}})
    page = read_page(write_report(tmp_path))
    assert not page.faults
    assert all(tag != "script" and "onerror" not in attributes for tag, attributes in page.tags)
    assert evil in page.words


def test_scores_alone_are_enough(tmp_path: Path) -> None:
    write_scores(tmp_path, classes=terrain_classes())
    (tmp_path / "scores" / "val_examples.npz").unlink()
    page = read_page(write_report(tmp_path, out=tmp_path / "elsewhere.html"))
    assert (tmp_path / "elsewhere.html").is_file()
    assert "Scores on val" in page.words
    for missing in ("Training", "Recipe", "Environment", "Best", "other definitions"):
        assert missing not in page.words


def test_the_untouched_split_comes_first(run: Path) -> None:
    for split in ("test", "other"):
        write_scores(run, split=split, classes=terrain_classes(leave_out_of_mean=(0,)))
    assert [split.name for split in read_run(run).splits] == ["test", "val", "other"]
    page = read_page(write_report(run))
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids[:3] == ["test", "val", "other"]


def test_a_report_is_renewed_but_nothing_else_is(run: Path) -> None:
    write_report(run)
    write_report(run)
    mine = run / "notes.html"
    mine.write_text("my own notes", encoding="utf-8")
    with pytest.raises(OutputError, match="no segwright report"):
        write_report(run, out=mine)
    assert mine.read_text(encoding="utf-8") == "my own notes"


def test_missing_and_damaged_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds no scores"):
        write_report(tmp_path)
    write_scores(tmp_path, classes=terrain_classes())
    write_json(tmp_path / "scores" / "val.json", {"classes": {"names": ["a"]}})
    with pytest.raises(DataError, match="Evaluate again"):
        write_report(tmp_path)


def test_a_refit_is_reported_when_it_is_trained_to_its_end(tmp_path: Path) -> None:
    write_yaml(tmp_path / "recipe.yaml", {"data": {"split": {"refit": "runs/a"}}, "training": {"epochs": 3}})
    for epoch in (None, 2):
        if epoch is not None:
            write_json(tmp_path / "bundle" / "bundle.json", {"info": {"epoch": epoch}})
        with pytest.raises(RunError, match="not trained to its end"):
            write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    write_json(tmp_path / "bundle" / "bundle.json", {"info": {"epoch": 3}})
    assert read_run(tmp_path).splits == ()


def test_only_what_differs_from_the_defaults_is_listed(run: Path) -> None:
    contents = read_run(run)
    assert contents.changed == [("model.name", "unet"), ("training.minutes", "5")]
    assert len(contents.epochs) == 8
    assert contents.split_sizes == {"train": 14, "val": 6}


def test_words_for_values() -> None:
    tree = {"a": {"b": [1, 2.5], "c": None}, "d": True, "e": [], "f": [[1, 2], [3, 4]]}
    assert flat(tree) == [("a.b", "1, 2.5"), ("a.c", "none"), ("d", "yes"), ("e", "none"), ("f", "(1, 2), (3, 4)")]
    assert [duration(value) for value in (3.21, 75, 7260, None)] == ["3.2 s", "1 min 15 s", "2 h 01 min", "–"]
    assert [percent(value) for value in (0.1234, 0.0001, 0.0, None)] == ["12.3 %", "<0.1 %", "0.0 %", "–"]
    assert interval({"low": 0.1, "high": 0.25}) == "0.100 to 0.250"
    assert interval({"low": None, "high": None}) == ""


def test_the_curve_of_a_spread_is_told_with_its_gamma_fit() -> None:
    gamma = {"alpha": 3.53, "loc": -0.0898, "beta": 4.012, "misfit": 0.081}
    assert curve({"mean": 1.0}) == ""
    assert curve({"fits": "gamma", "gamma": gamma}) == "a gamma curve; gamma 3.53, -0.0898, 4.012, off by 0.081 sd"
    assert curve({"fits": "neither"}) == "neither a normal nor a gamma curve"
