"""Qwen3 0.6B as the host's CLIP, which reads prompts as HDM's pipeline does: the host's own where it has one, else that
of `transformers`.

No template stands around a prompt and no token behind it, and brackets are text like any other.
"""

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.text_encoders.llama
import folder_paths
from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from torch import Tensor, nn

from ....sparse_model.conditions.encoder import QWEN3, encodable
from ....sparse_model.conditions.qwen3 import prompt_encoder, sizes
from ..notices import show
from .text import hosted, precision, warn_of_layer, wrapped

NAME = "qwen3_06b"
NETWORK = getattr(comfy.text_encoders.llama, "Qwen3_06B", None)
WORDS = Path(comfy.text_encoders.llama.__file__).parent / "qwen25_tokenizer"


class Words(sd1_clip.SDTokenizer):
    def __init__(self, **options: Any):
        from transformers import Qwen2Tokenizer

        super().__init__(
            str(WORDS), tokenizer_class=Qwen2Tokenizer, embedding_size=1024, embedding_key=NAME, pad_token=QWEN3.pad,
            has_start_token=False, has_end_token=False, pad_with_end=False, pad_to_max_length=False, min_length=1,
            max_length=1 << 30, **options,
        )  # fmt: skip


class Prompts(sd1_clip.SD1Tokenizer):
    def __init__(self, **options: Any):
        super().__init__(name=NAME, tokenizer=Words, **options)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Any]:
        return super().tokenize_with_weights(encodable(text), return_word_ids, **{**options, "disable_weights": True})


class LastHiddenState(sd1_clip.SDClipModel):
    """A prompt has no padding, so nothing is masked: not even the one token that an empty prompt is."""

    def __init__(self, **options: Any):
        super().__init__(
            textmodel_json_config={}, special_tokens={"pad": QWEN3.pad}, layer_norm_hidden_state=False,
            model_class=NETWORK, **options,
        )  # fmt: skip


class Encoder(sd1_clip.SD1ClipModel):
    def __init__(self, **options: Any):
        super().__init__(name=NAME, clip_model=LastHiddenState, **options)

    def reset_clip_options(self) -> None:
        show("")
        super().reset_clip_options()

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """A layer is not chosen: even the last one would come without the norm that HDM is trained behind."""
        warn_of_layer(options)
        super().set_clip_options({name: value for name, value in options.items() if name != "layer"})


def clip_of(state: dict[str, Tensor], disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """A CLIP with these weights (`qwen3.weights`), which are whole."""
    if NETWORK is None:
        return hosted(prompt_encoder(state, WORDS, precision()))
    options = {"model_options": {f"{NAME}_model_config": sizes(state)}}
    if disable_dynamic:
        options["disable_dynamic"] = True
    parameters = sum(value.numel() for value in state.values())
    folders = folder_paths.get_folder_paths("embeddings")
    clip = comfy.sd.CLIP(ClipTarget(Prompts, Encoder), embedding_directory=folders, parameters=parameters, **options)
    clip.load_sd({f"model.{key}": value for key, value in state.items()})
    return clip


class Absent:
    """A tokenizer that says what is missing when the first prompt comes."""

    def __init__(self, sentence: str):
        self.sentence = sentence

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> None:
        raise ValueError(self.sentence)


def absent_clip(sentence: str) -> comfy.sd.CLIP:
    """A CLIP that can be passed on and patched, and that raises `sentence` for a prompt."""
    return wrapped(Absent(sentence), nn.Module())
