"""What needs the host's own Python: batches split for want of memory, foreign calls, progress, errors half way."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXPixelPipeline, PRXTransformer2DModel
from formula import FIXTURES, fill, relative_error
from graphs import SPEC, write_checkpoint
from hosts import REPOSITORY, Checkout
from microdit_fixture import PROMPT, TINY
from nitro_fixture import DIT as NITRO_DIT
from nitro_fixture import EMPTY, MMDIT, filled
from nitro_fixture import PROMPTS as NITRO_PROMPTS
from outcomes import Outcomes, run_cases
from safetensors.torch import load_file

from sparse_model.checkpoints.checkpoint import build, save
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import TextSpec
from sparse_model.method.prediction import EDM, Epsilon, Flow
from sparse_model.method.schedule import PRESETS, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiTConfig
from sparse_model.networks.maskdit import MaskDiTConfig
from sparse_model.networks.mdt import MDTConfig
from sparse_model.networks.microdit import MicroDiTConfig
from sparse_model.networks.positions import sincos_positions
from sparse_model.networks.prx import PRXConfig
from sparse_model.networks.sprint import SprintConfig
from sparse_model.networks.srdit import SRDiTConfig
from sparse_model.networks.xut import XUTConfig

pytestmark = pytest.mark.slow
TEXT = TextSpec("t5gemma-2b", 12, 5, masked=True)
LATENT = PRXConfig(8, 2, 16, width=32, depth=3, heads=2, text_width=12)
MICRODIT = MicroDiTConfig(
    input_size=8, width=32, depth=2, mixer_width=16, mixer_depth=2, attention=(16, 16, 32, 32), hidden=(24, 32, 40, 48),
    experts=(0, 4, 4, 0), text_width=12, text_hidden=32, head_width=16,
)  # fmt: skip
DIT = DiTConfig(8, 2, 4, width=32, depth=3, heads=2, num_classes=3)
FAMILIES = {
    "dit": ModelSpec("dit", replace(DIT, learn_sigma=True), Epsilon()),
    "sit": ModelSpec("dit", replace(DIT, learn_sigma=True), Flow(clean_time=1)),
    "tread": ModelSpec("dit", DIT, Flow(), Sparsity((Route(1, 1),))),
    "maskdit": ModelSpec(
        "maskdit", MaskDiTConfig(8, 2, 4, width=32, depth=2, heads=2, num_classes=3), EDM(), Sparsity(mask=0.5)
    ),
    "mdt": ModelSpec(
        "mdt", MDTConfig(input_size=8, width=32, depth=2, heads=2, num_classes=3, half=1), Epsilon(), Sparsity(mask=0.3)
    ),
    "sprint": ModelSpec(
        "sprint", SprintConfig(8, 2, 4, width=32, depth=2, heads=2, num_classes=3), Flow(), Sparsity(mask=0.75)
    ),
    "srdit": ModelSpec(
        "srdit",
        SRDiTConfig(4, 1, 8, width=32, depth=2, heads=2, num_classes=3, class_width=40),
        Flow(shift=1.4),
        Sparsity(mask=0.75),
        latent="invae",
    ),
    "prx": ModelSpec("prx", LATENT, Flow(shift=3.0, levels=1000), Sparsity((Route(1, 1),)), latent="flux", text=TEXT),
    "prxpixel": ModelSpec(
        "prx",
        replace(LATENT, input_size=32, in_channels=3, patch_size=8, bottleneck=6, sized=True),
        Flow("data", shift=3.0, levels=1000, noise_scale=2.0, floor=0.05),
        Sparsity((Route(1, 1),)),
        latent="pixels",
        text=TEXT,
    ),
    "xut": ModelSpec(
        "xut",
        XUTConfig(8, width=32, heads=2, hidden=48, text_width=12, levels=1, after=1),
        Flow(),
        Sparsity((Route(1, 1),)),
        latent="eq-sdxl",
        text=TextSpec("qwen3-0.6b", 12, 5, padded=False),
    ),
    "microdit": ModelSpec(
        "microdit", MICRODIT, EDM(0.9), Sparsity(mask=0.75), latent="sdxl", text=TextSpec("clip-h", 12, 5, "zeros")
    ),
    "nitro-dit": ModelSpec(
        "nitro-dit", NITRO_DIT, Flow(levels=1000), Sparsity(mask=0.5), latent="sd",
        text=TextSpec("llama3.2-1b", 24, 5, masked=True),
    ),
    "nitro-mmdit": ModelSpec(
        "nitro-mmdit", MMDIT, Flow(shift=3.0, levels=1000), Sparsity(mask=0.5), latent="sd",
        text=TextSpec("llama3.2-1b", 24, 5),
    ),
}  # fmt: skip


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PROMPTS = {
    "texts": [
        {"embeddings": random(1, TEXT.length, TEXT.width, seed=count), "mask": torch.arange(TEXT.length)[None] < count}
        for count in (4, 1)
    ],
    "noise": {"family-prx": random(1, 16, 8, 8, seed=7), "family-prxpixel": random(1, 3, 32, 32, seed=7)},
}
"""The positive and the negative prompt of trajectories, and the noise that they start from."""
GUIDED = {
    "sprint": (
        ModelSpec(
            "sprint", SprintConfig(8, width=48, depth=3, heads=4, encoder_depth=1), Flow(), Sparsity(mask=0.75),
            schedule=PRESETS["PDG"],
        ),
        {},
        {"condition": torch.eye(1000)[207].reshape(1, 1, -1), "scheduler": "simple", "sampler": "euler", "steps": 5},
    ),
    "srdit": (
        ModelSpec(
            "srdit", SRDiTConfig(4, 1, 8, width=48, depth=3, heads=4, class_width=40), Flow(shift=2**0.5),
            Sparsity(mask=0.75), latent="invae", schedule=replace(constant(0, 1, 2.5, "CFG + SG"), start=0.2),
        ),
        {"pos_embed": F.pad(sincos_positions(48, 4, 4, 4), (0, 0, 1, 0))},
        {
            "condition": torch.eye(1000)[207].reshape(1, 1, -1),
            "scheduler": "simple",
            "sampler": "euler",
            "steps": 5,
            "noise": random(1, 8, 4, 4, seed=5),
        },
    ),
    "microdit": (
        ModelSpec(
            "microdit", TINY, EDM(0.9), Sparsity(mask=0.75), latent="sdxl",
            text=TextSpec("clip-h", 24, 6, "zeros"), schedule=constant(0, 0, 5, "CFG"),
        ),
        {"pos_embed": sincos_positions(64, 4, 4, 4), "mask_token": torch.zeros(1, 1, 16)},
        {
            "condition": PROMPT.embeddings[:1],
            "scheduler": "karras",
            "sampler": "heun",
            "steps": 6,
        },
    ),
}  # fmt: skip
"""The networks of the fixtures, the weights that are no formula's, and how their authors sample them."""
for name in ("nitro-dit", "nitro-mmdit"):
    spec = replace(FAMILIES[name], schedule=constant(0, 0, 4, "CFG"))
    spec = replace(spec, text=replace(spec.text, length=7), prediction=Flow(shift=3.0, levels=1000))
    GUIDED[name] = (
        spec,
        filled(build(spec)).state_dict(),
        {
            "condition": NITRO_PROMPTS.embeddings[1:], "options": {"attention_mask": NITRO_PROMPTS.mask[1:]},
            "negative": [[EMPTY.embeddings, {"attention_mask": EMPTY.mask}]],
            "scheduler": "normal", "sampler": "euler", "steps": 6,
        },
    )  # fmt: skip


def write_guided(folder: Path) -> None:
    for name, (spec, fixed, sampling) in GUIDED.items():
        save(fill(build(spec), fixed).state_dict(), spec, folder / f"guided-{name}.safetensors")
        torch.save({"noise": random(1, 4, 8, 8, seed=5), **sampling}, folder / f"guided-{name}.pt")


MERGED = {"deeper": {"depth": 5}, "wider": {"width": 64}}
"""Networks that a tiny one is merged with, by how they differ from it."""


@pytest.fixture(scope="session")
def inside(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("inside")
    write_checkpoint(folder / "tiny.safetensors")
    for name, spec in FAMILIES.items():
        write_checkpoint(folder / f"family-{name}.safetensors", spec)
    for name, sizes in MERGED.items():
        write_checkpoint(folder / f"merged-{name}.safetensors", replace(SPEC, config=replace(SPEC.config, **sizes)))
    torch.save(PROMPTS, folder / "prompts.pt")
    write_guided(folder)
    return run_cases(checkout, Path(__file__).with_name("inside.py"), folder)


CASES = """
import json, os, sys
names = sys.argv[4:] or ["fine", "raises", "dies", "after"]
print(json.dumps(names), flush=True)
for name in names:
    if name == "dies":
        os.abort()
    print("the host says something", flush=True)
    print(json.dumps({"name": name, "error" if name == "raises" else "result": f"of {name}"}), flush=True)
"""


def test_a_case_that_crashes_fails_alone(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "cases.py").write_text(CASES)
    found = run_cases(checkout, tmp_path / "cases.py", tmp_path)
    assert found == {"fine": "of fine", "after": "of after"}
    with pytest.raises(pytest.fail.Exception, match="of raises"):
        found["raises"]
    with pytest.raises(pytest.fail.Exception, match="the process ended with -6"):
        found["dies"]


@pytest.mark.parametrize(("rule", "branches"), [("SG", 2), ("CFG + SG", 2), ("ICG", 2), ("SG beside CFG", 3)])
def test_split_batches_keep_the_same_tokens(inside: Outcomes, rule: str, branches: int) -> None:
    """Two samples in 4 steps: all branches in one call, or each in its own. Rounding depends on shapes, tokens must
    not."""
    assert inside[rule]["calls"] == [[2 * branches] * 4, [2] * 4 * branches]
    assert inside[rule]["difference"] < 1e-4


def test_calls_of_other_nodes_see_the_strong_branch(inside: Outcomes) -> None:
    assert inside["foreign"]["calls"] == 4
    assert inside["foreign"]["difference"] < 1e-5
    assert inside["foreign"]["harmless"]


@pytest.mark.parametrize(("rule", "counts"), [("SG", [7, 8, 12]), ("SG beside CFG", [7, 8, 12, 16])])
def test_tokens_under_a_mask_are_never_left_out(inside: Outcomes, rule: str, counts: list[int]) -> None:
    """16 tokens: the strong branch keeps 12, the weak one 8 down to 6, but seven are under the mask."""
    assert inside[f"mask {rule}"]["inside"]
    assert inside[f"mask {rule}"]["counts"] == counts
    assert inside[f"mask {rule}"]["equal"] and inside[f"mask {rule}"]["changed"]


def test_a_mask_is_refused_where_nothing_is_left_to_differ_in(inside: Outcomes) -> None:
    """At any moment of the schedule, however short, and on any stair of a ramp."""
    refused = {words for words, said in inside["mask rates"].items() if said != "no error"}
    assert refused == {"12"}
    assert inside["mask rates"]["12"].startswith("The mask keeps 11 of 16 tokens, so the strong and the weak branch ")


def test_a_sheet_foresees_what_its_scheduler_makes(inside: Outcomes) -> None:
    """Costs at the steps as they are, one bar over them, and nothing where there is nothing to do."""
    found = inside["sheet"]
    assert found["foreseen"] == pytest.approx(found["came"], rel=1e-6)
    assert found["steps"] == [[step, 19] for step in range(1, 20)]
    assert found["idle"] is None


def test_a_sheet_foresees_how_often_a_sampler_evaluates(inside: Outcomes) -> None:
    """Exactly, but where the picture decides, and with more steps in the same proportion."""
    found = inside["evaluations"]
    assert [found[name][1] for name in ("euler", "heun", "seeds_3")] == [5, 9, 13]
    for name, (foreseen, came, many) in found.items():
        assert foreseen == came or name == "dpm_adaptive", name
        assert many > 1.9 * foreseen, name


def test_a_sheet_says_once_what_holds_for_all_of_its_pictures(inside: Outcomes) -> None:
    """And so do the steps that were timed after it; what each picture cost stands under it, and nowhere else."""
    said = inside["sheet"]["said"]
    assert any(text == "Sparse Guidance Sheet: 3 pictures, 19 steps." for text in said)
    assert len([text for text in said if "64 x 64 pixels are 256 tokens" in text]) == 2
    assert not [text for text in said if "of the work of CFG" in text]


def test_a_merge_with_another_network_is_named(inside: Outcomes) -> None:
    """And none of checkpoints of one network, whatever the merge. A deeper network has all that is wanted of it."""
    silent = {"itself", "blocks", "a merge of itself", "at nothing", "merged-deeper", "added"}
    assert {name for name, said in inside["merged"].items() if not said} == silent
    (wider,), (onto,) = inside["merged"]["merged-wider"], inside["merged"]["onto a deeper one"]
    assert re.search(r"Only \d+ of \d+ weights of this model were merged: ", wider)
    assert re.search(r"Only (\d+) of (?!\1)\d+ weights", onto)


def test_a_compiled_model_compiles_once_per_count_of_tokens(inside: Outcomes) -> None:
    """Neither a step nor a run nor other kept tokens compile anew."""
    assert inside["compiled"]["counts"] > 1
    assert inside["compiled"]["graphs"] == inside["compiled"]["counts"]
    assert inside["compiled"]["difference"] < 1e-4


def test_branches_on_several_devices_make_the_same_picture(inside: Outcomes) -> None:
    if inside["devices"] is None:
        pytest.skip("this host has no multi-GPU node")
    assert inside["devices"] < 1e-4


def test_progress_is_the_hosts_percent(inside: Outcomes) -> None:
    assert inside["percents"] < 1e-3


def test_an_error_half_way_leaves_nothing_behind(inside: Outcomes) -> None:
    assert inside["error"]["clean"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_predicts_in_the_host_what_it_predicts_without(inside: Outcomes, family: str) -> None:
    assert inside[f"family-{family}"]["loaded"] < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_offloaded_weights_predict_the_same(inside: Outcomes, family: str) -> None:
    assert inside[f"family-{family}"]["offloaded"] < 1e-4


def test_loading_can_be_cancelled(inside: Outcomes) -> None:
    assert inside["cancelled"] == [True, True]


def test_previews_are_pictures(inside: Outcomes) -> None:
    size, pixel = inside["preview"]
    assert size == [16, 16]
    assert pixel == [255, 255, 255]


@pytest.mark.parametrize("weight_dtype", ["default", "fp8_e4m3fn"])
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in other units elsewhere")
def test_loading_takes_the_file_and_one_layer(checkout: Checkout, tmp_path: Path, weight_dtype: str) -> None:
    """A model of 0.6 GB in the precision that the host computes in without a GPU, measured in a process of its own,
    beyond what the host itself takes."""
    spec = replace(FAMILIES["prx"], config=replace(LATENT, width=768, depth=12, heads=12))
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build(spec).state_dict().items()}
    state = {key: torch.full(shape, 0.1) for key, shape in shapes.items()}
    size, largest = sum(value.nbytes for value in state.values()), max(value.nbytes for value in state.values())
    assert size > 5e8
    save(state, spec, tmp_path / "large.safetensors")
    del state
    script = Path(__file__).with_name("peak.py")
    command = [checkout.python, script, checkout.root, REPOSITORY, tmp_path / "large.safetensors", weight_dtype]
    result = subprocess.run(
        command, cwd=tmp_path, env=checkout.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert int(result.stdout.splitlines()[-1]) < size + 2 * largest + 64e6


@pytest.mark.parametrize("family", ["prx", "prxpixel"])
def test_the_trajectory_of_the_published_pipeline(inside: Outcomes, family: str) -> None:
    """diffusers' own pipeline from the same noise, step by step; rounding differs and grows along the way."""
    path = inside.folder / f"family-{family}.safetensors"
    assert inside[f"trajectory {path.stem}"] is None
    found = torch.load(path.with_suffix(".trajectory.pt"))
    config = FAMILIES[family].config
    transformer = PRXTransformer2DModel(
        config.in_channels, config.patch_size, config.text_width, config.width, config.mlp_ratio, config.heads,
        config.depth, [config.width // config.heads // 2] * 2, bottleneck_size=config.bottleneck or None,
        resolution_embeds=config.sized,
    )  # fmt: skip
    transformer.load_state_dict(load_file(path))
    scheduler, expected = FlowMatchEulerDiscreteScheduler(shift=3.0), []
    pixel = family == "prxpixel"
    pipeline = PRXPixelPipeline if pixel else partial(PRXPipeline, vae=None)
    start = PROMPTS["noise"][path.stem] * (2 if pixel else 1)
    side = config.input_size * (1 if pixel else 8)
    (text, null) = PROMPTS["texts"]

    def remember(pipe: Any, step: int, time: float, values: dict[str, Any]) -> dict[str, Any]:
        expected.append(values["latents"])
        return values

    pipeline(transformer, scheduler, None, None)(
        height=side, width=side, num_inference_steps=7, guidance_scale=5.0, latents=start,
        prompt_embeds=text["embeddings"], prompt_attention_mask=text["mask"],
        negative_prompt_embeds=null["embeddings"], negative_prompt_attention_mask=null["mask"],
        output_type="pt" if pixel else "latent", use_resolution_binning=False, callback_on_step_end=remember,
    )  # fmt: skip
    assert len(found) == 8
    for step, (ours, theirs) in enumerate(zip(found, [start, *expected], strict=True)):
        assert (ours - theirs).abs().max() / theirs.abs().max() < 5e-5, f"step {step}"


@pytest.mark.parametrize(
    ("family", "tolerance"),
    [("sprint", 1e-4), ("srdit", 1e-4), ("microdit", 1e-3), ("nitro-dit", 1e-4), ("nitro-mmdit", 1e-4)],
)
def test_a_guided_sampling_ends_where_the_authors_ends(inside: Outcomes, family: str, tolerance: float) -> None:
    """SPRINT's ODE and SR-DiT's velocities with Path-Drop Guidance, MicroDiT's Heun sampler with CFG at scale 5,
    Nitro-T's pipelines with CFG at scale 4: their own code, from the same noise. The host starts an EDM model with
    sqrt(1 + 80^2) instead of 80 times the noise. What SR-DiT's class token does not fill of its channels is 0 in the
    fixture, and nothing in a latent."""
    file, _, kind = family.partition("-")
    with np.load(FIXTURES / f"{file}.npz") as fixture:
        expected = torch.from_numpy(fixture[f"{kind}_trajectory_3"][6:] if kind else fixture["trajectory"])
    ours = torch.tensor(inside[f"guided-{family}"])
    assert relative_error(ours * (expected != 0) if family == "srdit" else ours, expected) < tolerance
