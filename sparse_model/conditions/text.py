"""Text conditions: what a text-conditional network is given, and which encoder its prompts have to come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Text(NamedTuple):
    """Encoded prompts: `embeddings` [N, M, D] and `mask` [N, M], True where a token of the prompt stands.

    Where the mask is False stands padding, which must not be attended to; None: there is no padding.
    """

    embeddings: Tensor
    mask: Tensor | None


Condition = Tensor | Text
"""What a network is conditioned on: label weights [N, classes], or Text."""

ENCODERS: dict[str, str] = {
    "t5gemma-2b": "the encoder of google/t5gemma-2b-2b-ul2",
    "qwen3-vl-2b": "the text part of Qwen/Qwen3-VL-Embedding-2B",
    "clip-h": "the text part of apple/DFN5B-CLIP-ViT-H-14-378",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "llama3.2-1b": "meta-llama/Llama-3.2-1B",
}
"""Text encoders by name, in words for people."""


@dataclass(frozen=True)
class TextSpec:
    """The prompts that a text-conditional network was trained on.

    `encoder` is a key of ENCODERS, or "" if the file does not tell. `width` is D of the embeddings and `length` the
    number of tokens that a prompt is padded to and cut at. `null` is the null condition: "prompt" means the embedding
    of the empty prompt, "zeros" embeddings of 0. `masked` networks never see padding and give text tokens no position.
    Prompts that are not `padded` keep the length that they have, and `length` is what the network was trained up to.
    """

    encoder: str
    width: int
    length: int
    null: str = "prompt"
    masked: bool = False
    padded: bool = True

    def describe(self) -> str:
        encoder = ENCODERS.get(self.encoder, "an unknown encoder")
        length = f"{self.length} tokens" if self.padded else "any length"
        return f"prompts of {length} from {encoder} ({self.width} channels)"

    def fit(self, text: Text) -> Text:
        """The text at a length that prompts share: padded to a multiple of `length` tokens, or, where nobody sees the
        padding, cut down to the next multiple of 64 that holds every prompt; as it is, every token seen, where prompts
        are not padded. ValueError if its width is another encoder's."""
        embeddings, mask = text
        if embeddings.ndim != 3 or embeddings.shape[-1] != self.width:
            raise ValueError(
                f"The conditioning has {embeddings.shape[-1]} channels but this model reads text of {self.width}: "
                f"encode the prompt with {ENCODERS.get(self.encoder, 'the text encoder that it was trained with')}."
            )
        if not self.padded:
            return Text(embeddings, None)
        missing = -embeddings.shape[1] % self.length
        padded = Text(F.pad(embeddings, (0, 0, 0, missing)), F.pad(mask, (0, missing)))
        if not self.masked:
            return padded
        longest = int(mask.sum(dim=1).max())
        return compact(padded, max(-(-longest // 64), 1) * 64)

    def zeros(self, batch: int = 1) -> Text:
        """The null condition of a network that was trained with embeddings of 0 in place of a prompt."""
        shape = batch, self.length
        return Text(torch.zeros(*shape, self.width), torch.ones(*shape, dtype=torch.bool))


def compact(text: Text, size: int) -> Text:
    """At most `size` tokens of each prompt [N, M, D] -> [N, size, D], real ones first and in their order."""
    order = (~text.mask).int().argsort(dim=1, stable=True)[:, :size]  # [N, size]
    return Text(text.embeddings.take_along_dim(order.unsqueeze(-1), dim=1), text.mask.take_along_dim(order, dim=1))


def concatenate(conditions: Sequence[Condition]) -> Condition:
    """Several conditions of one kind as one batch, in order; shorter text is padded."""
    if not isinstance(conditions[0], Text):
        return torch.cat(list(conditions))
    longest = max(text.embeddings.shape[1] for text in conditions)
    if all(text.mask is None and text.embeddings.shape[1] == longest for text in conditions):
        return Text(torch.cat([text.embeddings for text in conditions]), None)
    return Text(*(torch.cat(values) for values in zip(*(pad(text, longest) for text in conditions), strict=True)))


def pad(text: Text, length: int) -> Text:
    """The text with padding behind it: `length` tokens, those of padding masked."""
    missing = length - text.embeddings.shape[1]
    mask = torch.ones_like(text.embeddings[..., 0], dtype=torch.bool) if text.mask is None else text.mask
    return Text(F.pad(text.embeddings, (0, 0, 0, missing)), F.pad(mask, (0, missing)))
