"""Motif-Video of its authors' pack, small and random, and their own way to drop tokens. Runs in a host's Python."""

import contextlib
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import comfy.model_patcher
import comfy.supported_models
import torch
from cases import Case, reference
from torch import Tensor
from zoo import Animal, build

NAME = "motif_authors"
MOTIF = Animal(
    "MotifVideo19B",
    {
        "image_model": "motif_video", "in_channels": 33, "out_channels": 16, "num_attention_heads": 2,
        "attention_head_dim": 12, "num_layers": 2, "num_single_layers": 5, "num_decoder_layers": 3, "mlp_ratio": 2.0,
        "text_embed_dim": 20, "image_embed_dim": 24, "rope_axes_dim": [4, 4, 4],
        "enable_text_cross_attention_dual": True, "enable_text_cross_attention_single": True,
    },
    (2, 16, 3, 6, 8), (5, 20),
    {"transformer_blocks": ("hidden_states", 0), "single_transformer_blocks": ("hidden_states", 0)},
    patch=(1, 2, 2), text=5,
)  # fmt: skip


WIDE = replace(
    MOTIF, context=(5, 32),
    sizes={
        **MOTIF.sizes, "attention_head_dim": 32, "rope_axes_dim": [8, 12, 12], "text_embed_dim": 32,
        "image_embed_dim": 32,
    },
)  # fmt: skip
"""The same of a width that GGUF can quantise."""


def load(folder: Path, name: str = NAME) -> types.ModuleType:
    """A custom node pack, as the host loads it."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def motif_cases(quantised: bool) -> dict[str, Case]:
    """Routes through double and single blocks, through decoder blocks; a picture that becomes the first frame."""
    plain = Case("Motif-Video", route=(1, 3))
    found = {
        "Motif-Video": plain,
        "Motif-Video, decoder": replace(plain, route=(5, 6)),
        "Motif-Video, LoRA": replace(plain, lora=True),
        "Motif-Video, image to video": replace(
            plain, before=12, size=24, latent=(1, 16, 3, 6, 8), extra={"concat_latent_image": reference(16, 1, 6, 8)}
        ),
    }
    return {**found, "Motif-Video, GGUF": replace(plain, animal="Motif-Video, GGUF")} if quantised else found


def build_gguf(animal: Animal) -> comfy.model_patcher.ModelPatcher:
    """The model, its blocks in 8-bit GGUF tensors, with layers and patcher of the pack that loads such files."""
    import gguf  # as that pack does

    ops, nodes = (importlib.import_module(f"motif_gguf.{name}") for name in ("ops", "nodes"))

    def tensor(name: str, value: Tensor) -> Tensor:
        inside = value.ndim == 2 and "transformer_blocks" in name
        kind = gguf.GGMLQuantizationType.Q8_0 if inside else gguf.GGMLQuantizationType.F32
        stored = torch.from_numpy(gguf.quants.quantize(value.numpy(), kind))
        return ops.GGMLTensor(stored, tensor_type=kind, tensor_shape=value.shape)

    config = comfy.supported_models.MotifVideo19B({**animal.sizes, "dtype": torch.float32})
    config.custom_operations = ops.GGMLOps()
    config.set_inference_dtype(torch.float32, None)
    model, weights = config.get_model({}, ""), build(animal).model.diffusion_model.state_dict()
    model.diffusion_model.load_state_dict({name: tensor(name, value) for name, value in weights.items()}, strict=False)
    stored = model.diffusion_model.single_transformer_blocks[0].attn.to_q.weight
    assert stored.tensor_type == gguf.GGMLQuantizationType.Q8_0
    cpu = torch.device("cpu")
    return nodes.GGUFModelPatcher(model, load_device=cpu, offload_device=cpu)


class TreadReference:
    """Runs one branch by the authors' own forward, which takes tokens out in training, on tokens that are given."""

    def __init__(self, network: torch.nn.Module, case: Case, animal: Animal, layers: range, kept: Tensor):
        self.network, self.layers, self.dropped = network, layers, kept.shape[1] == 0
        first = torch.arange(case.before).expand(len(kept), -1)
        self.kept = torch.cat([first, kept + case.before], dim=1)

    @contextlib.contextmanager
    def hiding(self) -> Iterator[None]:
        authors = sys.modules[f"{NAME}.models.transformer.tread_mixin"].TreadMixin
        route = types.SimpleNamespace(
            _tread_route={"start": self.layers.start, "end": self.layers.stop - 1, "sel": 0.5},
            should_run=lambda: not self.dropped, keep_indices=lambda tokens, ratio: self.kept,
            gather_tokens=authors.gather_tokens, scatter_tokens=authors.scatter_tokens,
            adjust_mask=authors.adjust_mask, gather_rope=authors.gather_rope,
        )  # fmt: skip
        before, network = self.network.forward, self.network
        sparse = functools.partial(type(network).forward, network, tread_mixin=route)
        network.forward = sys.modules[f"{NAME}.models"]._make_comfyui_forward(sparse)
        blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
        skipped = [blocks[layer] for layer in self.layers] if self.dropped else []
        for block in skipped:
            block.forward = lambda tokens, text, *_: (tokens, text)
        try:
            yield
        finally:
            network.forward = before
            for block in skipped:
                del block.forward
