"""LoRA, and LyCORIS of any algorithm, for networks of this pack, by names that the host's own loader does not know."""

from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.model_patcher
import comfy.utils

from ....sparse_model.checkpoints.checkpoint import explained

KOHYA = "lora_unet_"
TRAINERS = ("lycoris_", "lycoris_model_", "lora_unet_model_")
"""What trainers write in its place: LyCORIS around a network, around HDM's wrapper of one, and kohya's around that."""


def with_lora(model: comfy.model_patcher.ModelPatcher, path: Path, strength: float) -> comfy.model_patcher.ModelPatcher:
    """A clone of the model with a LoRA on it; ValueError if the file has nothing for any of its layers,
    CheckpointError if it is damaged."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    layers = {name.removeprefix(KOHYA): key for name, key in names.items() if name.startswith(KOHYA)}
    names |= {trainer + layer: key for trainer in TRAINERS for layer, key in layers.items()}
    with explained(path):
        tensors = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(str(path), safe_load=True))
        patches = comfy.lora.load_lora(tensors, names)
    if not patches:
        raise ValueError(f"{path.name} holds nothing for the layers of this model; use a LoRA that was made for it.")
    clone = model.clone()
    clone.add_patches(patches, strength)
    return clone
