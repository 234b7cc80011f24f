"""Autoencoders that the host does not load."""

from comfy_api.latest import io

from .host.own.folders import folder_names, folder_path
from .host.own.vae import config_of, load_vae
from .sockets import CATEGORY, found_by

PLACE = "vae"


class SparseVAELoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseVAELoader",
            display_name="Sparse VAE Loader",
            category=CATEGORY,
            **found_by("DC-AE", "PRX VAE", "INVAE"),
            description="Loads autoencoders that Load VAE does not know: the DC-AE of Nitro-T and of the PRX models "
            "named dc-ae, that of 16 channels for MicroDiT, and SR-DiT's INVAE. For every other model use Load VAE.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=folder_names(PLACE, config_of),
                    tooltip="A folder in models/vae with config.json and safetensors: the folder vae of Nitro-T or "
                    "of a PRX model with a DC-AE, ostris/vae-kl-f8-d16, or REPA-E/e2e-invae-hf.",
                )
            ],
            outputs=[io.Vae.Output(display_name="vae", tooltip="For VAE Decode and VAE Encode.")],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        return io.NodeOutput(load_vae(folder_path(folder, PLACE, config_of, "such an autoencoder")))
