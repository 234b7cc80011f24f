"""A text encoder of `transformers` as the host's CLIP, so that the stock nodes encode prompts with it."""

from pathlib import Path
from typing import Any

import comfy.hooks
import comfy.model_management as management
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn

from ....sparse_model.conditions.encoder import PromptEncoder, load_encoder
from ..notices import Notices, show


class Tokenizer:
    """What the host's CLIP asks for tokens. Weights in brackets are text like any other: the models know none."""

    def __init__(self, encoder: PromptEncoder):
        self.encoder = encoder

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Tensor]:
        ids, mask = self.encoder.tokens([text])
        return {"ids": ids, "mask": mask}


class Encoder(nn.Module):
    """What the host's CLIP asks for embeddings; its patcher moves the model between devices."""

    def __init__(self, encoder: PromptEncoder):
        super().__init__()
        self.encoder, self.model = encoder, encoder.model

    def encode_token_weights(self, tokens: dict[str, Tensor]) -> tuple[Tensor, None, dict[str, Tensor]]:
        """-> embeddings [1, M, D], no pooled output, and the attention mask [1, M]."""
        device = next(self.model.parameters()).device
        text = self.encoder.encode(tokens["ids"].to(device), tokens["mask"].to(device))
        place = management.intermediate_device()
        return text.embeddings.float().to(place), None, {"attention_mask": text.mask.to(place)}

    def reset_clip_options(self) -> None:
        """The host calls it before every prompt; there are no options."""
        show("")

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Likewise: neither a layer nor a projection can be chosen."""
        warn_of_layer(options)


def warn_of_layer(options: dict[str, Any]) -> None:
    """Says under the node that encodes that its CLIP Set Last Layer has no effect."""
    if options.get("layer") is not None:
        Notices().say("CLIP Set Last Layer has no effect on this text encoder, which has one output; take it out.")


def load_clip(folder: Path) -> comfy.sd.CLIP:
    """A CLIP around the encoder of a folder."""
    return hosted(load_encoder(folder, precision()))


def precision() -> torch.dtype:
    """bfloat16, in which all encoders are published, or float32 where a device lacks it."""
    device = management.text_encoder_device()
    known = management.is_device_cpu(device) or management.should_use_bf16(device)
    return torch.bfloat16 if known else torch.float32


def hosted(encoder: PromptEncoder) -> comfy.sd.CLIP:
    return wrapped(Tokenizer(encoder), Encoder(encoder))


def wrapped(tokenizer: Any, model: nn.Module) -> comfy.sd.CLIP:
    """A CLIP around what the host asks for tokens and for embeddings."""
    device, offload = management.text_encoder_device(), management.text_encoder_offload_device()
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.cond_stage_model = tokenizer, model.to(offload)
    clip.patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)
    clip.patcher.hook_mode, clip.patcher.is_clip = comfy.hooks.EnumHookMode.MinVram, True
    clip.layer_idx, clip.use_clip_schedule, clip.apply_hooks_to_conds, clip.tokenizer_options = None, False, None, {}
    return clip
