"""Every tensor of the published models, by name and shape: what the authors' own code makes at the published sizes.

`LAYOUTS` were computed once from the state dicts of facebookresearch/DiT and willisma/SiT (XL/2, 256 pixels),
CompVis/tread (B/2), Anima-Lab/MaskDiT (XL/2, without the `model.` of its wrapper), snap-research/Sprint (its published
configuration), SonyResearch/micro_diffusion (XL/2, 512 pixels), KohakuBlueleaf/HDM (its published configuration,
without the table of frequencies of its timesteps), SwayStar123/SpeedrunDiT (B/1, without the projectors of its
training and its rotary tables), and the code of Nitro-T (both training configurations): `layout` of them, and the
number of parameters. That of sail-sg/MDT (MDTv2-XL/2) is without the buffers of its relative positions.
"""

import hashlib

import pytest
from published_files import published_microdit

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.method.prediction import Flow
from sparse_model.networks.dit import DiTConfig
from sparse_model.networks.layers import Backend
from sparse_model.networks.maskdit import MaskDiTConfig
from sparse_model.networks.mdt import MDTConfig
from sparse_model.networks.nitro_dit import NitroDiTConfig
from sparse_model.networks.nitro_mmdit import NitroMMDiTConfig
from sparse_model.networks.sprint import SprintConfig
from sparse_model.networks.srdit import SRDiTConfig
from sparse_model.networks.xut import XUTConfig

LAYOUTS = {
    "DiT and SiT": ("dit", DiTConfig.named("XL/2", learn_sigma=True), "af6f07b0d6cf8bb4", 675_129_632),
    "TREAD": ("dit", DiTConfig.named("B/2"), "22c9683ca092fd1b", 130_500_112),
    "MaskDiT": ("maskdit", MaskDiTConfig.named("XL/2"), "6d1445ee50476560", 730_541_200),
    "MDTv2": ("mdt", MDTConfig(), "69b1bae27e81f3a0", 742_263_904),
    "SPRINT": ("sprint", SprintConfig.named("XL/2"), "0e46935570ed8164", 677_476_816),
    "SR-DiT, 256 px": ("srdit", SRDiTConfig.named("B/1"), "77c6ad261a722a9d", 132_890_155),
    "SR-DiT, 512 px": ("srdit", SRDiTConfig.named("B/1", input_size=32), "356df61b39ff617b", 133_479_979),
    "MicroDiT": ("microdit", published_microdit(), "b6828a3ecf0834f7", 1_166_490_912),
    "Nitro-T 0.6B": ("nitro-dit", NitroDiTConfig(), "844614f5a5476718", 608_516_384),
    "Nitro-T 1.2B": ("nitro-mmdit", NitroMMDiTConfig(), "8a1827e8d8d169af", 1_257_779_872),
    "HDM": ("xut", XUTConfig(), "59b7d9333dbe9c7b", 343_176_208),
}


def layout(state):
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_network_has_the_tensors_of_the_authors(name):
    architecture, config, expected, parameters = LAYOUTS[name]
    state = build(ModelSpec(architecture, config, Flow()), Backend(device="meta")).state_dict()
    assert sum(value.numel() for value in state.values()) == parameters
    assert layout(state) == expected
