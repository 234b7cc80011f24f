"""Checkpoints that are model, text encoder and VAE in one."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from .host.own.bundle import load_clip, load_vae
from .host.own.loading import load
from .host.own.model import spec_of
from .loader import changed, description
from .sockets import CATEGORY, found_by

INSIDE = "in the checkpoint"


class SparseCheckpointLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseCheckpointLoader",
            display_name="Sparse Checkpoint Loader",
            category=CATEGORY,
            **found_by("HDM", "XUT", "token sparse checkpoint"),
            description="Loads a token-sparse model that is published with its VAE in one file (HDM), with the token "
            "route that it was trained with.",
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=folder_paths.get_filename_list("checkpoints"),
                    tooltip="A checkpoint in models/checkpoints, such as hdm-xut-340M-1024px-note.safetensors.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=[INSIDE, *folder_paths.get_filename_list("text_encoders")],
                    default=INSIDE,
                    tooltip="Where the file holds no text encoder: model.safetensors of Qwen/Qwen3-0.6B in "
                    "models/text_encoders.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, with its token route."),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="For CLIP Text Encode. Brackets are text: prompt weights are not read.",
                ),
                io.Vae.Output(display_name="vae", tooltip="For VAE Decode and VAE Encode."),
                io.String.Output(
                    display_name="about",
                    tooltip="Architecture, sizes, route, and recommended settings; connect Preview as Text.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str | None, text_encoder: str | None = INSIDE) -> tuple:
        """A file that training has written anew is loaded anew. A linked input is None here: the host itself sees when
        what comes over the link changes."""
        files = {"checkpoints": ckpt_name, "text_encoders": None if text_encoder == INSIDE else text_encoder}
        return ckpt_name, text_encoder, *(name and changed(_path(folder, name)) for folder, name in files.items())

    @classmethod
    def execute(cls, ckpt_name: str, text_encoder: str = INSIDE) -> io.NodeOutput:
        path = _path("checkpoints", ckpt_name)
        other = None if text_encoder == INSIDE else _path("text_encoders", text_encoder)
        model = load(str(path))
        about = description(spec_of(model))
        return io.NodeOutput(model, load_clip(path, other), load_vae(path), about, ui=ui.PreviewText(about))


def _path(folder: str, name: str) -> Path:
    return Path(folder_paths.get_full_path_or_raise(folder, name))
