"""Text encoders of random weights, a few kilobytes each, in the folders that published models come in."""

from pathlib import Path

import torch

WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "lion", "in", "the", "golden", "savanna", "at", "sunset", "rocket"]


def write_tokenizer(folder: Path, side: str = "right") -> None:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side=side,
        model_max_length=256,
    ).save_pretrained(folder)  # fmt: skip


def write_t5gemma(folder: Path, width: int = 12) -> torch.nn.Module:
    """text_encoder and tokenizer as diffusers keeps them of google/t5gemma-2b-2b-ul2; returns the encoder."""
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaConfig, T5GemmaModuleConfig
    from transformers.models.t5gemma.modeling_t5gemma import T5GemmaForConditionalGeneration

    part = T5GemmaModuleConfig(
        vocab_size=len(WORDS), hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    whole = T5GemmaForConditionalGeneration(T5GemmaConfig(encoder=part, decoder=part))
    return _write(whole, whole.model.encoder, folder, "right")


def write_qwen(folder: Path, width: int = 12) -> torch.nn.Module:
    """The same of the text part of Qwen/Qwen3-VL-Embedding-2B."""
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLForConditionalGeneration

    text = {
        "vocab_size": len(WORDS),
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    }
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": width}
    whole = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision))
    return _write(whole, whole.model.language_model, folder, "left")


def write_llama(folder: Path, width: int = 12) -> torch.nn.Module:
    """The same of meta-llama/Llama-3.2-1B, whose tokenizer begins every prompt with a token and has none for padding;
    returns the whole model."""
    from tokenizers import processors
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, eos_token_id=1, bos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    whole = LlamaForCausalLM(config)
    _write(whole, whole.model, folder, "right")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    first = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)])
    tokenizer.backend_tokenizer.post_processor = first
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder / "tokenizer")
    return whole.eval()


def write_clip(folder: Path, width: int = 12) -> torch.nn.Module:
    """The text part of apple/DFN5B-CLIP-ViT-H-14-378 with its tokenizer, in one folder; returns the encoder."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": len(WORDS), "hidden_size": width, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "eos_token_id": 1,
        "bos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 8,
        "patch_size": 4,
    }  # fmt: skip
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    generator = torch.Generator().manual_seed(0)
    for parameter in whole.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    whole.save_pretrained(folder)
    weights = {key: value.clone() for key, value in whole.state_dict().items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    write_tokenizer(folder)
    return whole.text_model.eval()


def _write(whole: torch.nn.Module, part: torch.nn.Module, folder: Path, side: str) -> torch.nn.Module:
    """Both the part that diffusers keeps, in text_encoder, and the whole model as it was published, in whole."""
    generator = torch.Generator().manual_seed(0)
    for parameter in whole.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    part.save_pretrained(folder / "text_encoder")
    whole.save_pretrained(folder / "whole")
    write_tokenizer(folder / "tokenizer", side)
    return part.eval()
