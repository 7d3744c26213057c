"""Pictures far darker, brighter, flatter or otherwise unlike the rest are found, and in plain data hardly any."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file
from sklearn.neighbors import LocalOutlierFactor

from segwright.auditing import encoder_features, outliers
from segwright.auditing import oddness as oddness_module
from segwright.auditing.labels import measure_labels
from segwright.auditing.noise import find_noise
from segwright.auditing.oddness import find_odd, oddness
from segwright.auditing.outliers import examine, find_tails
from segwright.auditing.shared_masks import find_shared_masks
from segwright.auditing.survey import Look, Survey, take_survey
from segwright.auditing.tones import measure
from segwright.data.packing import pixel_digest
from segwright.data.sources import Source, open_source
from segwright.data.synthetic import terrain_stack
from segwright.errors import WeightsError
from segwright.models import ModelSpec, build_model
from segwright.types import ClassSet

DATA = Path(os.environ.get("SEGWRIGHT_DATA") or Path(__file__).parents[3] / "shared" / "data")
COUNT = 60


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return list(terrain_stack(COUNT, size=(48, 64), seed=5)[0])


def survey_of(images: Sequence[np.ndarray]) -> Survey:
    looks = (
        Look(f"p{i}", "", "m.png", size_px=image.shape[1:], tones=measure(image)) for i, image in enumerate(images)
    )
    return Survey(Path("data"), None, ClassSet(("a",), ((0, 0, 0),)), tuple(looks))


def test_plain_data_have_no_tails(photos: list[np.ndarray]) -> None:
    assert find_tails(survey_of(photos)) == []
    assert find_tails(survey_of([])) == []


def test_dark_bright_and_flat_pictures_are_found(photos: list[np.ndarray]) -> None:
    night = (photos[0] * 0.03).astype(np.uint8)
    glare = np.clip(photos[1].astype(int) // 8 + 224, 0, 255).astype(np.uint8)
    fog = (128 + (photos[2].astype(float) - 128) * 0.02).astype(np.uint8)
    found = {finding.kind: finding for finding in find_tails(survey_of([*photos, night, glare, fog]))}
    assert found["dark_image"].ids == (f"p{COUNT}",)
    assert found["bright_image"].ids == (f"p{COUNT + 1}",)
    assert found["flat_image"].ids[0] == f"p{COUNT + 2}"
    assert {finding.gravity for finding in found.values()} == {"look"}
    assert "1 of 63" in found["dark_image"].summary


def test_many_dark_pictures_are_another_sort_and_no_tail(photos: list[np.ndarray]) -> None:
    night = [(photo * 0.03).astype(np.uint8) for photo in photos[:8]]
    assert "dark_image" not in {finding.kind for finding in find_tails(survey_of([*photos, *night]))}


def test_blank_frames_are_always_found(photos: list[np.ndarray]) -> None:
    blank = [np.full((3, 48, 64), 90, dtype=np.uint8)] * 10
    found = {finding.kind: finding for finding in find_tails(survey_of([*photos, *blank]))}
    assert len(found["flat_image"].ids) == 10


def test_a_foreign_picture_is_the_oddest(photos: list[np.ndarray]) -> None:
    cells = np.full((48, 64), 8, dtype=np.uint8)
    for row, column in ((10, 12), (30, 40), (24, 20)):
        cv2.circle(cells, (column, row), 5, 200, -1)
    finding = find_odd(survey_of([*photos, np.repeat(cells[None], 3, axis=0)]))
    assert finding is not None
    assert finding.ids == (f"p{COUNT}",)
    assert (finding.gravity, finding.drop) == ("look", {})


def test_few_or_equal_pictures_have_no_odd_one(photos: list[np.ndarray]) -> None:
    assert find_odd(survey_of(photos[:20])) is None
    assert find_odd(survey_of([photos[0]] * 40)) is None


def test_oddness_is_the_local_outlier_factor(rng: np.random.Generator) -> None:
    points = rng.standard_normal((90, 3))
    points = (points - points.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T))).T
    expected = -LocalOutlierFactor(n_neighbors=30).fit(points).negative_outlier_factor_
    np.testing.assert_allclose(oddness([points]), expected, rtol=1e-6)


def test_many_pictures_are_compared_with_a_part(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    points = rng.standard_normal((400, 4))
    points[[7, 300]] += 9
    whole = oddness([points])
    monkeypatch.setattr(oddness_module, "REFERENCE", 150)
    part = oddness([points])
    assert set(np.argsort(-part)[:2]) == set(np.argsort(-whole)[:2]) == {7, 300}
    assert np.corrcoef(np.delete(whole, [7, 300]), np.delete(part, [7, 300]))[0, 1] > 0.7


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = build_model(ModelSpec("fpn", in_channels=3, num_classes=2, encoder="mobilenet_v2")).encoder
    assert encoder is not None
    path = tmp_path_factory.mktemp("weights") / "some.safetensors"
    save_file(encoder.state_dict(), path, metadata={"architecture": "mobilenet_v2", "mean": "0.5", "std": "0.5"})
    return path


def test_an_encoder_may_say_what_is_odd(
    tmp_path: Path, photos: list[np.ndarray], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_features, "SIDE_PX", 64)
    images = np.stack(photos[:34]).transpose(0, 2, 3, 1).copy()
    images[33] = np.indices((48, 64)).sum(axis=0)[..., None] % 2 * 255
    np.savez(tmp_path / "set.npz", images=images, masks=terrain_stack(34, size=(48, 64), seed=5)[1])
    answer = examine(take_survey(tmp_path / "set.npz", progress=False), encoder_weights=weights)
    odd = next(finding for finding in answer.findings if finding.kind == "odd_image")
    assert odd.ids == ("00033",)
    assert answer.facts["measured"] == 34
    assert answer.facts["brightness"]["min"] < answer.facts["brightness"]["median"] < answer.facts["brightness"]["max"]


def test_weights_that_name_no_encoder_are_refused(tmp_path: Path, photos: list[np.ndarray], weights: Path) -> None:
    nameless = tmp_path / "model.pth"
    nameless.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"does not say which encoder it is of"):
        examine(survey_of(photos), encoder_weights=nameless)
    with pytest.raises(WeightsError, match=r"is missing"):
        examine(survey_of(photos), encoder_weights=tmp_path / "none.safetensors")


def test_an_empty_survey_has_no_findings() -> None:
    answer = outliers.examine(survey_of([]))
    assert (answer.facts, answer.findings) == ({"measured": 0}, ())


@pytest.mark.data
def test_the_aliens_of_the_stand_in_are_found() -> None:
    """By both ways, by their noise alone (with other masks), and by their mask alone (beside photos)."""
    path = DATA / "mars_standin" / "mars_standin.npz"
    if not path.is_file():
        pytest.skip(f"{path} is absent; SEGWRIGHT_DATA names the folder of data")
    source = open_source(path)
    with np.load(path) as arrays:
        stack = arrays["training_set"]
    digests = [pixel_digest(np.ascontiguousarray(mask)) for mask in stack[:, 1]]
    shared = Counter(digests).most_common(1)[0][0]
    aliens = [i for i, digest in enumerate(digests) if digest == shared]
    others = [i for i, digest in enumerate(digests) if digest != shared][::10]
    truth = {source.samples[i].id for i in aliens}
    looks = {i: look_at(source.samples[i].id, stack[i, :1], stack[i, 1], digests[i]) for i in (*aliens, *others)}
    pairs = list(zip(aliens, others, strict=False))
    assert len(pairs) == len(truth) == 110

    noise, masks = drops(source, looks)
    assert noise == masks == truth
    given_masks = {i: ("mask_digest", "labels", j) for i, j in pairs}
    noise, masks = drops(source, looks | exchanged(looks, given_masks))
    assert (noise, masks) == (truth, set())
    given_photos = {i: ("image_digest", "tones", j) for i, j in pairs}
    noise, masks = drops(source, looks | exchanged(looks, given_photos))
    assert (noise, masks) == (set(), truth)


def look_at(name: str, image: np.ndarray, mask: np.ndarray, digest: str) -> Look:
    return Look(
        name, "", "m", size_px=image.shape[1:], image_digest=name, mask_digest=digest,
        tones=measure(image), labels=measure_labels(np.ascontiguousarray(mask), 5),
    )  # fmt: skip


def exchanged(looks: dict[int, Look], gifts: dict[int, tuple[str, str, int]]) -> dict[int, Look]:
    """Looks that take two of their values from others."""
    return {
        i: replace(looks[i], **{name: getattr(looks[j], name) for name in names}) for i, (*names, j) in gifts.items()
    }


def drops(source: Source, looks: dict[int, Look]) -> tuple[set[str], set[str]]:
    """What the two ways drop, each by itself."""
    survey = Survey(source.root, source, source.classes, tuple(looks.values()), reader=source)
    noise = find_noise(survey)
    return set(noise.drop if noise else ()), {one for finding in find_shared_masks(survey) for one in finding.drop}
