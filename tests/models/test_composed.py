"""Models that are made of others: merged by the rules of probability, refined, judged, averaged."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from segwright.errors import RecipeError
from segwright.metrics import boundary_counts, boundary_f1
from segwright.models import MODELS, ModelSpec, SegmentationModel, build_model
from segwright.models.cascade import Cascade, Refined
from segwright.models.ensemble import ensemble_of, soup_of
from segwright.models.refiner import Refiner, damaged

TINY = {"name": "unet", "arguments": {"width": 4, "depth": 2}}


def model(name: str, *, classes: int = 4, **arguments: object) -> SegmentationModel:
    return build_model(ModelSpec(name, 3, classes, arguments=arguments)).eval()


def images(n: int = 2, *, size: tuple[int, int] = (33, 41)) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_two_steps_multiply_their_probabilities() -> None:
    net = model("two_step", labels=[1, 3], rare=TINY, rest=TINY)
    x = images()
    raw = x.float() / 255
    rare = net.net.rare(raw).softmax(1)
    rest = net.net.rest(raw).softmax(1)
    probs = net(x).softmax(1)
    torch.testing.assert_close(probs[:, 1], rare[:, 1])
    torch.testing.assert_close(probs[:, 3], rare[:, 2])
    torch.testing.assert_close(probs[:, [0, 2]], rare[:, :1] * rest)
    assert [head.labels for head in net.heads] == [(), (0, 1, 0, 2), (0, 255, 1, 255)]


@torch.inference_mode()
def test_one_per_class_compares_odds() -> None:
    net = model("one_per_class", member=TINY)
    x = images()
    pairs = [member(x.float() / 255).softmax(1) for member in net.net.members]
    odds = torch.cat([pair[:, 1:] / pair[:, :1] for pair in pairs], dim=1)
    torch.testing.assert_close(net(x).softmax(1), odds / odds.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_an_untrained_refiner_changes_nothing() -> None:
    net = model("refined", base=TINY, width=4, depth=2)
    assert isinstance(net.net, Refined)
    base = net.net.base(images().float() / 255)
    torch.testing.assert_close(net(images()), base.log_softmax(1))


def test_a_refiner_learns_without_moving_its_base() -> None:
    net = model("refined", base=TINY, width=4, depth=2).train()
    masks = torch.randint(0, 4, (2, 33, 41))
    refined, _ = net(images(), masks)
    refined.square().mean().backward()
    assert all(p.grad is None for p in net.net.base.parameters())
    assert any(p.grad is not None and p.grad.any() for p in net.net.refiner.parameters())


def test_a_refiner_straightens_borders_and_removes_specks() -> None:
    torch.manual_seed(0)
    across, down = torch.arange(48)[None, None], torch.arange(48)[None, :, None]

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rounds on a ground, in a picture as noisy as it is telling."""
        middle = 12 + 24 * torch.rand(2, count, 1, 1)
        masks = ((across - middle[0]) ** 2 + (down - middle[1]) ** 2 < 100).long()
        return masks[:, None] + torch.randn(count, 1, 48, 48), masks

    refiner = Refiner(1, 2, width=8, depth=3)
    optimizer = torch.optim.Adam(refiner.parameters(), lr=1e-2)
    for _ in range(60):
        pictures, masks = batch(8)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(refiner(pictures, damaged(masks, num_classes=2)), masks).backward()
        optimizer.step()
    pictures, masks = batch(16)
    seen = damaged(masks, num_classes=2)
    with torch.inference_mode():
        refined = refiner.eval()(pictures, seen).argmax(1)
    before, after = (one.numpy().astype(np.uint8) for one in (seen.argmax(1), refined))
    truth = masks.numpy().astype(np.uint8)
    assert (after != truth).mean() < 0.5 * (before != truth).mean()
    regions = [sum(cv2.connectedComponents(one)[0] for one in many) for many in (before, after, truth)]
    assert regions[1] - regions[2] < 0.3 * (regions[0] - regions[2])
    outlines = [sum(boundary_counts(a, b, num_classes=2, tolerance_px=1) for a, b in zip(many, truth, strict=True))
                for many in (before, after)]  # fmt: skip
    f1 = [boundary_f1(one).mean() for one in outlines]
    assert f1[1] > f1[0] + 0.1


def test_damaged_truth_is_sure_mostly_right_and_never_void() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(32, 48, 64, dtype=torch.int64)
    masks[:, 10:30, 20:50] = 2
    masks[:, 40:] = 255
    said = damaged(masks, num_classes=4)
    assert said.shape == (32, 4, 48, 64)
    torch.testing.assert_close(said.exp().sum(1), torch.ones(32, 48, 64))
    right = (said.argmax(1) == masks)[masks != 255].float().mean()
    assert 0.8 < right < 0.999
    assert damaged(masks[:, :1, :1], num_classes=1).shape == (32, 1, 1, 1)


@torch.inference_mode()
def test_untrained_judges_let_the_segmenter_speak_and_sure_ones_do_not() -> None:
    net = model("cascade", segmenter=TINY, labels=[3], whole=[0, 1], width=4, depth=2)
    assert isinstance(net.net, Cascade)
    x = images()
    alone = net.net.segmenter(x.float() / 255)
    torch.testing.assert_close(net(x).softmax(1), alone.softmax(1), rtol=0, atol=0.05)
    last = [layer for layer in net.net.judges[1].modules() if isinstance(layer, torch.nn.Linear)][-1]
    last.bias.copy_(torch.tensor([-20.0, 20.0]))
    assert (net(x).argmax(1) == 1).all()
    assert net.heads[1].labels == (0, 1, 2, 0)
    assert [head.whole for head in net.heads[2:]] == [0, 1]


@torch.inference_mode()
def test_an_ensemble_averages_probabilities_of_models_with_their_own_normalisation() -> None:
    specs = [
        ModelSpec("unet", 3, 4, arguments=TINY["arguments"], mean=(0.3, 0.4, 0.5), std=(0.2,), scale=255.0),
        ModelSpec("unet", 3, 4, arguments={"width": 6, "depth": 3}, mean=(0.1,), std=(0.5,), scale=255.0,
                  never_predict=(0,)),
    ]  # fmt: skip
    members = [build_model(spec).eval() for spec in specs]
    whole = ensemble_of(members, weights=[3, 1], build=build_model).eval()
    wanted = 0.75 * members[0](images()).softmax(1) + 0.25 * members[1](images()).softmax(1)
    torch.testing.assert_close(whole(images()).exp(), wanted, rtol=1e-4, atol=1e-5)
    again = build_model(ModelSpec.from_dict(whole.spec.as_dict())).eval()
    again.load_state_dict(whole.state_dict())
    torch.testing.assert_close(again(images()), whole(images()))


@torch.inference_mode()
def test_a_soup_is_the_mean_of_weights() -> None:
    spec = ModelSpec("unet", 3, 4, arguments=TINY["arguments"])
    members = [build_model(spec).eval() for _ in range(2)]
    soup = soup_of(members, weights=[1, 1], build=build_model)
    for name, value in soup.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (members[0].state_dict()[name] + members[1].state_dict()[name]) / 2)
    same = soup_of([members[0], members[0]], weights=[1, 3], build=build_model).eval()
    torch.testing.assert_close(same(images()), members[0](images()))
    other = build_model(ModelSpec("unet", 3, 4, arguments={"width": 6, "depth": 2}))
    with pytest.raises(RecipeError, match="differ in their make-up"):
        soup_of([members[0], other], weights=[1, 1], build=build_model)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cascade", {"whole_share": 90}, r"whole_share 90.*such as 0\.9"),
        ("two_step", {}, "Name one or more rare classes"),
        ("two_step", {"labels": [7]}, "labels from 0 to 3"),
        ("two_step", {"labels": ["big rock"]}, "names of classes"),
        ("two_step", {"labels": [1], "rare": "unett"}, "no model 'unett'"),
        ("cascade", {"judge": "no_such_net", "segmenter": TINY}, "judge 'no_such_net'"),
        ("cascade", {"width": 0, "segmenter": TINY}, "width 0"),
        ("ensemble", {"members": []}, "Give a list of models"),
        ("ensemble", {"members": [TINY], "weights": [-1]}, "one number >= 0 a model"),
        ("refined", {"base": 3}, "base 3 is no model"),
    ],
)
def test_what_makes_no_model_is_refused(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        model(name, **arguments)


def test_refiner_takes_any_size() -> None:
    refiner = Refiner(1, 3, width=4, depth=4).eval()
    assert refiner(torch.rand(1, 1, 5, 9), torch.rand(1, 3, 5, 9).log_softmax(1)).shape == (1, 3, 5, 9)


def test_all_rows_of_this_kind_are_in_the_table() -> None:
    assert {"two_step", "one_per_class", "refined", "cascade", "ensemble"} <= set(MODELS)
