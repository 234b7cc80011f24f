"""Runs inside a host's Python, without a server: python hostile.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

Files, inputs and ways of use that no artist means, and what the host's own nodes make of a model of this pack.
"""

import json
import logging
import math
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_model_merging import ModelMergeSimple, save_checkpoint  # noqa: E402
from probing import message  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402

load, spec_of = part("nodes.host.own.loading").load, part("nodes.host.own.model").spec_of
guided, adapter_of = part("nodes.host.guide.patch").guided, part("nodes.host.adapters").adapter_of
constant, method = part("sparse_model.method.schedule").constant, part("sparse_model.method.sparsity")
FOLDER, PLAN = Path(checkpoint).parent, constant(0.25, 0.75, 2.0)
label = torch.tensor([[[1.0, 0.0, 1.0]]])
noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def sampled(patcher: Any, sigmas: Tensor | None = None, start: Tensor = noise) -> Tensor:
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds([[label, {}]], [[torch.zeros_like(label), {}]])
    guider.set_cfg(2.0)
    levels = torch.linspace(1, 0, 4) if sigmas is None else sigmas
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(start, torch.zeros_like(start), sampler, levels, disable_pbar=True, seed=9)


def saved(path: Path) -> dict[str, Any]:
    """A model that the host's Save nodes have written, alone and beside the VAE: what it is, and its weights."""
    model, found = load(str(path)), {}
    for name, more in (("alone", {}), ("with vae", {"vae": part("nodes.host.own.decoder").vae_of(spec_of(model))})):
        if more and not hasattr(more["vae"], "get_sd"):
            continue
        save_checkpoint(model, filename_prefix=f"saved/{path.stem}-{name}", output_dir=str(FOLDER), **more)
        (written,) = (FOLDER / "saved").glob(f"{path.stem}-{name}_*.safetensors")
        again = load(str(written))
        before, after = (each.model.diffusion_model.state_dict() for each in (model, again))
        weights = all(torch.equal(before[key], after[key]) for key in before) and before.keys() == after.keys()
        found[name] = weights and spec_of(again) == spec_of(model)
    return found


def merged() -> dict[str, bool]:
    """Half of one model and half of another, sampled, saved and loaded again."""
    one, other = load(checkpoint), load(str(FOLDER / "other.safetensors"))
    both = ModelMergeSimple().merge(one, other, 0.5)[0]
    picture = sampled(guided(both, PLAN))
    save_checkpoint(both, filename_prefix="saved/merged", output_dir=str(FOLDER))
    again = load(str(next((FOLDER / "saved").glob("merged_*.safetensors"))))
    return {
        "between": not any(torch.equal(picture, sampled(guided(each, PLAN))) for each in (one, other)),
        "same": bool((picture - sampled(guided(again, PLAN))).abs().max() < 1e-5),
    }


def loras() -> dict[str, str]:
    """Files that are no LoRA."""
    with_lora, model = part("nodes.host.own.lora").with_lora, load(checkpoint)
    files = {
        "empty.safetensors": b"", "page.safetensors": b"<html>404</html>", "cut.pt": b"PK\x03\x04 and no more",
        "header.safetensors": (2**40).to_bytes(8, "little") + b"{}",
    }  # fmt: skip
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    save_file({"diffusion_model.blocks.1.attn.qkv.lora_up.weight": torch.zeros(3)}, FOLDER / "half.safetensors")
    save_file({"a": torch.zeros(3)}, FOLDER / "stranger.safetensors")
    names = (*files, "half.safetensors", "stranger.safetensors")
    return {name: message(lambda name=name: with_lora(model, FOLDER / name, 1.0)) for name in names}


def runs() -> dict[str, Any]:
    """Levels that do not fall, one or none of them, latents that are no numbers, masks that are none."""
    model, nothing = guided(load(checkpoint), PLAN), torch.zeros(0)
    levels = {"none": nothing, "one": torch.ones(1), "rising": torch.tensor([0.1, 0.5, 1.0]), "equal": torch.ones(3)}
    shapes = {name: list(sampled(model, given).shape) for name, given in levels.items()}
    sampled(model, start=torch.full_like(noise, math.nan))
    masks = {
        "none": torch.zeros(0, 8, 8), "no height": torch.zeros(1, 0, 8), "numbers": torch.zeros(3),
        "nan": torch.full((1, 8, 8), math.nan), "batch": torch.ones(5, 3, 200) * torch.linspace(-1, 1, 200).ge(0.9),
        "channels": torch.zeros(2, 1, 8, 8),
    }  # fmt: skip
    words = {
        name: message(lambda mask=mask: sampled(guided(load(checkpoint), PLAN, mask))) for name, mask in masks.items()
    }
    return {"shapes": shapes, "masks": words}


def together() -> dict[str, bool]:
    """Two routes on one loaded model in turn, and after everything was unloaded."""
    model = load(checkpoint)
    routes = [adapter_of(model).routed(method.Sparsity((method.Route(*ends),))) for ends in ((0, 1), (1, 3))]
    one, other = (sampled(guided(routed, PLAN)) for routed in routes)
    in_turn = [sampled(guided(routed, PLAN)) for routed in (*routes, *routes)]
    comfy.model_management.unload_all_models()
    return {
        "differ": not torch.equal(one, other),
        "in turn": all(torch.equal(a, b) for a, b in zip(in_turn, (one, other, one, other), strict=True)),
        "unloaded": torch.equal(sampled(guided(routes[0], PLAN)), one),
    }


def precisions() -> dict[str, bool]:
    """Whether pictures are numbers in other precisions of weights and of computing."""
    small = load(checkpoint, "fp8_e4m3fn")
    halves = load(checkpoint)
    halves.set_model_compute_dtype(torch.float16)
    return {
        name: bool(sampled(guided(each, PLAN)).isfinite().all()) for name, each in (("fp8", small), ("fp16", halves))
    }


def cameras() -> dict[str, str]:
    """Numbers that are none."""
    model = part("nodes.host.own.model")
    spec = spec_of(load(str(FOLDER / "family-xut.safetensors")))
    values = {"x_shift": math.nan, "y_shift": math.inf, "zoom": math.nan}
    return {name: message(lambda name=name: model.camera_of(spec, {name: values[name]})) for name in values}


def plans() -> list[str]:
    """What the editor's scripts are answered when they ask nonsense; JSON all the same."""
    with mock.patch.dict(sys.modules, {"server": types.SimpleNamespace(PromptServer=None)}):
        plan = part("nodes.editor").plan
    nonsense = [None, True, -1, 1e308, "x", "\ud800", [], {}, {"rule": []}, {"rule": "SG"}, "../../etc/passwd", "a\0b"]
    known = {"preset": "from the model", "values": {}, "model_name": "icons-32-patch4.safetensors", "scale": 0}
    asked = [{**known, key: value} for key in known for value in [*nonsense, math.nan, math.inf]]
    values = {"preset": "custom", "rule": "SG", "start_percent": 0.0, "end_percent": 1.0, "selection": "exact"}
    for name in ("gamma_strong", "gamma_weak", "omega"):
        values |= {f"{name}_start": 0.5, f"{name}_end": 0.5, f"{name}_shape": "constant", f"{name}_keyframes": ""}
    asked += [
        {**known, "preset": "custom", "values": {**values, name: value}} for name in values
        for value in [*nonsense, math.nan, math.inf]
    ]  # fmt: skip
    asked.append({**known, "preset": "custom", "values": {**values, "omega_keyframes": "x" * 1_000_000}})
    words = []
    for question in asked:
        answer = plan(question)
        json.dumps(answer, allow_nan=False)
        assert "error" in answer or "curves" in answer
        words.append(answer.get("error", ""))
    return sorted(set(words))


def sheets() -> dict[str, str]:
    """Lists of garbage, and lists without an end."""
    node, model = part("nodes.sheet").SparseGuidanceSheet, load(checkpoint)
    rest = {
        "model": model, "positive": [[label, {}]], "latent_image": {"samples": torch.zeros(1, 3, 16, 16)},
        "vae": part("nodes.host.own.decoder").vae_of(spec_of(model)), "x_axis": "omega", "x_values": "2, 3",
        "y_axis": "gamma weak", "y_values": "0.5", "preset": "SG_FLOPS", "cfg": 3.0, "seed": 5, "steps": 1,
        "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, "max_pictures": 36, "picture_size": 64,
    }  # fmt: skip
    many = ", ".join(map(str, range(2, 100_000)))
    cases = {
        "endless": {"x_values": many, "y_values": many},
        "large": {"x_values": ", ".join(map(str, range(2, 9_000))), "max_pictures": 10_000, "picture_size": 2048},
        "letters": {"x_values": "x" * 100_000},
        "steps": {"x_axis": "steps", "x_values": "1000000000", "y_values": "0.9"},
        "numbers": {"x_values": "nan, inf, 1e400, --1, \u202e, \x1b[2J, \ud800"},
        "routes": {"x_axis": "route end", "x_values": "1e300, 99999999999999999999", "y_values": "0.9"},
    }
    return {name: message(partial(node.execute, **{**rest, **values})) for name, values in cases.items()}


def clip_skip() -> list[str]:
    """What is said where a layer of a text encoder is asked for that has one output."""
    encoder = part("nodes.host.own.text").Encoder(types.SimpleNamespace(model=torch.nn.Module()))
    with mock.patch.object(logging, "warning") as said:
        encoder.reset_clip_options()
        encoder.set_clip_options({"execution_device": None})
        encoder.set_clip_options({"layer": None})
        encoder.set_clip_options({"layer": -2})
    return [call.args[0] % call.args[1:] for call in said.call_args_list]


def bundles() -> dict[str, str]:
    """One file of everything, whose VAE is damaged."""
    tensors = load_file(FOLDER / "family-xut.safetensors")
    vae = {
        "strangers": {"vae.a.weight": torch.zeros(3)}, "half": {"vae.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)},
        "nan": {"vae.decoder.conv_in.weight": torch.full((4, 4, 3, 3), math.nan)},
        "whole numbers": {"vae.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3, dtype=torch.int64)},
    }  # fmt: skip
    found = {}
    for name, more in vae.items():
        path = FOLDER / f"bundle-{name}.safetensors"
        save_file({**tensors, **more}, path)
        found[name] = message(lambda path=path: part("nodes.host.own.bundle").load_vae(path))
    return found


CASES: dict[str, Callable[[], Any]] = {
    f"saved {path.stem}": partial(saved, path)
    for path in (Path(checkpoint), *sorted(FOLDER.glob("family-*.safetensors")))
}
CASES |= {
    "merged": merged, "LoRA": loras, "runs": runs, "together": together, "precisions": precisions, "cameras": cameras,
    "plans": plans, "sheets": sheets, "bundles": bundles, "clip skip": clip_skip,
}  # fmt: skip
report(CASES, wanted)
