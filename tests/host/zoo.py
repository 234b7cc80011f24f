"""The host's own transformers, built small with random weights. Runs inside a host's Python."""

from dataclasses import dataclass, field, replace
from typing import Any

import comfy.ldm.chroma.model
import comfy.ldm.chroma_radiance.model
import comfy.ldm.flux.model
import comfy.ldm.hunyuan_video.model
import comfy.model_patcher
import comfy.supported_models
import torch
from torch import Tensor


@dataclass(frozen=True)
class Animal:
    """One small model: its config class in the host, sizes, a latent [B, C, ...] that is not square, and conditions.

    `text` is what stands in front of the image in joint attention, or `behind` it,
    `patch` the sides of a patch, `blocks` the lists of blocks with the place of the image tokens in what one returns.
    """

    config: str
    sizes: dict[str, Any]
    latent: tuple[int, ...]
    context: tuple[int, int]  # text tokens, channels
    blocks: dict[str, tuple[str, int | None]]
    patch: tuple[int, ...] = (2, 2)
    text: int = 0
    others: int | None = None  # tokens that are no image tokens: text, padding
    pooled: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    behind: bool = False
    sound: tuple[int, ...] | None = None  # a latent of it goes with every video's


FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 24, "context_in_dim": 20, "hidden_size": 32, "mlp_ratio": 2.0,
    "num_heads": 2, "depth": 2, "depth_single_blocks": 3, "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [], "image_model": "flux",
}  # fmt: skip
FLUX2 = {
    **FLUX, "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "patch_size": 1, "axes_dim": [4, 4, 4, 4],
    "global_modulation": True, "mlp_silu_act": True, "qkv_bias": False, "ops_bias": False, "txt_ids_dims": [3],
    "default_ref_method": "index", "ref_index_scale": 10.0, "image_model": "flux2",
}  # fmt: skip
CHROMA = {
    "in_channels": 64, "out_channels": 64, "context_in_dim": 20, "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2,
    "depth": 2, "depth_single_blocks": 3, "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2, "qkv_bias": True,
    "in_dim": 64, "out_dim": 32, "hidden_dim": 16, "n_layers": 2, "txt_ids_dims": [], "vec_in_dim": None,
    "image_model": "chroma",
}  # fmt: skip
SD3 = {
    "in_channels": 16, "patch_size": 2, "depth": 2, "num_blocks": 5, "input_size": None, "adm_in_channels": 24,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 20, "out_features": 128}},
    "qk_norm": "rms", "pos_embed_max_size": 16, "num_patches": 256, "pos_embed_scaling_factor": None,
}  # fmt: skip
AURA = {
    "in_channels": 4, "dim": 32, "n_layers": 5, "n_double_layers": 2, "n_heads": 2, "global_conddim": 32,
    "cond_seq_dim": 20, "max_seq": 256,
}  # fmt: skip
PIXART = {
    "image_model": "pixart_sigma", "in_channels": 4, "hidden_size": 48, "depth": 5, "num_heads": 2, "mlp_ratio": 2.0,
    "caption_channels": 20, "micro_condition": False, "model_max_length": 7, "pe_interpolation": 1.0,
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 32, "ffn_dim": 64, "freq_dim": 16, "text_dim": 20,
    "in_dim": 16, "out_dim": 16, "num_heads": 2, "num_layers": 5,
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "out_channels": 16, "num_layers": 5, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": 20, "pooled_projection_dim": 24, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "in_channels": 16, "dim": 48, "n_layers": 5, "n_refiner_layers": 1, "n_heads": 2,
    "n_kv_heads": 2, "multiple_of": 8, "ffn_dim_multiplier": 1.0, "qk_norm": True, "cap_feat_dim": 20,
    "axes_dims": [8, 8, 8], "axes_lens": [64, 64, 64],
}  # fmt: skip
HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "vec_in_dim": 24, "context_in_dim": 20,
    "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 3, "axes_dim": [4, 6, 6],
    "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
LTX = {
    "image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 32, "attention_head_dim": 16,
    "num_attention_heads": 2, "caption_channels": 20, "num_layers": 5,
}  # fmt: skip
LTX2 = {
    **LTX, "image_model": "ltxav", "audio_cross_attention_dim": 24, "audio_attention_head_dim": 12,
    "audio_num_attention_heads": 2, "connector_attention_head_dim": 10, "connector_num_attention_heads": 2,
    "connector_num_layers": 1, "cross_attention_adaln": True, "apply_gated_attention": True,
}  # fmt: skip
MINIMAX = {
    "image_model": "minimax_h3", "hidden_size": 32, "num_layers": 5, "token_refiner_num_layers": 1,
    "num_attention_heads": 2, "attention_head_dim": 16, "ffn_hidden_size": 64, "text_dim": 20, "timestep_input_dim": 16,
    "time_embed_hidden_size": 16, "time_embed_dim": 16, "rope_inv_freq_len": 2, "sigma_shift_audio": 12.0,
}  # fmt: skip
COSMOS1 = {
    "image_model": "cosmos", "max_img_h": 64, "max_img_w": 64, "max_frames": 16, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "model_channels": 48, "block_config": "FA-CA-MLP", "num_blocks": 5,
    "num_heads": 2, "mlp_ratio": 2.0, "crossattn_emb_channels": 20, "pos_emb_cls": "rope3d",
    "block_x_format": "THWBD", "affline_emb_norm": True, "use_adaln_lora": True, "adaln_lora_dim": 8,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
HYDIT = {
    "image_model": "hydit", "input_size": (32, 32), "depth": 6, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2.0,
    "text_states_dim": 20, "text_states_dim_t5": 24, "text_len": 7, "text_len_t5": 5, "size_cond": False,
    "use_style_cond": False, "learn_sigma": True, "qk_norm": True,
}  # fmt: skip
COSMOS = {
    "image_model": "cosmos_predict2", "max_img_h": 64, "max_img_w": 64, "max_frames": 16, "in_channels": 16,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 32,
    "num_blocks": 5, "num_heads": 2, "mlp_ratio": 2.0, "crossattn_emb_channels": 20, "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True, "pos_emb_interpolation": "crop", "min_fps": 1, "max_fps": 30, "use_adaln_lora": True,
    "adaln_lora_dim": 8, "extra_per_block_abs_pos_emb": False,
}  # fmt: skip

KREA = {
    "image_model": "krea2", "features": 32, "heads": 2, "kvheads": 1, "multiplier": 2, "layers": 5, "patch": 2,
    "channels": 16, "tdim": 16, "txtdim": 20, "txtlayers": 2, "txtheads": 2, "txtkvheads": 2,
}  # fmt: skip
HIDREAM = {
    "image_model": "hidream", "in_channels": 16, "out_channels": 16, "patch_size": 2, "attention_head_dim": 16,
    "num_attention_heads": 2, "axes_dims_rope": [8, 4, 4], "caption_channels": [20, 24], "text_emb_dim": 24,
    "max_resolution": [16, 16], "num_layers": 2, "num_single_layers": 3, "llama_layers": [0, 1, 0, 1, 1],
    "num_routed_experts": 4, "num_activated_experts": 2,
}  # fmt: skip
ERNIE = {
    "image_model": "ernie", "hidden_size": 32, "num_attention_heads": 2, "num_layers": 14, "ffn_hidden_size": 64,
    "in_channels": 128, "out_channels": 128, "text_in_dim": 20, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip
KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 32, "time_dim": 16, "ff_dim": 64, "visual_embed_dim": 132,
    "in_text_dim": 20, "in_text_dim2": 24, "num_text_blocks": 1, "num_visual_blocks": 5, "axes_dims": (4, 6, 6),
}  # fmt: skip
OMNIGEN = {
    "image_model": "omnigen2", "hidden_size": 48, "num_layers": 5, "num_refiner_layers": 1, "num_attention_heads": 2,
    "num_kv_heads": 1, "multiple_of": 8, "axes_dim_rope": (8, 8, 8), "axes_lens": (64, 64, 64), "text_feat_dim": 20,
    "timestep_scale": 1000.0,
}  # fmt: skip
BOOGU = {
    **{key: value for key, value in OMNIGEN.items() if key != "text_feat_dim"}, "image_model": "boogu",
    "num_double_stream_layers": 2, "num_layers": 3, "instruction_feat_dim": 20,
}  # fmt: skip
PIXELDIT = {
    "image_model": "pixeldit_t2i", "num_groups": 2, "hidden_size": 32, "pixel_hidden_size": 4, "pixel_depth": 1,
    "pixel_attn_hidden_size": 16, "pixel_num_groups": 2, "patch_depth": 5, "txt_embed_dim": 20, "txt_max_length": 8,
}  # fmt: skip
LENS = {
    "image_model": "lens", "in_channels": 128, "out_channels": 32, "num_layers": 5, "attention_head_dim": 16,
    "num_attention_heads": 2, "enc_hidden_dim": 20, "axes_dims_rope": (4, 6, 6), "selected_layer_index": (0, 1),
}  # fmt: skip
IDEOGRAM = {
    "image_model": "ideogram4", "in_channels": 128, "num_layers": 5, "num_attention_heads": 2, "attention_head_dim": 16,
    "intermediate_size": 64, "adaln_dim": 16, "llm_features_dim": 20, "mrope_section": [4, 2, 2],
}  # fmt: skip
MAGE = {
    "image_model": "mage_flow", "in_channels": 128, "num_layers": 5, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 20, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
JOY = {
    "image_model": "joyimage", "in_channels": 16, "hidden_size": 32, "num_attention_heads": 2, "text_dim": 20,
    "mlp_width_ratio": 2.0, "num_layers": 5, "rope_dim_list": [4, 6, 6],
}  # fmt: skip
MOCHI = {
    "image_model": "mochi_preview", "depth": 5, "patch_size": 2, "num_heads": 2, "hidden_size_x": 48, "in_channels": 12,
    "hidden_size_y": 24, "mlp_ratio_x": 256.0, "learn_sigma": False, "qk_norm": True, "timestep_scale": 1000.0,
    "use_t5": True, "t5_feat_dim": 24,
}  # fmt: skip
COGVIDEO = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 16, "time_embed_dim": 16,
    "text_embed_dim": 20, "num_layers": 5, "sample_width": 8, "sample_height": 6, "sample_frames": 9,
    "max_text_seq_length": 5, "use_rotary_positional_embeddings": True,
}  # fmt: skip

# what this host's version of a family can be told
KNOWN = {
    "Flux": comfy.ldm.flux.model.FluxParams.__dataclass_fields__,
    "LongCatImage": comfy.ldm.flux.model.FluxParams.__dataclass_fields__,
    "Chroma": comfy.ldm.chroma.model.ChromaParams.__dataclass_fields__,
    "ChromaRadiance": comfy.ldm.chroma_radiance.model.ChromaRadianceParams.__dataclass_fields__,
    "HunyuanVideo": comfy.ldm.hunyuan_video.model.HunyuanVideoParams.__dataclass_fields__,
    "HunyuanImage21": comfy.ldm.hunyuan_video.model.HunyuanVideoParams.__dataclass_fields__,
    "HunyuanVideo15": comfy.ldm.hunyuan_video.model.HunyuanVideoParams.__dataclass_fields__,
}
TWO_STACKS = {"double_blocks": ("img", 0), "single_blocks": ("x", None)}

ZOO = {
    "FLUX.1": Animal("Flux", FLUX, (2, 16, 10, 8), (5, 20), TWO_STACKS, text=5, pooled=24),
    "FLUX.2": Animal("Flux2", FLUX2, (2, 128, 5, 4), (5, 20), TWO_STACKS, patch=(1, 1), text=512),
    "Chroma": Animal("Chroma", CHROMA, (2, 16, 10, 8), (5, 20), TWO_STACKS, text=5, pooled=24),
    "SD3": Animal("SD3", SD3, (2, 16, 10, 8), (5, 20), {"joint_blocks": ("x", 1)}, text=5, pooled=24),
    "SD3.5 medium": Animal(
        "SD3", {**SD3, "x_block_self_attn_layers": [0, 1, 2]}, (2, 16, 10, 8), (5, 20), {"joint_blocks": ("x", 1)},
        text=5, pooled=24,
    ),
    "AuraFlow": Animal(
        "AuraFlow", AURA, (2, 4, 10, 8), (5, 20), {"double_layers": ("x", 1), "single_layers": ("cx", None)}, text=13
    ),
    "PixArt": Animal("PixArtSigma", PIXART, (2, 4, 40, 36), (7, 20), {"blocks": ("x", None)}),
    "Wan 2.1": Animal("WAN21_T2V", WAN, (2, 16, 3, 6, 8), (5, 20), {"blocks": ("x", None)}, patch=(1, 2, 2)),
    "Qwen-Image": Animal(
        "QwenImage", QWEN, (2, 16, 1, 10, 8), (5, 20), {"transformer_blocks": ("hidden_states", 1)}, patch=(1, 2, 2),
        text=5,
    ),
    "Lumina 2": Animal(
        "Lumina2", LUMINA, (2, 16, 10, 8), (5, 20), {"layers": ("x", None)}, text=5,
        extra={"attention_mask": torch.ones(1, 5, dtype=torch.long)},
    ),
    "Z-Image": Animal(
        "ZImage", {
            **LUMINA, "z_image_modulation": True, "pad_tokens_multiple": 8, "time_scale": 1000.0, "dim": 256,
            "axes_dims": [32, 48, 48],
        },
        (2, 16, 10, 8), (5, 20), {"layers": ("x", None)}, text=8, others=12,
    ),
    "HunyuanVideo": Animal(
        "HunyuanVideo", HUNYUAN, (2, 16, 3, 6, 8), (5, 20), TWO_STACKS, patch=(1, 2, 2), text=5, pooled=24
    ),
    "LTX-Video": Animal(
        "LTXV", LTX, (2, 128, 3, 3, 4), (5, 20), {"transformer_blocks": ("x", None)}, patch=(1, 1, 1),
        extra={"attention_mask": torch.ones(1, 5, dtype=torch.long)},
    ),
    "LTX-2": Animal(
        "LTXAV", LTX2, (2, 128, 3, 3, 4), (5, 40), {"transformer_blocks": ("x", 0)}, patch=(1, 1, 1),
        extra={"attention_mask": torch.ones(1, 5, dtype=torch.long)},
    ),
    "MiniMax-H3": Animal(
        "MiniMaxH3", MINIMAX, (1, 24, 3, 6, 8), (5, 20), {"blocks": ("x", None)}, patch=(1, 2, 2), text=13, others=13,
        sound=(32, 2, 4),
    ),
    "Cosmos 1": Animal(
        "CosmosT2V", COSMOS1, (2, 16, 3, 6, 8), (5, 20), {"blocks": ("x", None)}, patch=(1, 2, 2)
    ),
    "HunyuanDiT": Animal(
        "HunyuanDiT", HYDIT, (2, 4, 10, 8), (7, 20), {"blocks": ("x", None)}, others=12,
        extra={
            "attention_mask": torch.ones(1, 7), "conditioning_mt5xl": torch.linspace(-1, 1, 120).view(1, 5, 24),
            "attention_mask_mt5xl": torch.ones(1, 5),
        },
    ),
    "Cosmos-Predict2": Animal(
        "CosmosT2IPredict2", COSMOS, (2, 16, 3, 6, 8), (5, 20), {"blocks": ("x_B_T_H_W_D", None)}, patch=(1, 2, 2)
    ),
    "Anima": Animal(
        "Anima", {**COSMOS, "image_model": "anima"}, (2, 16, 1, 10, 8), (5, 20), {"blocks": ("x_B_T_H_W_D", None)},
        patch=(1, 2, 2),
    ),
    "Krea 2": Animal(
        "Krea2", KREA, (2, 16, 1, 10, 8), (5, 40), {"blocks": ("x", None)}, patch=(1, 2, 2), text=5
    ),
    "HiDream-I1": Animal(
        "HiDream", HIDREAM, (2, 16, 10, 8), (5, 20),
        {"double_stream_blocks": ("image_tokens", 0), "single_stream_blocks": ("image_tokens", None)}, others=11,
        pooled=24, behind=True, extra={"conditioning_llama3": torch.linspace(-1, 1, 144).view(1, 2, 3, 24)},
    ),
    "ERNIE-Image": Animal(
        "ErnieImage", ERNIE, (2, 128, 5, 4), (5, 20), {"layers": ("x", None)}, patch=(1, 1), text=5, behind=True
    ),
    "Kandinsky 5": Animal(
        "Kandinsky5", KANDINSKY, (2, 16, 3, 6, 8), (5, 20), {"visual_transformer_blocks": ("visual_embed", None)},
        patch=(1, 2, 2), pooled=24,
    ),
    "OmniGen 2": Animal(
        "Omnigen2", OMNIGEN, (2, 16, 10, 8), (5, 20), {"layers": ("hidden_states", None)}, text=5,
        extra={"attention_mask": torch.ones(1, 5, dtype=torch.long)},
    ),
    "Boogu-Image": Animal(
        "Boogu", BOOGU, (2, 16, 10, 8), (5, 20),
        {"double_stream_layers": ("img_hidden_states", 0), "single_stream_layers": ("hidden_states", None)}, text=5,
        extra={"attention_mask": torch.ones(1, 5, dtype=torch.long)},
    ),
    "PixelDiT": Animal(
        "PixelDiTT2I", PIXELDIT, (2, 3, 80, 64), (5, 20), {"patch_blocks": ("x", 0)}, patch=(16, 16), text=5
    ),
    "Lens": Animal(
        "Lens", LENS, (2, 128, 5, 4), (5, 40), {"transformer_blocks": ("hidden_states", 1)}, patch=(1, 1), text=5,
        behind=True,
    ),
    "Ideogram 4": Animal(
        "Ideogram4", IDEOGRAM, (2, 128, 5, 4), (5, 20), {"layers": ("x", None)}, patch=(1, 1), text=5
    ),
    "Mage-Flow": Animal(
        "MageFlow", MAGE, (2, 128, 5, 4), (5, 20), {"transformer_blocks": ("hidden_states", 1)}, patch=(1, 1), text=5
    ),
    "JoyImage": Animal(
        "JoyImage", JOY, (2, 16, 1, 10, 8), (5, 20), {"double_blocks": ("hidden_states", 0)}, patch=(1, 2, 2), text=5,
        behind=True,
    ),
    "Mochi": Animal(
        "GenmoMochi", MOCHI, (2, 12, 3, 6, 8), (5, 24), {"blocks": ("x", 0)}, patch=(1, 2, 2), text=5, behind=True,
        extra={"attention_mask": torch.ones(1, 5, dtype=torch.bool)},
    ),
    "CogVideoX": Animal(
        "CogVideoX_T2V", COGVIDEO, (2, 16, 3, 6, 8), (5, 20), {"blocks": ("hidden_states", 0)}, patch=(1, 2, 2), text=5
    ),
}  # fmt: skip


FILES = {
    "Wan 2.1": replace(
        ZOO["Wan 2.1"], sizes={**WAN, "dim": 128, "num_heads": 1, "freq_dim": 256, "text_dim": 4096}
    ),
    "FLUX.1": replace(
        ZOO["FLUX.1"],
        sizes={
            **FLUX, "hidden_size": 256, "axes_dim": [16, 56, 56], "mlp_ratio": 4.0, "context_in_dim": 64,
            "vec_in_dim": 64, "depth": 1, "depth_single_blocks": 3,
        },
    ),
    "SD3.5": replace(
        ZOO["SD3"],
        sizes={
            **SD3, "num_blocks": 12, "adm_in_channels": 128,
            "context_embedder_config": {
                "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}
            },
        },
    ),
    "Z-Image": replace(ZOO["Z-Image"], sizes={**ZOO["Z-Image"].sizes, "cap_feat_dim": 64}),
}  # fmt: skip
"""Those of the published workflows. The host recognises Wan by the keys and shapes of a file, and FLUX.1 since 0.4."""


def blocks_of(network: torch.nn.Module, path: str) -> list[torch.nn.Module]:
    blocks = getattr(network, path)
    return list(blocks.values() if isinstance(blocks, torch.nn.ModuleDict) else blocks)


def build(animal: Animal, dtype: torch.dtype = torch.float32, seed: int = 0) -> comfy.model_patcher.ModelPatcher | None:
    """The model with seeded random weights, or None where this host does not have it."""
    cls = getattr(comfy.supported_models, animal.config, None)
    if cls is None:
        return None
    known = KNOWN.get(animal.config)
    sizes = {key: value for key, value in animal.sizes.items() if known is None or key in {*known, "image_model"}}
    config = cls({**sizes, "dtype": dtype})
    config.unet_config.update(sizes)  # the host's own extras are of full size
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "")
    generator = torch.Generator().manual_seed(seed)
    for name, value in sorted(model.diffusion_model.state_dict().items()):
        if value.is_floating_point() and value.numel():
            scale = 0.3 if value.ndim < 2 else 1.2 / value.shape[-1] ** 0.5
            center = 1.0 if value.ndim == 1 and name.endswith(("norm.weight", "scale")) else 0.0
            value.copy_(torch.randn(value.shape, generator=generator) * scale + center)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def conditions(animal: Animal, seed: int = 1, **extra: Any) -> list:
    """A conditioning as the host's nodes pass it."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, *animal.context, generator=generator)
    pooled = {"pooled_output": torch.randn(1, animal.pooled, generator=generator)} if animal.pooled else {}
    return [[context, {**pooled, **animal.extra, **extra}]]


def latent(animal: Animal, batch: int | None = None, seed: int = 2) -> Tensor:
    """A latent [B, C, ...], or the host's nested tensor of such a video and its sound."""
    generator = torch.Generator().manual_seed(seed)
    batch = batch or animal.latent[0]
    video = torch.randn(batch, *animal.latent[1:], generator=generator)
    if animal.sound is None:
        return video
    from comfy.nested_tensor import NestedTensor  # new hosts only, and so these models

    return NestedTensor([video, torch.randn(batch, *animal.sound, generator=generator)])
