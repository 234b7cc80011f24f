"""Nodes for a host whose own loaders take a model or its text encoders at full size only: the same inputs and outputs,
small files of the same form (small_files.py). A server of the tests finds this file among its custom nodes."""

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import comfy.sd
import comfy.utils
import folder_paths

sys.path.append(str(Path(__file__).resolve().parent))

from zoo import FILES, build

CLIP = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
UMT5 = {**T5, "d_model": 4096, "vocab_size": 40}  # the host's Wan takes no other width
QWEN = {**CLIP, "num_key_value_heads": 1}
ENCODERS = {"wan": "T5_XXL", "lumina2": "QWEN3_4B"}
"""Type in Load CLIP -> which encoder the host takes a file for by the size of its weights."""
NETWORKS = {
    "flux1-dev.safetensors": "FLUX.1",
    "wan2.1_t2v_1.3B_fp16.safetensors": "Wan 2.1",
    "sd3.5_large_fp8_scaled.safetensors": "SD3.5",
    "z_image_bf16.safetensors": "Z-Image",
}
"""File -> the network in it, one of zoo.FILES."""


def sizes() -> dict[str, dict[str, int]]:
    """Of every encoder, by the host's names, new each time: the host writes to the first, of a CLIP in its own file."""
    encoders = {"clip_l": CLIP, "clip_g": CLIP, "t5xxl": T5, "umt5xxl": UMT5, "qwen3_4b": QWEN}
    return {"model_config": dict(CLIP)} | {f"{name}_model_config": size for name, size in encoders.items()}


def network(file: str, weights: dict[str, Any]) -> Any:
    """The MODEL of a file's name, with these weights."""
    patcher = build(FILES[NETWORKS[file]])
    patcher.model.diffusion_model.load_state_dict(weights)
    return patcher


def files(folder: str) -> tuple[list[str]]:
    return (folder_paths.get_filename_list(folder),)


class SmallDualCLIPLoader:
    RETURN_TYPES, FUNCTION = ("CLIP",), "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = files("text_encoders")
        return {
            "required": {"clip_name1": names, "clip_name2": names, "type": (["flux"],)},
            "optional": {"device": (["default", "cpu"],)},
        }

    def load(self, clip_name1: str, clip_name2: str, type: str, device: str = "default") -> tuple[Any]:
        paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in (clip_name1, clip_name2)]
        return (comfy.sd.load_clip(paths, clip_type=comfy.sd.CLIPType[type.upper()], model_options=sizes()),)


class SmallCLIPLoader:
    RETURN_TYPES, FUNCTION = ("CLIP",), "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"clip_name": files("text_encoders"), "type": (list(ENCODERS),)},
            "optional": {"device": (["default", "cpu"],)},
        }

    def load(self, clip_name: str, type: str, device: str = "default") -> tuple[Any]:
        path = folder_paths.get_full_path_or_raise("text_encoders", clip_name)
        with mock.patch.object(comfy.sd, "detect_te_model", return_value=comfy.sd.TEModel[ENCODERS[type]]):
            return (comfy.sd.load_clip([path], clip_type=comfy.sd.CLIPType[type.upper()], model_options=sizes()),)


class SmallUNETLoader:
    RETURN_TYPES, FUNCTION = ("MODEL",), "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"unet_name": files("diffusion_models"), "weight_dtype": (["default"],)}}

    def load(self, unet_name: str, weight_dtype: str) -> tuple[Any]:
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        return (network(unet_name, comfy.utils.load_torch_file(path)),)


class SmallCheckpointLoaderSimple:
    """CLIP and VAE as the host loads them; the network by itself, since the host takes its width for its depth."""

    RETURN_TYPES, FUNCTION = ("MODEL", "CLIP", "VAE"), "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": files("checkpoints")}}

    def load(self, ckpt_name: str) -> tuple[Any, Any, Any]:
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        _, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(path, output_model=False, te_model_options=sizes())
        prefix = {"model.diffusion_model.": ""}
        weights = comfy.utils.state_dict_prefix_replace(comfy.utils.load_torch_file(path), prefix, filter_keys=True)
        return network(ckpt_name, weights), clip, vae


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls for cls in (SmallDualCLIPLoader, SmallCLIPLoader, SmallUNETLoader, SmallCheckpointLoaderSimple)
}
