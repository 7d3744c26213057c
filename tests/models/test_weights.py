"""Weights of an encoder: from files under many names, by the library, and every way in which they may not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segwright.errors import WeightsError
from segwright.models import ModelSpec, SegmentationModel, WeightsReport, build_model, library, load_encoder_weights
from segwright.models import weights as weights_room
from segwright.models.weight_files import adapt_first_convolution
from segwright.models.weights import known_weights


def model_of(encoder: str = "resnet18", *, channels: int = 3, seed: int = 1) -> SegmentationModel:
    torch.manual_seed(seed)
    return build_model(ModelSpec("fpn", channels, 2, encoder=encoder, arguments={"decoder_pyramid_channels": 8}))


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model_of(seed=7).encoder.state_dict().items()}


def equal(model: SegmentationModel, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.encoder.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.", "model.encoder.", "module.backbone."])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_names_are_found_below_prefixes(tmp_path: Path, trained: dict[str, Tensor], prefix: str, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    state = {prefix + key: value for key, value in trained.items()} | {f"{prefix}fc.weight": torch.zeros(3)}
    if ending == ".pth":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        save_file(state, path, metadata={"mean": "0.485, 0.456,0.406", "std": "0.2", "licence": "CC0"})
    model = model_of()
    report = load_encoder_weights(model, str(path))
    assert equal(model, trained)
    assert report.missing == []
    assert report.unexpected == [f"{prefix}fc.weight"]
    assert report.matched == sum(not key.endswith("num_batches_tracked") for key in trained)
    if ending == ".safetensors":
        assert (report.mean, report.std, report.licence) == ((0.485, 0.456, 0.406), (0.2, 0.2, 0.2), "CC0")
    else:
        assert (report.mean, report.std, report.licence) == (None, None, "not stated by the source")


def test_timm_encoders_find_names_with_and_without_their_own_prefix(tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in model_of("tu-resnet10t", seed=7).encoder.state_dict().items()}
    for number, strip in enumerate(("", "model.")):
        path = tmp_path / f"{number}.safetensors"
        save_file({key.removeprefix(strip): value for key, value in state.items()}, path)
        model = model_of("tu-resnet10t")
        load_encoder_weights(model, str(path))
        assert equal(model, state)


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_the_first_convolution_is_adapted(tmp_path: Path, trained: dict[str, Tensor], channels: int) -> None:
    path = tmp_path / "rgb.safetensors"
    save_file(trained, path, metadata={"mean": "0.4 0.5 0.6"})
    model = model_of(channels=channels)
    report = load_encoder_weights(model, str(path))
    assert report.missing == []
    kernel = model.encoder.state_dict()["conv1.weight"]
    gray = torch.rand(1, 1, 9, 9)
    # A picture whose channels are all alike looks the same to both.
    wanted = torch.nn.functional.conv2d(gray.expand(-1, 3, -1, -1), trained["conv1.weight"])
    if channels == 7:
        repeated = trained["conv1.weight"][:, [0, 1, 2, 0, 1, 2, 0]] * 3 / 7
        wanted = torch.nn.functional.conv2d(gray.expand(-1, 7, -1, -1), repeated)
    if channels == 2:
        wanted = torch.nn.functional.conv2d(gray.expand(-1, 2, -1, -1), trained["conv1.weight"][:, :2]) * 3 / 2
    torch.testing.assert_close(torch.nn.functional.conv2d(gray.expand(-1, channels, -1, -1), kernel), wanted)
    cycle = (0.4, 0.5, 0.6, 0.4, 0.5, 0.6, 0.4)[:channels]
    assert report.mean == pytest.approx((0.5,) if channels == 1 else cycle)


def test_nine_tenths_are_enough_and_less_is_not(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    path = tmp_path / "part.safetensors"
    names = [key for key in trained if not key.endswith("num_batches_tracked")]
    few = len(names) // 20
    save_file({key: trained[key] for key in names[few:]}, path)
    report = load_encoder_weights(model_of(), str(path))
    assert report.missing == names[:few]
    save_file({key: trained[key] for key in names[len(names) // 5 :]}, path)
    model = model_of()
    before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
    with pytest.raises(WeightsError, match=r"fits \d+ of \d+ tensors of encoder 'resnet18': 'conv1\.weight' (is|has)"):
        load_encoder_weights(model, str(path))
    assert equal(model, before)


def test_other_weights_are_refused_with_the_first_misses(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({key: value.clone() for key, value in model_of("resnet34").encoder.state_dict().items()}, path)
    with pytest.raises(WeightsError, match=r"fits \d+ of \d+ tensors of encoder 'mobilenet_v2': '[\w.]+' (is|has) "):
        load_encoder_weights(model_of("mobilenet_v2"), str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"", "cannot be read"),
        (b"PK not a checkpoint", "cannot be read|foreign code"),
    ],
)
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes | None, message: str, ending: str) -> None:
    path = tmp_path / f"bad{ending}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_encoder_weights(model_of(), str(path))
    assert str(path) in str(caught.value)


def test_pickled_code_and_broken_numbers_are_refused(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    path = tmp_path / "code.pth"
    torch.save({"state_dict": trained, "path": Path("x")}, path)
    with pytest.raises(WeightsError, match="foreign code"):
        load_encoder_weights(model_of(), str(path))
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="no tensors by name"):
        load_encoder_weights(model_of(), str(path))
    torch.save({**trained, "conv1.weight": torch.full_like(trained["conv1.weight"], float("nan"))}, path)
    with pytest.raises(WeightsError, match=r"'conv1\.weight' is not finite"):
        load_encoder_weights(model_of(), str(path))


def test_named_weights_without_a_network_are_an_error() -> None:
    with pytest.raises(WeightsError, match="not in the local cache, and downloads are off"):
        load_encoder_weights(model_of(), "imagenet")
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        load_encoder_weights(model_of(), "imagenet", offline=False)
    with pytest.raises(WeightsError, match="There are: imagenet, ssl, swsl"):
        load_encoder_weights(model_of(), "imagenat")
    with pytest.raises(WeightsError, match="which has no encoder"):
        load_encoder_weights(build_model(ModelSpec("unet", 3, 2)), "imagenet")


def test_named_weights_bring_their_normalization(monkeypatch: pytest.MonkeyPatch, trained: dict[str, Tensor]) -> None:
    """The hub is played by a file; all else is the library's own way."""
    encoders = library.smp.encoders

    def from_hub(name: str, *, weights: str | None = None, **_: object) -> torch.nn.Module:
        encoder = real(name)
        if weights is not None:
            assert weights == "imagenet"
            encoder.load_state_dict(trained)
        return encoder

    real = encoders.get_encoder
    monkeypatch.setattr("segmentation_models_pytorch.decoders.fpn.model.get_encoder", from_hub)
    settings = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_range": [0, 1]}
    monkeypatch.setattr(encoders, "get_preprocessing_params", lambda name, pretrained: settings)
    model = model_of()
    report = load_encoder_weights(model, "imagenet")
    assert equal(model, trained)
    assert report.mean == (0.485, 0.456, 0.406)
    assert report.source == "imagenet (smp-hub/resnet18.imagenet at 3f2325f)"


def test_what_can_be_fetched_is_known_without_a_network() -> None:
    assert known_weights("resnet18") == ("imagenet", "ssl", "swsl")
    assert known_weights("tu-convnext_tiny") == ("imagenet",)
    assert known_weights("tu-test_vit.r160_in1k") == ("imagenet",)


def test_adapting_is_as_the_library_does_it() -> None:
    from segmentation_models_pytorch.encoders._utils import patch_first_conv

    for channels in (1, 2, 4, 7):
        layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
        weight = layer[0].weight.detach().clone()
        patch_first_conv(layer, channels)
        torch.testing.assert_close(adapt_first_convolution(weight, in_channels=channels), layer[0].weight.detach())


def test_a_segformer_encoder_of_hugging_face_is_read(tmp_path: Path) -> None:
    encoder = model_of("mit_b0", seed=7).encoder
    assert encoder is not None
    state: dict[str, Tensor] = {}
    for name, value in encoder.state_dict().items():
        stage, rest = re.fullmatch(r"\D+(\d)\.(.*)", name).groups()  # type: ignore[union-attr]
        place = int(stage) - 1
        if name.startswith("patch_embed"):
            state[f"patch_embeddings.{place}.{rest.replace('norm', 'layer_norm')}"] = value
        elif name.startswith("norm"):
            state[f"layer_norm.{place}.{rest}"] = value
        elif ".attn.kv." in name:
            for part, half in zip(("key", "value"), value.chunk(2), strict=True):
                state[f"block.{place}.{rest.replace('attn.kv', f'attention.self.{part}')}"] = half.clone()
        else:
            for ours, theirs in THEIRS.items():
                if ours in rest:
                    rest = rest.replace(ours, theirs)
                    break
            state[f"block.{place}.{rest}"] = value
    path = tmp_path / "model.safetensors"
    extra = {"classifier.weight": torch.zeros(3)}
    save_file({f"segformer.encoder.{name}": value for name, value in state.items()} | extra, path)
    model = model_of("mit_b0")
    report = load_encoder_weights(model, str(path))
    assert equal(model, {key: value.clone() for key, value in encoder.state_dict().items()})
    assert (report.missing, report.unexpected) == ([], ["classifier.weight"])
    assert "NVIDIA" in report.licence
    assert str(report) == f"{report.matched} tensors from {path}; left over: classifier.weight"


THEIRS = {
    "attn.q": "attention.self.query", "attn.sr": "attention.self.sr", "attn.norm": "attention.self.layer_norm",
    "attn.proj": "attention.output.dense", "norm1": "layer_norm_1", "norm2": "layer_norm_2",
    "mlp.fc1": "mlp.dense1", "mlp.fc2": "mlp.dense2", "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
}  # fmt: skip
"""Parts of a block in the paper's names and in those of https://huggingface.co/nvidia/mit-b0."""


def test_each_branch_with_an_encoder_gets_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def loaded(model: SegmentationModel, encoder: object, weights: str, *, offline: bool) -> WeightsReport:
        assert encoder is model.encoder
        asked.append((model.spec.name, model.spec.encoder, weights))
        return WeightsReport("hub", (0.5,), (0.2,), 60, [], [], "BSD")

    monkeypatch.setattr(weights_room, "_from_library", loaded)
    second = {"name": "swiftnet", "encoder": "resnet18", "arguments": {"width": 8}}
    model = build_model(ModelSpec("uformer", 3, 2, arguments={"first": "unet", "second": second}))
    report = load_encoder_weights(model, "imagenet")
    assert asked == [("swiftnet", "resnet18", "imagenet")]
    assert (report.mean, report.matched, report.licence) == (None, 60, "BSD")
