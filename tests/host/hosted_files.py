"""The files that a workflow asks the host's own loaders for."""

import json
import subprocess
from pathlib import Path

from hosts import Checkout

LOADERS = {
    "unet_name": "diffusion_models", "clip_name": "text_encoders", "clip_name1": "text_encoders",
    "clip_name2": "text_encoders", "vae_name": "vae", "lora_name": "loras", "ckpt_name": "checkpoints",
}  # fmt: skip
"""Inputs that name a file, and the folder it is in."""


def named_files(path: Path) -> list[tuple[str, str]]:
    """(input, file) of every loader of one of the host's own models."""
    inputs = [node["inputs"] for node in json.loads(path.read_text()).values()]
    return [(name, values[name]) for values in inputs for name in LOADERS if name in values]


def write_small(checkout: Checkout, models: Path, *files: str) -> None:
    """Some of small_files.FILES, under the folder of a server's models."""
    command = [checkout.python, Path(__file__).with_name("small_files.py"), checkout.root, models, *files]
    subprocess.run(command, env=checkout.environment, check=True, capture_output=True, timeout=300)
