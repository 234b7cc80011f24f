"""Networks kept in one or two bytes per number: what that never touches, and that predictions are the nearer for it."""

from pathlib import Path

import pytest
import torch
from formula import formula
from microdit_fixture import PROMPT
from microdit_fixture import TINY as MICRODIT
from torch import Tensor

from sparse_model.checkpoints import checkpoint
from sparse_model.checkpoints.bundled import BUNDLED
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import Text, TextSpec
from sparse_model.method.prediction import EDM, Flow
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.xut import XUTConfig

XUT = ModelSpec(
    "xut", XUTConfig(8, width=64, heads=2, hidden=96, text_width=24, levels=1, after=1), Flow(),
    Sparsity((Route(1, 1),)), latent="eq-sdxl", text=TextSpec("qwen3-0.6b", 24, 6, padded=False),
)  # fmt: skip
EXPERTS = ModelSpec(
    "microdit", MICRODIT, EDM(0.9), Sparsity(mask=0.75), latent="sdxl", text=TextSpec("clip-h", 24, 6, "zeros")
)
EIGHT = [torch.float8_e4m3fn, torch.float8_e5m2]
SIGMAS = (0.2, 0.5, 0.9)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained networks, and networks of weights by formula whose places turn by 1 to 245 radians over half a picture
    and whose norms are around 1."""
    folder = tmp_path_factory.mktemp("precision")
    for name, spec in (("xut", XUT), ("microdit", EXPERTS)):
        state = {key: formula(key, tuple(value.shape)) for key, value in checkpoint.build(spec).state_dict().items()}
        for key, value in state.items():
            if key.endswith("freqs"):
                state[key] = torch.linspace(0, 5.5, value.numel()).reshape(value.shape)
            elif "norm" in key and key.endswith("weight"):
                state[key] = 1 + value
        checkpoint.save(state, spec, folder / f"{name}.safetensors")
    bundled = {name: BUNDLED / f"{name}.safetensors" for name in ("icons-64", "icons-32-masked")}
    return bundled | {name: folder / f"{name}.safetensors" for name in ("xut", "microdit")}


def kept_in(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    with checkpoint.open_checkpoint(path) as opened:
        network = checkpoint.build(opened.spec)
        checkpoint.fill(network, opened, dtype, "cpu")
    return network.state_dict()


def error(path: Path, state: dict[str, Tensor]) -> float:
    """How far the predictions of D with these weights are from those with the file's, all products in float32: RMS as a
    share of the picture, the mean over noise levels."""
    network, spec = checkpoint.load(path)
    size, channels = spec.config.input_size, spec.config.in_channels
    z = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))
    y = torch.eye(spec.config.num_classes)[3:5] if spec.text is None else Text(PROMPT.embeddings, None)
    found = []
    for weights in (network.state_dict(), {key: value.float() for key, value in state.items()}):
        network.load_state_dict(weights)
        found.append([spec.prediction.denoise(network, s * z, torch.full((2,), s), y) for s in SIGMAS])
    return sum(float((b - a).norm() / a.norm()) for a, b in zip(*found, strict=True)) / len(SIGMAS)


@pytest.mark.parametrize("name", ["icons-64", "icons-32-masked", "xut", "microdit"])
@pytest.mark.parametrize("dtype", EIGHT)
def test_one_byte_per_number_is_for_matrices_of_layers(files: dict[str, Path], name: str, dtype: torch.dtype) -> None:
    """Predictions are nearer to those of the file than with every number in one byte, in memory that is much the
    same."""
    kept = kept_in(files[name], dtype)
    everything = {key: value.to(dtype) for key, value in kept_in(files[name], torch.float32).items()}
    assert error(files[name], kept) < 0.95 * error(files[name], everything)
    coarse = {key for key, value in kept.items() if value.dtype == dtype}
    assert coarse and all(kept[key].ndim > 1 and key.endswith((".weight", ".w1", ".w2")) for key in coarse)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *EIGHT])
def test_the_logarithms_of_frequencies_are_never_rounded(files: dict[str, Path], dtype: torch.dtype) -> None:
    original, kept = kept_in(files["xut"], torch.float32), kept_in(files["xut"], dtype)
    exact = {key for key, value in kept.items() if value.dtype == torch.float32}
    assert exact == {key for key in kept if key.endswith("freqs")} and len(exact) == 7
    assert all(torch.equal(kept[key], original[key]) for key in exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["icons-64", "icons-32-masked", "microdit"])
def test_nothing_else_is_kept_otherwise_in_two_bytes(files: dict[str, Path], name: str, dtype: torch.dtype) -> None:
    assert {value.dtype for value in kept_in(files[name], dtype).values()} == {dtype}


def test_what_chooses_tokens_is_not_rounded_to_one_byte(files: dict[str, Path]) -> None:
    kept = kept_in(files["microdit"], torch.float8_e4m3fn)
    dtypes = {key: value.dtype for key, value in kept.items() if ".mlp." in key}
    assert dtypes["blocks.1.mlp.gate.weight"] == torch.float16
    assert dtypes["blocks.1.mlp.w1"] == dtypes["blocks.1.mlp.w2"] == torch.float8_e4m3fn
