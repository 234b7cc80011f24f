"""Qwen3 0.6B out of a file of weights: the text encoder of HDM, inside its checkpoint or as Qwen published it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..files import FileError
from ..tensors import Stored
from .encoder import NEEDED, QWEN3, PromptEncoder

HEAD = 128  # channels, in every Qwen3
LAYER = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "self_attn.q_norm", "self_attn.k_norm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
Value = TypeVar("Value")


def weights(state: Mapping[str, Value], prefix: str = "") -> dict[str, Value]:
    """The entries of the network behind a prefix, by the keys of transformers' Qwen3Model; {} if there are none."""
    inside = (prefix + part for part in ("model.", ""))
    start = next((part for part in inside if f"{part}embed_tokens.weight" in state), None)
    if start is None:
        return {}
    parts = tuple(start + part for part in ("embed_tokens.", "layers.", "norm."))
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(parts)}


def sizes(state: Mapping[str, Stored | Tensor]) -> dict[str, int]:
    """Of a network with these weights, by the names that its configuration has; FileError if they are not whole."""
    layers = len({key.split(".")[1] for key in state if key.startswith("layers.")})
    wanted = ["embed_tokens.weight", "norm.weight"]
    wanted += [f"layers.{layer}.{part}.weight" for layer in range(max(layers, 1)) for part in LAYER]
    missing = [key for key in wanted if key not in state]
    if missing:
        raise FileError(f"it lacks {len(missing)} weights of a Qwen3, such as {missing[0]}.")
    words, width = state["embed_tokens.weight"].shape
    head = state["layers.0.self_attn.q_norm.weight"].shape[0]
    if head != HEAD:
        raise FileError(f"its text encoder has heads of {head} channels, where those of a Qwen3 have {HEAD}.")
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": state["layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": state["layers.0.self_attn.q_proj.weight"].shape[0] // head,
        "num_key_value_heads": state["layers.0.self_attn.k_proj.weight"].shape[0] // head,
    }


def prompt_encoder(state: dict[str, Tensor], words: Path, dtype: torch.dtype) -> PromptEncoder:
    """The encoder of `transformers` with these weights, and the tokenizer of the folder `words`."""
    try:
        from transformers import Qwen2Tokenizer
        from transformers.models.qwen3 import Qwen3Config, Qwen3Model
    except ImportError as error:
        raise FileError(f"Encoding prompts with Qwen3 needs the package {NEEDED}.") from error
    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config(**sizes(state), head_dim=HEAD, rope_theta=1e6, rms_norm_eps=1e-6))
    model.load_state_dict({key: state[key].to(dtype) for key in model.state_dict()}, assign=True)
    model.rotary_emb = type(model.rotary_emb)(model.config)  # its table of frequencies is not among the weights
    return PromptEncoder(QWEN3, Qwen2Tokenizer.from_pretrained(words), model.eval())
