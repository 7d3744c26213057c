"""All questions asked of data with planted faults: each is found, in words that a person who labels images uses."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright import verbs
from segwright.auditing import verdict
from segwright.auditing.findings import KINDS, Finding
from segwright.auditing.record import require_ours, write_audit
from segwright.auditing.survey import Survey
from segwright.data.synthetic import write_terrain
from segwright.errors import DataError, OutputError
from segwright.types import ClassSet

BANNED = (
    "tensor", "logit", "softmax", "entropy", "spectral", "embedding", "descriptor", "hash", "cluster", "outlier",
    "distribution", "p-value", "epoch", "batch", "gradient", "k-fold", "fold", "stratified", "encoder", "backbone",
    "feature", "inference", "overfit", "quantile", "percentile", "histogram", "variance", "deviation", "correlation",
    "threshold", "kernel", "augmentation", "normalisation", "normalization", "metric", "numpy", "dtype", "uint8",
    "pipeline", "ground-truth", "annotation", "confusion", "ensemble", "pixelwise", "gaussian", "laplacian", "sift",
    "iou", "miou",
)  # fmt: skip
"""Words that a person who labels images does not use."""

IMAGES = 60


def plant(root: Path, rng: np.random.Generator) -> dict[str, set[str]]:
    """Spoil photos in known ways; kind -> ids."""
    noise, cut, small, shared = ({f"terrain_{i:04d}" for i in span} for span in (range(2), [4], [6], range(10, 16)))
    for name in noise:
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(root / "images" / f"{name}.png")
    for name in cut:
        path = root / "images" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:900])
    for name in small:
        with Image.open(root / "masks" / f"{name}.png") as mask:
            mask.crop((0, 0, 50, 40)).save(root / "masks" / f"{name}.png")
    for name in shared - {"terrain_0010"}:
        shutil.copy(root / "masks" / "terrain_0010.png", root / "masks" / f"{name}.png")
    (root / "masks" / "terrain_0020.png").unlink()
    mask = np.full((48, 64), 2, dtype=np.uint8)
    for i, value in ((41, 2), (42, 255), (43, 77)):
        mask[10:20] = value
        Image.fromarray(mask if value != 255 else mask * 0 + 255).save(root / "masks" / f"terrain_00{i}.png")
    with Image.open(root / "images" / "terrain_0040.png") as image:
        image.convert("L").save(root / "images" / "terrain_0040.png")
    with Image.open(root / "images" / "terrain_0044.png") as image:
        Image.fromarray(np.asarray(image) // 16).save(root / "images" / "terrain_0044.png")
    shutil.copy(root / "images" / "terrain_0030.png", root / "images" / "twin.png")
    shutil.copy(root / "masks" / "terrain_0030.png", root / "masks" / "twin.png")
    return {
        "noise_image": noise, "broken_image": cut, "size_mismatch": small, "shared_mask": shared,
        "missing_mask": {"terrain_0020"}, "mixed_channels": {"terrain_0040"}, "constant_mask": {"terrain_0041"},
        "empty_mask": {"terrain_0042"}, "unknown_label": {"terrain_0043"}, "dark_image": {"terrain_0044"},
        "copies": {"terrain_0030", "twin"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """Photos with planted faults; test photos that are darker and of which one is known from the training side."""
    home = tmp_path_factory.mktemp("faulty")
    root = write_terrain(home / "photos", images=IMAGES, size=(48, 64), seed=2, layout="pairs")
    write_terrain(home / "test", images=30, size=(48, 64), seed=9, layout="pairs")
    shutil.rmtree(home / "test" / "masks")
    for path in sorted((home / "test" / "images").iterdir()):
        with Image.open(path) as image:
            Image.fromarray((np.asarray(image) * 0.6).astype(np.uint8)).save(path)
    return root, plant(root, np.random.default_rng(0))


@pytest.fixture(scope="module")
def audited(planted: tuple[Path, dict[str, set[str]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the audit of these photos."""
    root, _ = planted
    out = tmp_path_factory.mktemp("audit") / "audit"
    return verbs.audit(root, test=root.parent / "test", out=out, fix=out.parent / "clean.yaml", progress=False)


@pytest.fixture(scope="module")
def tree(audited: Path) -> dict:
    return json.loads((audited / "audit.json").read_text())


def test_every_planted_fault_is_found(planted: tuple[Path, dict[str, set[str]]], tree: dict) -> None:
    found: dict[str, set[str]] = {}
    for finding in tree["findings"]:
        found.setdefault(finding["kind"], set()).update(finding["ids"])
    for kind, ids in planted[1].items():
        assert ids <= found.get(kind, set()), kind


def test_what_is_useless_is_dropped_and_little_else(planted: tuple[Path, dict[str, set[str]]], tree: dict) -> None:
    useless = set().union(*(ids for kind, ids in planted[1].items() if KINDS[kind].level == "mend"))
    assert useless - {"terrain_0043"} <= set(tree["drop"])  # a value that is no class can be called void
    assert set(tree["drop"]) - useless <= {"twin", "terrain_0030", "terrain_0042"}
    assert set(tree["reasons"]) == set(tree["drop"])
    assert all(tree["reasons"].values())


def test_the_verdict_and_the_counts_follow_from_the_findings(tree: dict) -> None:
    levels = [finding["level"] for finding in tree["findings"]]
    assert tree["verdict"] == "mend"
    assert levels == sorted(levels, key=["mend", "look"].index)
    assert (tree["counts"]["mend"], tree["counts"]["look"]) == (levels.count("mend"), levels.count("look"))
    assert tree["images"] == IMAGES + 1
    assert list(tree["answers"]) == ["integrity", "frequencies", "outliers", "duplicates", "shift", "alignment"]


def test_every_finding_names_cause_cure_and_images(tree: dict) -> None:
    for finding in tree["findings"]:
        assert finding["summary"]
        assert finding["cause"]
        assert finding["cure"]
        assert set(finding["notes"]) <= set(finding["ids"])
        for members in finding["shown"]:
            assert set(members) <= set(tree["pictures"])


def test_classes_are_counted_in_what_is_left(tree: dict) -> None:
    assert tree["answers"]["frequencies"]["images"] == IMAGES + 1 - len(tree["drop"]) - 1  # one has an unknown value


def test_darker_test_pictures_are_told(tree: dict) -> None:
    assert "brightness_shift" in {finding["kind"] for finding in tree["findings"]}


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z][a-z0-9-]*", text.lower()))


def jargon(text: str) -> list[str]:
    words = words_of(text)
    return [banned for banned in BANNED if {banned, f"{banned}s", f"{banned}es"} & words]


def test_kinds_are_worded_for_people_who_label_images() -> None:
    for name, kind in KINDS.items():
        assert not jargon(f"{kind.title} {kind.cause} {kind.cure}"), name


def test_findings_are_worded_for_people_who_label_images(tree: dict) -> None:
    for finding in tree["findings"]:
        for text in (finding["summary"], *finding["notes"].values()):
            assert not jargon(text), text
    for reason in tree["reasons"].values():
        assert not jargon(reason), reason


class Words(HTMLParser):
    """The words of a page, without its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tag, self.words = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        self.words += "".join(f" {value}" for name, value in attrs if name in ("alt", "title"))

    def handle_data(self, data: str) -> None:
        if self.tag not in ("style", "code", "svg"):
            self.words += f" {data}"


def test_the_page_is_worded_for_people_who_label_images(audited: Path) -> None:
    words = Words((audited / "audit.html").read_text()).words
    assert "What to do next" in words
    assert not jargon(words)


def test_the_list_of_jargon_works() -> None:
    assert jargon("The Logits of two clusters, by IoU; p-value 0.1") == ["logit", "cluster", "p-value", "iou"]
    assert not jargon("unfolded, hashed out, manifold")


def test_an_audit_renews_its_own_folder_and_no_other(audited: Path, planted: tuple[Path, dict], tmp_path: Path) -> None:
    require_ours(audited)
    require_ours(tmp_path / "new")
    (tmp_path / "mine.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(OutputError):
            verbs.audit(planted[0], out=taken, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_old_pictures_go_when_an_audit_is_renewed(tmp_path: Path) -> None:
    root = write_terrain(tmp_path / "photos", images=8, size=(32, 32), layout="pairs")
    survey = verdict.take_survey(root, progress=False)
    out = tmp_path / "audit"
    for count in (6, 2):
        finding = Finding("dark_image", "Dark.", survey.ids[:count])
        write_audit(verdict.Audit(root, survey, {"outliers": verdict.Answer({}, (finding,))}), out)
        assert len(list((out / "examples").glob("*.webp"))) == count


def test_without_findings_all_is_fine() -> None:
    survey = Survey(Path(), None, ClassSet(("a", "b"), ((0, 0, 0), (1, 1, 1))), ())
    look, mend = Finding("dark_image", "x", ("a",)), Finding("noise_image", "y", ("b",), drop={"b": "noise", "z": "no"})

    def result(*findings: Finding) -> str:
        return verdict.Audit(Path(), survey, {"outliers": verdict.Answer({}, findings)}).verdict

    assert (result(), result(look), result(look, mend)) == ("fine", "look", "mend")


def test_where_nothing_is_there_the_audit_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        verbs.audit(tmp_path / "nowhere", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        verbs.audit(tmp_path / "empty", out=tmp_path / "audit", progress=False)
    assert not (tmp_path / "audit").exists()
