"""Text encoders of published models, from folders in the format of the package `transformers`.

The package is imported when an encoder is loaded, not before. Weights come from safetensors (of CLIP, which was not
published so, from pickles that are read for tensors alone), nothing is fetched, and no code of a folder is run.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..files import FileError, printable, read_json
from .prompts import CLEANING
from .text import Text


class Kind(NamedTuple):
    """How a published pipeline reads prompts: `encoder` names it (text.ENCODERS), prompts are cleaned, padded to and
    cut at `length` tokens, or left as long as they are (None). `take` finds the part that encodes text in the class
    `model` of transformers. `pad` is the token that stands for padding where a network reads the padding like the
    prompt, None where it is masked. If it is `unmasked`, the encoder alone reads the padding; what a causal one makes
    of a prompt is the same either way."""

    encoder: str
    length: int | None
    cleaning: str
    model: str
    take: Callable[[Any], nn.Module] = lambda whole: whole
    options: Mapping[str, Any] = {}
    pad: int | None = None
    unmasked: bool = False


# MicroDiT's text encoder was run by open_clip, which pads with zeros and masks nothing
CLIP = Kind("clip-h", 77, "light", "clip.CLIPTextModel", options={"use_safetensors": None}, pad=0)
# HDM's pipeline pads the prompts of a batch to the longest; an empty prompt is one token of padding
QWEN3 = Kind("qwen3-0.6b", None, "plain", "qwen3.Qwen3Model", pad=151643)
# Nitro-T's larger network reads padding as its pipeline encodes it, without a mask; the smaller one's sees none of it.
LLAMA = Kind("llama3.2-1b", 256, "none", "llama.LlamaModel", unmasked=True)
CLEANED = {"NitroDiTPipeline": "twice"}
"""What pipelines clean that read prompts by an encoder that others read uncleaned prompts by."""
# by the model_type in a folder's config.json: whole models, and the parts that diffusers keeps of them
KINDS: dict[str, Kind] = {
    "t5gemma": Kind(
        "t5gemma-2b",
        256,
        "thorough",
        "t5gemma.T5GemmaEncoderModel",
        lambda whole: whole.encoder,
        {"is_encoder_decoder": False},
    ),
    "t5_gemma_module": Kind("t5gemma-2b", 256, "thorough", "t5gemma.T5GemmaEncoder"),
    "qwen3_vl": Kind(
        "qwen3-vl-2b",
        256,
        "light",
        "qwen3_vl.Qwen3VLForConditionalGeneration",
        lambda model: model.model.language_model,
    ),
    "qwen3_vl_text": Kind("qwen3-vl-2b", 256, "light", "qwen3_vl.Qwen3VLTextModel"),
    "qwen3": QWEN3,
    "llama": LLAMA,
    "clip": CLIP,
    "clip_text_model": CLIP,
}
NEEDED = "transformers 4.57 or newer (pip install -U transformers)"


@dataclass(frozen=True)
class PromptEncoder:
    """Prompts to Text, as the published pipeline does it."""

    kind: Kind
    tokenizer: Any
    model: nn.Module

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids [N, length] and their mask, True where the network reads: at tokens of the prompt, or at all."""
        cleaned = [CLEANING[self.kind.cleaning](encodable(prompt)) for prompt in prompts]
        if self.kind.length is None:
            return self.unpadded(cleaned)
        encoded = self.tokenizer(
            cleaned,
            padding="max_length",
            max_length=self.kind.length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"].bool()
        if self.kind.pad is None:
            return ids, mask
        return ids.masked_fill(~mask, self.kind.pad), torch.ones_like(mask)

    def unpadded(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The same at the length of the longest prompt."""
        rows = [self.tokenizer(prompt)["input_ids"] or [self.kind.pad] for prompt in prompts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.kind.pad] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([[place < len(row) for place in range(longest)] for row in rows])

    @torch.no_grad()
    def encode(self, ids: Tensor, mask: Tensor) -> Text:
        """What `tokens` gave, on the model's device -> Text of the model's width."""
        seen = torch.ones_like(mask) if self.kind.unmasked else mask
        return Text(self.model(input_ids=ids, attention_mask=seen).last_hidden_state, mask)


def encodable(prompt: str) -> str:
    """A prompt that any tokenizer takes: with question marks for halves of characters, which JSON can hold."""
    return prompt.encode("utf-8", "replace").decode("utf-8")


def load_encoder(folder: Path, dtype: torch.dtype) -> PromptEncoder:
    """The encoder of a folder with its tokenizer; ValueError in one sentence if it cannot be loaded.

    `folder` holds config.json and weights; the tokenizer's files lie there, or in a folder 'tokenizer' in it or beside.
    """
    kind = kind_of(folder)
    if kind is None:
        raise ValueError(f"'{folder.name}' holds no text encoder of a known kind ({', '.join(KINDS)}).")
    tokenizer = next(
        (
            place
            for place in (folder, folder / "tokenizer", folder.parent / "tokenizer")
            if (place / "tokenizer_config.json").is_file() or (place / "tokenizer.json").is_file()
        ),
        None,
    )
    if tokenizer is None:
        raise ValueError(f"'{folder.name}' lacks its tokenizer: put the folder 'tokenizer' of the model beside it.")
    local = {"local_files_only": True, "trust_remote_code": False}
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **local, **kind.options}
    try:
        from transformers import AutoTokenizer

        words = AutoTokenizer.from_pretrained(tokenizer, **local)
        if words.pad_token is None:
            words.pad_token = words.eos_token
        model, report = _class(kind).from_pretrained(folder, **options)
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"it lacks {len(missing)} weights, such as {missing[0]}")
        return PromptEncoder(kind, words, kind.take(model).eval())
    except ImportError as error:
        raise ValueError(f"Encoding prompts with '{folder.name}' needs the package {NEEDED}.") from error
    except Exception as error:  # whatever the package raises for a damaged folder, in one sentence
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"'{printable(folder.name)}' cannot be loaded ({printable(reason, 200)}).") from error


def kind_of(folder: Path) -> Kind | None:
    """What kind of text encoder a folder holds, by its config.json, and how the pipeline whose part it is reads."""
    try:
        kind = KINDS.get(read_json(folder / "config.json")["model_type"])
    except (FileError, KeyError, TypeError):
        return None
    if kind is LLAMA:
        kind = kind._replace(cleaning=CLEANED.get(_pipeline(folder.parent), kind.cleaning))
    return kind


def _pipeline(folder: Path) -> str:
    """The class of the diffusers pipeline in a folder, "" if there is none."""
    try:
        name = read_json(folder / "model_index.json")["_class_name"]
    except (FileError, KeyError, TypeError):
        return ""
    name = name[-1] if isinstance(name, list) and name else name  # [module, class] of a pipeline with code of its own
    return name if isinstance(name, str) else ""


def _class(kind: Kind) -> Any:
    module, name = kind.model.split(".")
    return getattr(importlib.import_module(f"transformers.models.{module}.modeling_{module}"), name)
