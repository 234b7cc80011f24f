"""Qwen3 0.6B out of a file of weights: the text encoder of HDM, inside its checkpoint or as Qwen published it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from .encoder import NEEDED, QWEN3, PromptEncoder

HEAD = 128  # channels, in every Qwen3
Value = TypeVar("Value")


def weights(state: Mapping[str, Value], prefix: str = "") -> dict[str, Value]:
    """The entries of the network behind a prefix, by the keys of transformers' Qwen3Model; {} if there are none."""
    inside = (prefix + part for part in ("model.", ""))
    start = next((part for part in inside if f"{part}embed_tokens.weight" in state), None)
    if start is None:
        return {}
    parts = tuple(start + part for part in ("embed_tokens.", "layers.", "norm."))
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(parts)}


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Of a network with these weights, by the names that its configuration has; ValueError if it is no Qwen3."""
    try:
        words, width = state["embed_tokens.weight"].shape
        layers = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("layers."))
        head = state["layers.0.self_attn.q_norm.weight"].shape[0]
        heads, pairs = (state[f"layers.0.self_attn.{part}_proj.weight"].shape[0] // head for part in "qk")
        hidden = state["layers.0.mlp.gate_proj.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ValueError("it holds no whole Qwen3.") from error
    if head != HEAD:
        raise ValueError(f"its text encoder has heads of {head} channels, where those of a Qwen3 have {HEAD}.")
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
    }


def prompt_encoder(state: dict[str, Tensor], words: Path, dtype: torch.dtype) -> PromptEncoder:
    """The encoder of `transformers` with these weights, and the tokenizer of the folder `words`."""
    try:
        from transformers import Qwen2Tokenizer
        from transformers.models.qwen3 import Qwen3Config, Qwen3Model
    except ImportError as error:
        raise ValueError(f"Encoding prompts with Qwen3 needs the package {NEEDED}.") from error
    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config(**sizes(state), head_dim=HEAD, rope_theta=1e6, rms_norm_eps=1e-6))
    missing = sorted(model.state_dict().keys() - state.keys())
    if missing:
        raise ValueError(f"its text encoder lacks {len(missing)} weights, such as {missing[0]}.")
    model.load_state_dict({key: state[key].to(dtype) for key in model.state_dict()}, assign=True)
    model.rotary_emb = type(model.rotary_emb)(model.config)  # its table of frequencies is not among the weights
    return PromptEncoder(QWEN3, Qwen2Tokenizer.from_pretrained(words), model.eval())
