"""Conditions under which the host's models are tested. Runs inside a host's Python."""

import inspect
import math
import types
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.controlnet
import comfy.ldm.flux.layers
import torch
from torch import Tensor
from zoo import ZOO, Animal


@dataclass(frozen=True)
class Case:
    """A small model under certain conditions. `before` tokens of the image's sequence are never dropped, `size` may be,
    if that is not all of the image; `text` stands in front of joint sequences, if that is not the animal's own."""

    animal: str
    before: int = 0
    size: int | None = None
    text: int | None = None
    behind: bool = False  # text behind the image
    extra: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    config: str | None = None
    latent: tuple[int, ...] | None = None
    patch: tuple[int, ...] | None = None
    sound: tuple[int, ...] | None = None  # its latent, packed with the video's
    prompt: int | None = None  # text tokens, if not as many as the animal's own
    lora: bool = False
    route: tuple[int, int] = (1, -2)


def tokens_of(animal: Animal) -> int:
    sides = animal.latent[-len(animal.patch) :]
    return math.prod(-(-side // patch) for side, patch in zip(sides, animal.patch, strict=True))


class Control(comfy.controlnet.ControlBase):
    """A ControlNet whose residuals are given, for every block."""

    def __init__(self, tokens: int, width: int, inputs: int, outputs: int):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.residuals = {
            name: [torch.randn(1, tokens, width, generator=generator) for _ in range(count)]
            for name, count in (("input", inputs), ("output", outputs))
        }

    def get_control(self, x_noisy: Tensor, *_: Any) -> dict:
        return {name: [r.repeat(len(x_noisy), 1, 1) for r in found] for name, found in self.residuals.items()}


def reference(channels: int = 16, *size: int) -> Tensor:
    return torch.randn(1, channels, *(size or (6, 4)), generator=torch.Generator().manual_seed(6))


def first_frame_given(*shape: int) -> Tensor:
    """A mask of what is to be generated: not the first frame."""
    mask = torch.ones(shape)
    mask[:, :, 0] = 0.0
    return mask


def cases() -> dict[str, Case]:
    """Every family, and what its blocks may meet."""
    flipped = hasattr(comfy.ldm.flux.layers.DoubleStreamBlock, "flipped_img_txt") or (
        "flipped_img_txt" in inspect.signature(comfy.ldm.flux.layers.DoubleStreamBlock).parameters
    )
    found = {
        name: Case(name, behind=animal.behind or (flipped and name == "HunyuanVideo")) for name, animal in ZOO.items()
    }
    found |= {f"{name}, LoRA": replace(case, lora=True) for name, case in found.items()}
    residuals = {"FLUX.1": (32, 2, 3), "Chroma": (32, 2, 3), "SD3": (128, 0, 5), "Qwen-Image": (32, 5, 0)}
    for name, (width, inputs, outputs) in residuals.items():
        control = Control(tokens_of(ZOO[name]), width, inputs, outputs)
        found[f"{name}, ControlNet"] = Case(name, extra={"control": control, "control_apply_to_uncond": True})
    for method in ("offset", "index", "uxo"):
        extra = {"reference_latents": [reference()], "reference_latents_method": method}
        found[f"FLUX.1, Kontext {method}"] = Case("FLUX.1", extra=extra)
    for method in ["index"] + (["negative_index", "index_timestep_zero"] if not flipped else []):
        extra = {"reference_latents": [reference(16, 1, 6, 4)], "reference_latents_method": method}
        found[f"Qwen-Image, edit {method}"] = Case("Qwen-Image", extra=extra)
    for method in ("index", "index_timestep_zero"):
        extra = {"reference_latents": [reference(128, 3, 2)], "reference_latents_method": method}
        found[f"FLUX.2, reference {method}"] = Case("FLUX.2", extra=extra, sizes={"guidance_embed": False})
    mask = torch.randn(1, 25, 25, generator=torch.Generator().manual_seed(7))
    found["FLUX.1, as many text as image tokens"] = Case("FLUX.1", prompt=10)  # of 20, 15 and 5 are kept
    found["FLUX.1, attention mask"] = Case("FLUX.1", extra={"attention_mask": mask, "attention_mask_img_shape": (5, 4)})
    if not flipped:  # old hosts have no references for Z-Image, and guiding frames there fail in a batch
        found["Z-Image, pixels"] = Case(
            "Z-Image", config="ZImagePixelSpace", latent=(2, 3, 80, 64), patch=(16, 16),
            sizes={
                "in_channels": 3, "patch_size": 16, "decoder_hidden_size": 16, "decoder_num_res_blocks": 1,
                "decoder_max_freqs": 2,
            },
        )  # fmt: skip
        found["Z-Image, reference"] = Case("Z-Image", text=24, extra={"reference_latents": [reference()]})
        frame, video = 12, tokens_of(ZOO["HunyuanVideo"])
        found["HunyuanVideo, guiding frame"] = Case(
            "HunyuanVideo", before=frame, size=video - frame, extra={"guiding_frame_index": 0},
            sizes={"guidance_embed": False},
        )  # fmt: skip
    ones = first_frame_given(1, 1, 3, 6, 8)
    found["Wan 2.2, noise per frame"] = Case(
        "Wan 2.1", config="WAN22_T2V", sizes={"in_dim": 48, "out_dim": 48}, latent=(2, 48, 3, 6, 8),
        extra={"denoise_mask": ones},
    )  # fmt: skip
    found["Wan 2.1, reference"] = Case(
        "Wan 2.1", before=12, sizes={"in_dim_ref_conv": 16}, extra={"reference_latents": [reference(16, 1, 6, 8)]}
    )
    found["Wan 2.1, VACE"] = Case(
        "Wan 2.1", config="WAN21_Vace", sizes={"model_type": "vace", "vace_layers": 5, "vace_in_dim": 96}
    )
    found["Wan 2.2, camera"] = Case(
        "Wan 2.1", config="WAN22_Camera", sizes={"model_type": "camera_2.2"},
        extra={"camera_conditions": 1e-3 * reference(24, 3, 48, 64)},
    )  # fmt: skip
    picture = torch.randn(1, 7, 1280, generator=torch.Generator().manual_seed(8))
    seen = types.SimpleNamespace(penultimate_hidden_states=picture)
    found["Wan 2.1, image to video"] = Case(
        "Wan 2.1", config="WAN21_I2V", sizes={"model_type": "i2v", "in_dim": 36}, extra={"clip_vision_output": seen}
    )
    found["Chroma, Radiance"] = Case(
        "Chroma", config="ChromaRadiance", latent=(2, 3, 80, 64),
        sizes={
            "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16,
            "nerf_hidden_size": 8, "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 2, "nerf_tile_size": 0,
            "nerf_final_head_type": "conv", "nerf_embedder_dtype": None, "use_x0": False,
            "use_sequential_txt_ids": False,
        },
        patch=(16, 16),
    )  # fmt: skip
    found["Cosmos-Predict2, noise per frame"] = Case("Cosmos-Predict2", extra={"concat_mask": ones})
    found["Wan 2.2, animate"] = Case(
        "Wan 2.1", config="WAN22_Animate", sizes={"model_type": "animate", "in_dim": 36},
        extra={"pose_video_latent": reference(16, 2, 6, 8)},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(9)
    found["Wan 2.2, animate a face"] = Case(
        "Wan 2.1", config="WAN22_Animate", sizes={"model_type": "animate", "in_dim": 36, "num_layers": 10},
        extra={
            "pose_video_latent": reference(16, 2, 6, 8),
            "face_video_pixels": torch.rand(1, 3, 5, 8, 8, generator=generator),
        },
    )  # fmt: skip
    speech = torch.randn(1, 3, 8, 5, 1280, generator=generator)
    found["Wan 2.1, HuMo"] = Case(
        "Wan 2.1", config="WAN21_HuMo", sizes={"model_type": "humo", "in_dim": 36}, extra={"audio_embed": speech}
    )
    found["Wan 2.1, HuMo with a reference"] = Case(
        "Wan 2.1", config="WAN21_HuMo", sizes={"model_type": "humo", "in_dim": 36},
        extra={"audio_embed": speech, "reference_latents": [reference(16, 1, 6, 8)]},
    )  # fmt: skip
    found["LTX-2, sound"] = Case("LTX-2", sound=(8, 7, 16), extra={"frame_rate": 25})
    found["LTX-2, sound, noise per frame"] = Case(
        "LTX-2", sound=(8, 7, 16),
        extra={
            "frame_rate": 25,
            "concat_mask": torch.cat(
                [first_frame_given(1, 128, 3, 3, 4).reshape(1, 1, -1), torch.ones(1, 1, 8 * 7 * 16)], dim=2
            ),
        },
    )  # fmt: skip
    found["MiniMax-H3, noise per token"] = Case(
        "MiniMax-H3",
        extra={
            "denoise_mask": torch.cat(
                [first_frame_given(1, 24, 3, 6, 8).reshape(1, 1, -1), torch.ones(1, 1, 32 * 2 * 4)], dim=2
            )
        },
    )  # fmt: skip
    found["Wan 2.2, sound to video"] = Case(
        "Wan 2.1", config="WAN22_S2V", sizes={"model_type": "s2v", "audio_dim": 16, "audio_inject_layers": [0, 2]},
        extra={"audio_embed": 1e-2 * reference(25, 16, 12), "reference_latents": [reference(16, 1, 6, 8)]},
    )  # fmt: skip
    found["Wan 2.2, dancer"] = Case(
        "Wan 2.1", config="WAN22_WanDancer", latent=(2, 16, 3, 8, 8), extra={"audio_embed": reference(9, 35)},
        sizes={"model_type": "wandancer", "in_dim": 36, "audio_inject_layers": [0, 2]},
    )  # fmt: skip
    found["Wan 2.1, SCAIL"] = Case(
        "Wan 2.1", before=12, config="WAN21_SCAIL", sizes={"model_type": "scail", "in_dim": 20},
        extra={"reference_latents": [reference(16, 1, 6, 8)], "pose_video_latent": reference(16, 3, 4, 4)},
    )  # fmt: skip
    found["Krea 2, reference index_timestep_zero"] = Case(
        "Krea 2",
        extra={"reference_latents": [reference(16, 1, 6, 4)], "reference_latents_method": "index_timestep_zero"},
    )
    found["OmniGen 2, reference"] = Case("OmniGen 2", text=11, extra={"reference_latents": [reference()]})
    found["Boogu-Image, reference"] = Case("Boogu-Image", before=6, extra={"reference_latents": [reference()]})
    found["Mage-Flow, reference"] = Case("Mage-Flow", extra={"reference_latents": [reference(128, 3, 2)]})
    found["JoyImage, reference"] = Case("JoyImage", behind=True, extra={"reference_latents": [reference(16, 1, 6, 4)]})
    padded = {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}
    if not flipped:  # old hosts do not hand the mask on
        found["Qwen-Image, padded caption"] = Case("Qwen-Image", extra=padded)
        found["Mage-Flow, padded caption"] = Case("Mage-Flow", extra=padded)
    found["Lens, padded caption"] = Case("Lens", behind=True, extra=padded)
    found["Ideogram 4, padded caption"] = Case("Ideogram 4", extra=padded)
    found["LongCat-Image"] = Case(
        "FLUX.1", config="LongCatImage",
        sizes={"vec_in_dim": None, "guidance_embed": False, "txt_ids_dims": [1, 2]},
    )  # fmt: skip
    found["PixelDiT, PiD"] = Case(
        "PixelDiT", config="PiD", extra={"lq_latent": reference(16, 3, 2), "degrade_sigma": torch.tensor([0.3])},
        sizes={"image_model": "pid", "lq_hidden_dim": 8, "lq_num_res_blocks": 1},
    )  # fmt: skip
    found["Kandinsky 5, image"] = Case(
        "Kandinsky 5", config="Kandinsky5Image", sizes={"visual_embed_dim": 64}, latent=(2, 16, 10, 8), patch=(2, 2)
    )
    found["Kandinsky 5, image to video"] = Case(
        "Kandinsky 5", before=12, size=24, extra={"time_dim_replace": reference(16, 1, 6, 8)}
    )
    found["CogVideoX 1.5"] = Case("CogVideoX", sizes={"patch_size_t": 2}, patch=(2, 2, 2))
    picture = {"patch_size": [2, 2], "axes_dim": [8, 8], "vec_in_dim": None, "byt5": True, "guidance_embed": False}
    found["HunyuanImage 2.1"] = Case(
        "HunyuanVideo", config="HunyuanImage21", sizes={**picture, "in_channels": 64, "out_channels": 64},
        latent=(2, 64, 10, 8), patch=(2, 2), text=8, behind=flipped,
        extra={"conditioning_byt5small": torch.linspace(-1, 1, 3 * 1472).view(1, 3, 1472)},
    )  # fmt: skip
    found["HunyuanVideo 1.5"] = Case(
        "HunyuanVideo", config="HunyuanVideo15", latent=(2, 32, 3, 5, 4), patch=(1, 1, 1), text=8,
        sizes={
            "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None, "byt5": True,
            "use_cond_type_embedding": True, "vision_in_dim": 1152, "meanflow_sum": True, "guidance_embed": False,
        },
        extra={"conditioning_byt5small": torch.linspace(-1, 1, 3 * 1472).view(1, 3, 1472)},
    )  # fmt: skip
    guides = (
        torch.zeros(1, 3, 12, 2) + torch.arange(12.0)[:, None] if not flipped else torch.arange(36.0).view(1, 3, 12)
    )
    found["LTX-Video, guide frame"] = Case(
        "LTX-Video", size=24, extra={"keyframe_idxs": guides, "concat_mask": torch.ones(1, 1, 3, 3, 4)}
    )
    return found
