"""Text encoders that the host does not know."""

from comfy_api.latest import io

from ..sparse_model.conditions.encoder import kind_of
from .host.own.folders import folder_names, folder_path
from .host.own.text import load_clip
from .sockets import CATEGORY, found_by

PLACE = "text_encoders"


class SparseTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseTextEncoder",
            display_name="Sparse Text Encoder",
            category=CATEGORY,
            **found_by("T5-Gemma", "Qwen3-VL", "Llama 3.2", "PRX text encoder"),
            description="Loads the text encoder of a text-conditional model (T5-Gemma for PRX, Qwen3-VL for PRXPixel, "
            "CLIP for MicroDiT, Llama 3.2 for Nitro-T). CLIP Text Encode then reads prompts as the published pipeline "
            "does.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=folder_names(PLACE, kind_of),
                    tooltip="A folder in models/text_encoders with config.json, safetensors and tokenizer, such as "
                    "text_encoder and tokenizer of the published model. Needs the package transformers.",
                )
            ],
            outputs=[io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode; prompt weights are not read.")],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        return io.NodeOutput(load_clip(folder_path(folder, PLACE, kind_of, "a text encoder")))
