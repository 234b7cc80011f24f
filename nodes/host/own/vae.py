"""Autoencoders of diffusers as the host's VAE, where the host has their layers but its Load VAE does not build them:
the deep compression autoencoder of Sana, and KL autoencoders of other levels than Stable Diffusion's."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sd
import torch
from comfy.ldm.ace.vae.autoencoder_dc import AutoencoderDC
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_management import InterruptProcessingException, throw_exception_if_processing_interrupted
from torch import Tensor, nn

from ....sparse_model.checkpoints.source import find
from ....sparse_model.files import FileError, printable, read_json, sentence
from ....sparse_model.tensors import finite, opened

USUAL = [1, 2, 4, 4]  # widths of the levels that Load VAE builds, relative to the first
LEVELS = range(4, 7)
ATTENTION = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}  # whether levels of the encoder have some
RESOLUTION = 256  # by which the host numbers levels with attention
# The smallest network that the host makes a VAE object around; ours takes its place.
STAND_IN = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True, "z_channels": 4, "resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
        "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    },
}  # fmt: skip

Tensors = dict[str, Tensor]


def load_vae(folder: Path) -> comfy.sd.VAE:
    """A VAE from config.json and safetensors of a diffusers folder; ValueError in one sentence if it is damaged."""
    config = config_of(folder) or {}
    name = config.get("_class_name", "autoencoder")
    try:
        build, convert, ratio = KINDS[name]
        network = build(config).eval()
        with opened(find(folder).files) as contents:
            state = convert({key: _read(key, stored.read) for key, stored in contents.tensors.items()})
        _fill(network, state)
        channels, ratio = int(config["latent_channels"]), ratio(network)
    except InterruptProcessingException:
        raise
    except Exception as error:
        raise ValueError(f"'{printable(folder.name)}' is not a complete {name}: {sentence(error)}") from error
    return _hosted(network, channels, ratio)


def config_of(folder: Path) -> dict[str, Any] | None:
    """What config.json says, if it is that of such an autoencoder."""
    try:
        config = read_json(folder / "config.json")
        if config["_class_name"] == "AutoencoderKL":
            widths = _multiples(config)
            return config if len(widths) in LEVELS and widths != USUAL else None
        return config if config["_class_name"] in KINDS else None
    except (FileError, KeyError, TypeError, ZeroDivisionError):
        return None


def _multiples(config: Mapping[str, Any]) -> list[float]:
    widths = config["block_out_channels"]
    return [width / widths[0] for width in widths]


def _deep_compression(config: Mapping[str, Any]) -> AutoencoderDC:
    sizes = inspect.signature(AutoencoderDC).parameters
    given = {key: value for key, value in config.items() if key in sizes}
    return AutoencoderDC(**given | {"scaling_factor": 1.0})  # the model's latent format scales latents


class KL(AutoencoderKL):
    """Decodes the first channels of latents that hold something else behind them: SR-DiT's class token."""

    def decode(self, z: Tensor, **options: Any) -> Tensor:
        return super().decode(z[:, : self.embed_dim], **options)


def _kl(config: Mapping[str, Any]) -> KL:
    channels = config["latent_channels"]
    attention = [level for level, kind in enumerate(config["down_block_types"]) if ATTENTION[kind]]
    layers = {
        "double_z": True, "z_channels": channels, "resolution": RESOLUTION, "in_channels": 3, "out_ch": 3,
        "ch": config["block_out_channels"][0], "ch_mult": [int(width) for width in _multiples(config)],
        "num_res_blocks": config["layers_per_block"], "dropout": 0.0,
        "attn_resolutions": [RESOLUTION >> level for level in attention],
    }  # fmt: skip
    return KL(embed_dim=channels, ddconfig=layers)


HOST_NAMES = {
    r"conv_shortcut": "nin_shortcut",
    r"conv_norm_out": "norm_out",
    r"down_blocks\.(\d+)\.resnets": r"down.\1.block",
    r"down_blocks\.(\d+)\.attentions": r"down.\1.attn",
    r"down_blocks\.(\d+)\.downsamplers\.0": r"down.\1.downsample",
    r"up_blocks\.(\d+)\.resnets": r"up.\1.block",
    r"up_blocks\.(\d+)\.attentions": r"up.\1.attn",
    r"up_blocks\.(\d+)\.upsamplers\.0": r"up.\1.upsample",
    r"mid_block\.attentions\.0": "mid.attn_1",
    r"mid_block\.resnets\.0": "mid.block_1",
    r"mid_block\.resnets\.1": "mid.block_2",
    r"group_norm\.": "norm.",
    r"(to_q|query)\.": "q.",
    r"(to_k|key)\.": "k.",
    r"(to_v|value)\.": "v.",
    r"(to_out\.0|proj_attn)\.": "proj_out.",
}
"""What diffusers calls the parts of an autoencoder, and what the host does."""
POINTWISE = re.compile(r"attn\w*\.(\d+\.)?(q|k|v|proj_out)\.weight$")  # layers of attention: convolutions in the host


def host_name(key: str, levels: int) -> str:
    """diffusers' key under the host's name. The host numbers the levels of the decoder from the picture's side."""
    for theirs, ours in HOST_NAMES.items():
        key = re.sub(theirs, ours, key)
    return re.sub(r"(?<=decoder\.up\.)\d+", lambda level: str(levels - 1 - int(level[0])), key)


def _from_diffusers(state: Tensors) -> Tensors:
    """Under the host's keys; one that was trained without the layers around the latent gets some that do nothing."""
    levels = len({key.split(".")[2] for key in state if key.startswith("encoder.down_blocks.")})
    state = {host_name(key, levels): value for key, value in state.items()}
    state = {key: value[..., None, None] if POINTWISE.search(key) and value.ndim == 2 else value
             for key, value in state.items()}  # fmt: skip
    for key, inner in (("quant_conv", "encoder.conv_out"), ("post_quant_conv", "decoder.conv_in")):
        if f"{key}.weight" not in state:
            shape = state[f"{inner}.weight"].shape
            channels = shape[0] if key == "quant_conv" else shape[1]
            state[f"{key}.weight"] = torch.eye(channels).reshape(channels, channels, 1, 1)
            state[f"{key}.bias"] = torch.zeros(channels)
    return state


def _read(key: str, read: Callable[[], Tensor]) -> Tensor:
    throw_exception_if_processing_interrupted()
    value = read()
    if not finite(value):
        raise FileError(f"its tensor {key} holds values that are not finite.")
    return value


def _fill(network: nn.Module, state: Tensors) -> None:
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise FileError(f"it lacks {len(missing)} of {len(wanted)} tensors, such as {missing[0]}.")
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise FileError(f"its tensor {key} has the shape {list(state[key].shape)}, expected {list(value.shape)}.")
        value.copy_(state[key])


def _hosted(network: nn.Module, channels: int, ratio: int) -> comfy.sd.VAE:
    vae = comfy.sd.VAE(sd=AutoencoderKL(**STAND_IN).state_dict(), config={"params": STAND_IN})
    vae.downscale_ratio = vae.upscale_ratio = ratio
    vae.latent_channels, vae.size = channels, None
    decoding = vae.memory_used_decode
    vae.memory_used_decode = lambda shape, dtype: decoding(shape, dtype) * (ratio / 8) ** 2
    vae.first_stage_model = network.to(vae.vae_dtype)
    patcher = comfy.model_patcher.ModelPatcher
    vae.patcher = patcher(network, load_device=vae.device, offload_device=vae.patcher.offload_device)
    return vae


# diffusers' class -> (config -> network, its keys -> the host's, network -> pixels of a picture per pixel of a latent)
KINDS = {
    "AutoencoderDC": (_deep_compression, dict, lambda network: network.spatial_compression_ratio),
    "AutoencoderKL": (_kl, _from_diffusers, lambda network: 2 ** (network.encoder.num_resolutions - 1)),
}
