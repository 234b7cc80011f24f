"""Nodes for a host whose own loaders take FLUX.1 and its text encoders at full size only: the same inputs and outputs,
small files of the same form. A server of the tests finds this file among its custom nodes."""

import sys
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths

sys.path.append(str(Path(__file__).resolve().parent))

CLIP = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}


class SmallDualCLIPLoader:
    RETURN_TYPES, FUNCTION = ("CLIP",), "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = (folder_paths.get_filename_list("text_encoders"),)
        return {
            "required": {"clip_name1": names, "clip_name2": names, "type": (["flux"],)},
            "optional": {"device": (["default", "cpu"],)},
        }

    def load(self, clip_name1: str, clip_name2: str, type: str, device: str = "default") -> tuple[Any]:
        paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in (clip_name1, clip_name2)]
        sizes = {
            "model_config": dict(CLIP),
            "t5xxl_model_config": T5,
        }  # the former is CLIP-L's, which the host writes to
        return (comfy.sd.load_clip(paths, clip_type=comfy.sd.CLIPType.FLUX, model_options=sizes),)


class SmallUNETLoader:
    RETURN_TYPES, FUNCTION = ("MODEL",), "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "unet_name": (folder_paths.get_filename_list("diffusion_models"),),
                "weight_dtype": (["default"],),
            }
        }

    def load(self, unet_name: str, weight_dtype: str) -> tuple[Any]:
        from zoo import FILES, build

        patcher = build(FILES["FLUX.1"])
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        patcher.model.diffusion_model.load_state_dict(comfy.utils.load_torch_file(path))
        return (patcher,)


NODE_CLASS_MAPPINGS = {"SmallDualCLIPLoader": SmallDualCLIPLoader, "SmallUNETLoader": SmallUNETLoader}
