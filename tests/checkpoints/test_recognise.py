"""Published checkpoints are told by their keys, shapes and names."""

from dataclasses import replace

import pytest
import torch
from published_files import published_microdit
from safetensors.torch import save_file
from torch import nn

from sparse_model.checkpoints.checkpoint import build, read
from sparse_model.checkpoints.clues import Clues
from sparse_model.checkpoints.families import ARCHITECTURES, maskdit, prx, recognise, srdit
from sparse_model.checkpoints.metadata import to_metadata
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.labels import class_names
from sparse_model.conditions.text import TextSpec
from sparse_model.method.prediction import EDM, Epsilon, Flow
from sparse_model.method.schedule import PRESETS, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig
from sparse_model.networks.layers import Backend
from sparse_model.networks.maskdit import MaskDiT, MaskDiTConfig
from sparse_model.networks.mdt import MDT, MDTConfig
from sparse_model.networks.microdit import MicroDiT
from sparse_model.networks.nitro_dit import NitroDiTConfig
from sparse_model.networks.nitro_mmdit import NitroMMDiTConfig
from sparse_model.networks.prx import PRXConfig
from sparse_model.networks.sprint import Sprint, SprintConfig
from sparse_model.networks.srdit import SRDiT, SRDiTConfig
from sparse_model.networks.xut import XUT, XUTConfig

META = Backend(device="meta")


def of(network: nn.Module, name: str = "any") -> Clues:
    return Clues({key: tuple(value.shape) for key, value in network.state_dict().items()}, name)


def only(architecture: str, clues: Clues) -> bool:
    """Whether no other family takes a file of these clues for its own."""
    return [name for name, entry in ARCHITECTURES.items() if entry.recognise(clues)] == [architecture]


@pytest.mark.parametrize(("name", "size"), [("sprint_XL_imagenet256", 32), ("sprint_XL_imagenet512", 64)])
def test_sprint(name, size):
    config = SprintConfig.named("XL/2", input_size=size)
    clues = of(Sprint(config, backend=META), name)
    # the REPA variant carries the projection that its training aligned features with
    extra = {"projectors.0.weight": (2048, 1152), "projectors.0.bias": (2048,)} if size == 32 else {}
    clues = replace(clues, shapes={**clues.shapes, **extra})
    assert recognise(clues) == ModelSpec(
        "sprint",
        config,
        Flow(),
        Sparsity(mask=0.75),
        class_names(1000),
        schedule=replace(PRESETS["PDG"], selection="structured"),
        steps=250,
        title=name,
    )
    assert only("sprint", clues)


@pytest.mark.parametrize("changes", [{}, {"swiglu": True, "mlp_ratio": 3.0, "depth": 4}])
def test_sizes_of_sprint(changes):
    config = SprintConfig(32, 2, 4, 48, 3, 4, num_classes=5, encoder_depth=1, decoder_depth=2)
    config = replace(config, **changes)
    assert recognise(of(Sprint(config, backend=META))).config == config


@pytest.mark.parametrize(("size", "start"), [(16, 0.2), (32, 0.333)])
def test_srdit(size, start):
    """The file also has what training aligned features with, and tables of its rotary positions."""
    config = SRDiTConfig.named("B/1", input_size=size)
    clues = of(SRDiT(config, backend=META), "0400000")
    extra = {"projectors.0.0.weight": (2048, 768), "feat_rope.freqs_cos": (size**2, 64)}
    clues = replace(clues, shapes={**clues.shapes, **extra})
    assert recognise(clues) == ModelSpec(
        "srdit",
        config,
        Flow(shift=(size**2 / 128) ** 0.5),
        Sparsity(mask=0.75),
        class_names(1000),
        latent="invae",
        schedule=replace(constant(0, 1, 2.5, "CFG + SG"), start=start),
        steps=250,
        title="0400000",
        note=srdit.NOTE,
    )
    assert only("srdit", clues)
    assert recognise(clues).ratio * size == {16: 256, 32: 512}[size]


def test_sizes_of_srdit():
    config = SRDiTConfig(16, 1, 35, 48, 1, 4, num_classes=5, class_width=700)
    assert recognise(of(SRDiT(config, backend=META))).config == config
    with pytest.raises(ValueError, match="SR-DiT for latents of 16 channels"):
        recognise(of(SRDiT(replace(config, in_channels=19), backend=META)))


@pytest.mark.parametrize("pixels", [256, 512])
def test_maskdit(pixels):
    config = MaskDiTConfig.named("XL/2", input_size=pixels // 8)
    network = MaskDiT(config, backend=META)
    assert len(network.state_dict()) == 378
    assert sum(value.numel() for value in network.parameters()) == {256: 730_541_200, 512: 731_819_152}[pixels]
    clues, schedule = of(network), constant(0, 0, 1.5, "CFG")
    assert maskdit.recognise(clues) == ModelSpec(
        "maskdit", config, EDM(), Sparsity(mask=0.5), schedule=schedule, steps=40
    )
    assert only("maskdit", clues)
    assert maskdit.recognise(replace(clues, shapes={**clues.shapes, "cls_token": (1, 1, 1152)})) is None


def test_sizes_of_maskdit():
    config = MaskDiTConfig(32, 4, 4, 384, 2, 6, 2.0, 5, decoder_width=32, decoder_depth=2, decoder_heads=16)
    assert recognise(of(MaskDiT(config, backend=META))).config == config


def test_mdt():
    clues = of(MDT(MDTConfig(), backend=META), "mdt_xl2_v2_ckpt")
    buffer = "en_inblocks.0.attn.rel_pos_bias.relative_position_index"
    spec = recognise(replace(clues, shapes={**clues.shapes, buffer: (256, 256)}))
    assert ARCHITECTURES["mdt"].extra(buffer)
    assert (spec.architecture, spec.config, spec.latent) == ("mdt", MDTConfig(), "sd")
    assert (spec.prediction, spec.sparsity, spec.labels) == (Epsilon(), Sparsity(mask=0.3), class_names(1000))
    assert (spec.schedule, spec.steps) == (constant(0, 0, 4.0, "CFG"), 250)
    assert "first three of the four latent channels" in spec.note
    assert only("mdt", clues)


def test_sizes_of_mdt():
    config = MDTConfig(input_size=8, patch_size=4, in_channels=3, width=48, depth=2, heads=3, num_classes=7, half=1)
    config = replace(config, learn_sigma=False, mlp_ratio=2.0)
    assert recognise(of(MDT(config))).config == config


def test_microdit():
    config = published_microdit()
    network = MicroDiT(config, backend=META)
    assert 1.15e9 < sum(value.numel() for value in network.parameters()) < 1.17e9  # the authors' 1.16 billion
    clues = of(network, "dit_4_channel_22M_real_only_data")
    spec = recognise(clues)
    assert (spec.architecture, spec.config, spec.latent) == ("microdit", config, "sdxl")
    assert (spec.prediction, spec.sparsity) == (EDM(sigma_data=0.9), Sparsity(mask=0.75))
    assert spec.text == TextSpec("clip-h", 1024, 77, null="zeros") and spec.labels == ()
    assert (spec.schedule, spec.steps) == (constant(0, 0, 5.0, "CFG"), 30)
    assert only("microdit", clues)


def test_microdit_of_16_channels():
    clues = of(MicroDiT(published_microdit(channels=16), backend=META), "dit_16_channel_37M_real_and_synthetic_data")
    assert (recognise(clues).latent, recognise(clues).ratio) == ("kl-f8-d16", 8)
    with pytest.raises(ValueError, match="8 channels, whose scale is not known"):
        recognise(of(MicroDiT(published_microdit(channels=8), backend=META)))


@pytest.mark.parametrize(("name", "head_width"), [("XL", 64), ("Tiny", 32)])
def test_heads_of_microdit(name, head_width):
    """The authors' Tiny is 512 wide with heads of 32 channels, their XL 1024 wide with heads of 64."""
    config = replace(published_microdit(), width={"XL": 1024, "Tiny": 512}[name])
    spec = recognise(of(MicroDiT(config, backend=META)))
    assert spec.config.head_width == head_width and "attention heads" not in spec.note


NITRO = {  # the published name -> architecture, sizes, whether padding is masked, and the scheduler's shift
    "Nitro-T-0.6B": ("nitro-dit", NitroDiTConfig(), True, 1.0),
    "Nitro-T-1.2B": ("nitro-mmdit", NitroMMDiTConfig(), False, 3.0),
}


def of_nitro(name: str, config=None) -> Clues:
    architecture, usual, *_ = NITRO[name]
    return of(build(ModelSpec(architecture, config or usual, Flow()), META), name)


@pytest.mark.parametrize("name", NITRO)
def test_nitro(name):
    architecture, config, masked, shift = NITRO[name]
    clues = of_nitro(name)
    trained = replace(clues, shapes={**clues.shapes, "projectors.0.0.weight": (2048, 1152)})
    spec = recognise(trained)
    assert ARCHITECTURES[architecture].extra("projectors.0.0.weight")
    assert (spec.architecture, spec.config, spec.latent, spec.license) == (architecture, config, "dcae", "Apache-2.0")
    assert spec.text == TextSpec("llama3.2-1b", 2048, 256, masked=masked)
    assert (spec.prediction, spec.sparsity) == (Flow(shift=shift, levels=1000), Sparsity(mask=0.5))
    assert (spec.schedule, spec.steps) == (constant(0, 0, 4.0, "CFG"), 20)
    assert "get no prediction" in spec.note and "attention heads" not in spec.note
    assert only(architecture, clues)
    scheduled = recognise(replace(clues, settings={"shift": 2.5}))
    assert scheduled.prediction.shift == 2.5


def test_nitro_at_other_sizes():
    """The authors' configurations train either network at either size; the name tells."""
    for name, pixels, shift in (("Nitro-T-0.6B", 1024, 3.0), ("Nitro-T-1.2B", 512, 1.0)):
        spec = recognise(replace(of_nitro(name), name=f"bs2048_norepa_maskd2_ratio0.5_dit_finetune_{pixels}"))
        assert (spec.config.input_size * spec.ratio, spec.prediction.shift) == (pixels, shift)
        assert spec.license == ""


def test_sizes_of_nitro():
    sizes = {"in_channels": 8, "width": 128, "depth": 5, "hidden": 200, "text_width": 24}
    for config in (NitroDiTConfig(**sizes, heads=2), NitroMMDiTConfig(**sizes, heads=4, dual=2)):
        (name,) = [name for name, entry in NITRO.items() if isinstance(entry[1], type(config))]
        assert recognise(of_nitro(name, config)).config == config
    assert "2 of 64 channels are assumed" in recognise(of_nitro("Nitro-T-0.6B", NitroDiTConfig(**sizes, heads=2))).note


PRX_FILES = {  # the published name -> sizes of its kind, and what else is told by it
    "prx-1024-t2i-beta": (PRXConfig(128), "flux", "t5gemma-2b"),
    "prx-512-t2i-dc-ae": (PRXConfig(16, 1, 32), "dcae", "t5gemma-2b"),
    "prxpixel-t2i": (PRXConfig(1024, 16, 3, text_width=2048, bottleneck=10, sized=True), "pixels", "qwen3-vl-2b"),
}


def of_prx(config: PRXConfig, name: str) -> Clues:
    return of(build(ModelSpec("prx", config, Flow()), META), name)


@pytest.mark.parametrize("name", PRX_FILES)
def test_prx(name):
    config, latent, encoder = PRX_FILES[name]
    spec = recognise(of_prx(config, name))
    assert (spec.config, spec.latent, spec.license) == (config, latent, "Apache-2.0")
    assert spec.text == TextSpec(encoder, config.text_width, 256, masked=True)
    assert spec.sparsity == Sparsity((Route(2, 14 if config.sized else 12, 0.5),))
    assert "nobody says that its weights were trained with one" in spec.note
    assert spec.prediction.noise_scale == (2 if latent == "pixels" else 1)
    assert (spec.schedule, spec.steps) == (constant(0, 0, 5.0, "CFG"), 28)


@pytest.mark.parametrize("prefix", ["denoiser.", "model.denoiser."])
def test_prx_of_the_dose_response_study(tmp_path, prefix):
    """Trained with TREAD on pictures of 512 pixels, and sampled on the training code's plain shifted schedule."""
    config = PRXConfig(512, 32, 3, width=64, depth=8, heads=1, text_width=2304, bottleneck=16)
    state = build(ModelSpec("prx", config, Flow())).state_dict()
    folder = tmp_path / "dose-response-c3"
    folder.mkdir()
    torch.save({prefix + key: value for key, value in state.items()}, folder / "denoiser.pt")
    spec, loaded = read(folder / "denoiser.pt")
    assert loaded.keys() == state.keys() and spec.config == config
    assert (spec.title, spec.latent, spec.license) == ("dose-response-c3", "pixels", "Apache-2.0")
    assert spec.prediction == Flow("data", shift=3.0, floor=0.05)
    torch.testing.assert_close(spec.prediction.sigmas(2), torch.tensor([1.0, 0.75, 0.0]))
    assert spec.note.startswith("It was trained with TREAD") and spec.sparsity == Sparsity((Route(2, 4, 0.5),))
    assert (spec.schedule, spec.steps) == (constant(0, 0, 3.5, "CFG"), 50)


def test_heads_that_are_guessed_are_said():
    for network in (
        DiT(DiTConfig(16, width=320, depth=1, heads=5)),
        MaskDiT(MaskDiTConfig(16, width=320, depth=1, heads=5, decoder_width=32, decoder_depth=1)),
        MicroDiT(replace(published_microdit(), width=320), backend=META),
    ):
        assert recognise(of(network)).note.endswith("attention heads: 5 of 64 channels are assumed")
    for network in (
        DiT(DiTConfig.named("S/2"), backend=META),
        MaskDiT(MaskDiTConfig.named("S/2"), backend=META),
        MicroDiT(published_microdit(), backend=META),
    ):
        assert "attention heads" not in recognise(of(network)).note


@pytest.mark.parametrize(("name", "said"), [("DiT-XL-2", True), ("SiT-XL-2", True), ("tread", False)])
def test_guidance_of_three_channels_is_said(name, said):
    network = DiT(DiTConfig.named("S/2", learn_sigma=said), backend=META)
    assert ("first three of the four latent channels" in recognise(of(network, name)).note) == said


def test_weights_of_tread_are_edm_inside_its_wrapper_only(tmp_path):
    """`model.` around the keys is the wrapper; without it the network is bare; a record goes before both."""
    config = DiTConfig(8, width=64, depth=1, heads=1, num_classes=3)
    state = DiT(config).state_dict()
    wrapped = {f"model.{key}": value for key, value in state.items()}
    for data, prediction in (
        (state, Flow()),
        ({"ema_state_dict": state}, Flow()),
        ({"module." + key: value for key, value in wrapped.items()}, EDM(sigma_data=0.5)),
        ({"ema": wrapped}, EDM(sigma_data=0.5)),
        ({f"model.diffusion_model.{key}": value for key, value in state.items()}, Flow()),
    ):
        torch.save(data, tmp_path / "tread.pt")
        assert read(tmp_path / "tread.pt")[0].prediction == prediction
    save_file(wrapped, tmp_path / "a.safetensors", to_metadata(ModelSpec("dit", config, Flow("data"))))
    assert read(tmp_path / "a.safetensors")[0].prediction == Flow("data")


def test_a_distilled_prx():
    spec = recognise(of_prx(PRXConfig(), "prx-512-t2i-sft-distilled"))
    assert (spec.schedule, spec.steps) == (constant(0, 0, 1.0, "CFG"), 8)


@pytest.mark.parametrize("pixels", [512, 768, 1024])
@pytest.mark.parametrize("prefix", ["unet.model.", "model.", ""])
def test_hdm(pixels, prefix):
    """The published file around the network, that of diffusers, and the network alone."""
    config = XUTConfig(input_size=pixels // 8)
    shapes = {f"{prefix}{key}": shape for key, shape in of(XUT(config, backend=META)).shapes.items()}
    around = {"vae.encoder.conv_in.weight": (128, 3, 3, 3), "vae_mean": (1, 4, 1, 1)} if "unet" in prefix else {}
    name = f"hdm-xut-340M-{pixels}px-note"
    spec = recognise(Clues({**shapes, **around}, name))
    assert (spec.architecture, spec.config, spec.latent, spec.title) == ("xut", config, "eq-sdxl", name)
    assert (spec.prediction, spec.sparsity) == (Flow(), Sparsity((Route(1, 1, 0.5),)))
    assert spec.text == TextSpec("qwen3-0.6b", 1024, 256, padded=False)
    assert (spec.schedule, spec.steps) == (PRESETS["HDM"], 24)
    assert spec.license == "CC BY-NC-SA 4.0"
    assert ("dense" in spec.note) == (pixels == 1024)


def test_sizes_of_hdm():
    sizes = {"width": 64, "heads": 2, "hidden": 96, "text_width": 24, "before": 2, "levels": 3, "encoder": 2}
    config = XUTConfig(**sizes, decoder=4, after=1)
    assert recognise(of(XUT(config, backend=META))).config == config


def test_hdm_is_nothing_else():
    assert only("xut", of(XUT(XUTConfig(), backend=META)))


PHOTOROOM = {  # what the repository Photoroom/PRX calls the weights of a block, by diffusers' names
    "attention.img_qkv_proj.weight": "img_qkv_proj.weight",
    "attention.txt_kv_proj.weight": "txt_kv_proj.weight",
    "attention.norm_q.weight": "qk_norm.query_norm.scale",
    "attention.norm_k.weight": "qk_norm.key_norm.scale",
    "attention.norm_added_k.weight": "k_norm.scale",
    "attention.to_out.0.weight": "attn_out.weight",
}


def test_keys_of_photoroom():
    diffusers = of_prx(PRXConfig(depth=4), "prx-512-t2i").shapes
    photoroom = {}
    for key, shape in diffusers.items():
        *start, end = key.split(".", 2) if key.startswith("blocks.") else (key,)
        photoroom[".".join([*start, PHOTOROOM.get(end, end)])] = shape
    assert len(set(photoroom) - set(diffusers)) == 6 * 4
    assert {prx.rename(key): shape for key, shape in photoroom.items()} == diffusers
    assert all(prx.rename(key) == key for key in diffusers)
    assert prx.rename("blocks.3.qk_norm.key_norm.weight") == "blocks.3.attention.norm_k.weight"
    assert recognise(Clues(photoroom, "prx")) == recognise(Clues(diffusers, "prx"))
