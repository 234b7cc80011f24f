"""Runs inside a host's Python, without a server: python small_files.py CHECKOUT MODELS FILE ... writes those of `FILES`
under the folder MODELS, but of a network that this host does not have.

Models of the host's own as published, by file name, keys and form, of random weights and the sizes of small_models.py.
"""

import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path

checkout, models, *wanted = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [checkout, str(Path(__file__).parent)]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import sentencepiece  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import zoo  # noqa: E402
from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder  # noqa: E402
from comfy.ldm.wan.vae import WanVAE  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from small_models import CLIP, NETWORKS, QWEN, T5, UMT5  # noqa: E402
from torch import Tensor  # noqa: E402

Weights = dict[str, Tensor]
KL_F8 = {
    "double_z": True, "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [],
}  # fmt: skip
WAN_VAE = {
    "dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
    "temperal_downsample": [False, True, True],
}  # fmt: skip
# both at full size, since 0.3 builds them so whatever the file holds
SD3 = "SD3.5"
PROMPT = "a fox moving quickly in a beautiful winter scenery nature trees mountains daytime tracking camera"


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


def filled(module: torch.nn.Module) -> Weights:
    """Convolutions of the host have no weights to begin with."""
    generator = torch.Generator().manual_seed(0)
    weights = module.state_dict()
    for name, value in weights.items():
        if value.ndim > 1 and not name.endswith("gamma"):
            value.normal_(generator=generator).mul_(value[0].numel() ** -0.5)
        else:
            value.fill_(0.0 if name.endswith("bias") else 1.0)
    return prefixed("", {name: value.half() for name, value in weights.items()})


def network(name: str) -> Weights | None:
    patcher = zoo.build(zoo.FILES[name])
    return None if patcher is None else patcher.model.diffusion_model.state_dict()


def clip() -> Weights:
    model = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**CLIP, projection_dim=64))
    return {key: value for key, value in model.state_dict().items() if "position_ids" not in key}


def t5() -> Weights:
    config = transformers.T5Config(**{"vocab_size": 32128, **T5}, feed_forward_proj="gated-gelu")
    weights = transformers.T5EncoderModel(config).state_dict()
    return {key: value.clone() for key, value in weights.items() if "embed_" not in key}


def umt5() -> Weights:
    """With the model of its tokenizer, which knows the pieces of one prompt."""
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([PROMPT]), model_writer=pieces, vocab_size=UMT5["vocab_size"], hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    weights = transformers.UMT5EncoderModel(transformers.UMT5Config(**UMT5)).state_dict()
    weights = {key: value.clone() for key, value in weights.items() if "embed_" not in key}
    return weights | {"spiece_model": torch.frombuffer(bytearray(pieces.getvalue()), dtype=torch.uint8)}


def qwen() -> Weights:
    config = transformers.Qwen3Config(**QWEN, vocab_size=151936, head_dim=128)
    return prefixed("model.", transformers.Qwen3Model(config).state_dict())


def kl_f8() -> Weights:
    return filled(torch.nn.ModuleDict({"encoder": Encoder(**KL_F8), "decoder": Decoder(**KL_F8)}))


def sd3() -> Weights:
    """Without its T5, as it may be."""
    encoders = prefixed("clip_l.transformer.", clip()) | prefixed("clip_g.transformer.", clip())
    return {
        **prefixed("model.diffusion_model.", network(SD3)),
        **prefixed("text_encoders.", {key: value.clone() for key, value in encoders.items()}),
        **prefixed("first_stage_model.", kl_f8()),
    }


def flux_lora() -> Weights:
    """Over the attention of every block, as trainers on diffusers write it."""
    sizes, generator = zoo.FILES["FLUX.1"].sizes, torch.Generator().manual_seed(1)
    blocks = [f"transformer_blocks.{i}" for i in range(sizes["depth"])]
    blocks += [f"single_transformer_blocks.{i}" for i in range(sizes["depth_single_blocks"])]
    width, rank = sizes["hidden_size"], 4
    return {
        f"transformer.{block}.attn.{layer}.lora_{side}.weight": torch.randn(shape, generator=generator) * 0.1
        for block in blocks
        for layer in ("to_q", "to_k", "to_v")
        for side, shape in (("A", (rank, width)), ("B", (width, rank)))
    }


FILES: dict[str, Callable[[], Weights | None]] = {
    **{f"diffusion_models/{file}": functools.partial(network, name) for file, name in NETWORKS.items() if name != SD3},
    "checkpoints/sd3.5_large_fp8_scaled.safetensors": sd3,
    "loras/my_tread_lora.safetensors": flux_lora,
    "text_encoders/clip_l.safetensors": clip,
    "text_encoders/t5xxl_fp16.safetensors": t5,
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors": umt5,
    "text_encoders/qwen_3_4b.safetensors": qwen,
    "vae/ae.safetensors": kl_f8,
    "vae/wan_2.1_vae.safetensors": lambda: filled(WanVAE(**WAN_VAE)),
}

for file in wanted:
    torch.manual_seed(0)
    weights = FILES[file]()
    if weights is not None:
        (Path(models) / file).parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in weights.items()}, Path(models) / file)
