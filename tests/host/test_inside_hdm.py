"""HDM inside the host's own Python: the authors' trajectory, prompts and latents."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hosts import REPOSITORY, Checkout
from published_hdm import TEXT_WIDTH, WORDS, text_encoder

sys.path.append(str(Path(__file__).resolve().parents[1] / "networks"))
import test_xut as fixture
from formula import FIXTURES, relative_error

from sparse_model.checkpoints.checkpoint import save
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import TextSpec
from sparse_model.method.prediction import Flow

pytestmark = pytest.mark.slow
PROMPTS = ("1girl, nagato (azur lane), (masterpiece:1.3)", r"nagato \(azur lane\)", "")
CAMERAS = {0.25: {}, 0.5: {"x_shift": 0.1, "y_shift": -0.2, "zoom": 1.25}}


@pytest.fixture(scope="session")
def inside(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("inside-hdm")
    spec = ModelSpec(
        "xut", fixture.TINY, Flow(), fixture.THE_U, latent="eq-sdxl", text=TextSpec("", 24, 16, padded=False)
    )
    save(fixture.make(fixture.TINY).state_dict(), spec, folder / "tiny.safetensors")
    given = {name: fixture.prompt(name, count, batch=1).embeddings for name, count in (("prompt", 11), ("negative", 4))}
    given["other"] = given["prompt"].flip(1)
    given |= {"noise": torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(7)), "cameras": CAMERAS}
    torch.save({**given, **texts(checkout)}, folder / "given.pt")
    script = Path(__file__).with_name("inside_hdm.py")
    command = [checkout.python, script, checkout.root, REPOSITORY, folder]
    result = subprocess.run(
        command, cwd=folder, env=checkout.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return {**json.loads(result.stdout.splitlines()[-1]), "trajectories": torch.load(folder / "found.pt")}


def texts(checkout: Checkout) -> dict[str, Any]:
    """A text encoder, and what the authors' pipeline makes with it of PROMPTS: the tokens of Qwen's tokenizer and
    nothing around them, one token of padding for an empty prompt, the last hidden state."""
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen3 import Qwen3Config, Qwen3Model

    words = Qwen2Tokenizer.from_pretrained(Path(checkout.root, "comfy", "text_encoders", "qwen25_tokenizer"))
    sizes = {"vocab_size": WORDS, "hidden_size": TEXT_WIDTH, "intermediate_size": 48, "head_dim": 128}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen3Model(Qwen3Config(**sizes, **layers, rope_theta=1e6)).eval()
    state = text_encoder()
    model.load_state_dict(state)
    found = {}
    for prompt in PROMPTS:
        ids = words(prompt.replace("\\(", "(").replace("\\)", ")"))["input_ids"] or [151643]
        with torch.no_grad():
            found[prompt] = model(input_ids=torch.tensor([ids])).last_hidden_state
    return {"text encoder": state, "texts": found}


@pytest.mark.parametrize("gamma", CAMERAS)
def test_the_trajectory_of_the_authors_pipeline(inside: dict[str, Any], gamma: float) -> None:
    """Their own code from the same noise and embeddings, step by step, without and with a camera."""
    with np.load(FIXTURES / "xut.npz") as file:
        expected = torch.from_numpy(file[f"trajectory_{gamma:g}"]).split(1)
    for step, (ours, theirs) in enumerate(zip(inside["trajectories"][f"{gamma:g}"], expected, strict=True)):
        assert relative_error(ours, theirs) < 3e-5, f"step {step}"


def test_prompts_of_one_length_share_a_pass(inside: dict[str, Any]) -> None:
    """The dense and the sparse prediction are one call of the network, whose results do not depend on that."""
    assert inside["together"]["rows"] == [2] * 8 + [1] * 16
    assert inside["together"]["difference"] < 1e-4


def test_a_compiled_model_compiles_once_per_prompt_length(inside: dict[str, Any]) -> None:
    """Two prompts of two lengths, one of them sparse; neither a step nor a camera compiles anew."""
    assert inside["compiled"]["second"] == inside["compiled"]["first"] == 2
    assert inside["compiled"]["difference"] < 1e-4


def test_prompts_are_read_as_the_authors_pipeline_reads_them(inside: dict[str, Any]) -> None:
    """In float32 by the host's own Qwen3; a host without one runs that of transformers in bfloat16."""
    assert max(inside["text"]) < (1e-5 if inside["own"] else 0.05)


def test_latents_have_a_mean_and_a_deviation_and_previews_their_colours(inside: dict[str, Any]) -> None:
    latent = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([-3.865960634760459, -1.3353925720045965, 0.8353661802812418, 0.909888159310023])
    deviation = torch.tensor([10.036514488374861, 6.848430044716239, 7.213817552213277, 5.591315799887989])
    normal = (latent - mean.view(1, 4, 1, 1)) / deviation.view(1, 4, 1, 1)
    assert relative_error(torch.tensor(inside["normal"]).view_as(normal), normal) < 1e-6
    assert inside["back"] < 1e-6
    *factors, bias = torch.tensor(inside["sdxl"])
    raw = torch.cat([torch.zeros(1, 4), 5 * torch.eye(4)])
    shown = ((0.13025 * raw @ torch.stack(factors) + bias + 1) / 2).clamp(0, 1)
    assert (torch.tensor(inside["colours"]) - shown).abs().max() < 1.5 / 255
