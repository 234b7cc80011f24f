"""LoRA under the names of more trainers."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from .host.own.lora import with_lora
from .sockets import CATEGORY, found_by


class SparseLoRALoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseLoRALoader",
            display_name="Sparse LoRA Loader",
            category=CATEGORY,
            **found_by("LyCORIS", "LoKr", "HDM LoRA"),
            description="Puts a LoRA or LyCORIS on a model of this pack, under the names that kohya's trainer, LyCORIS "
            "or HDM's own trainer give the layers. Load LoRA knows the first.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the LoRA was made for."),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A file in models/loras.",
                ),
                io.Float.Input(
                    "strength_model",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How strongly it changes the model; 0 leaves the model as it is.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="A copy of the model with the LoRA on it.")],
        )

    @classmethod
    def execute(cls, model, lora_name: str, strength_model: float) -> io.NodeOutput:
        if strength_model == 0:
            return io.NodeOutput(model)
        path = Path(folder_paths.get_full_path_or_raise("loras", lora_name))
        return io.NodeOutput(with_lora(model, path, strength_model))
