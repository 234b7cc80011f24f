"""Runs inside a host's Python, without a server: python hosted_models.py CHECKOUT PACK [case ...], prints JSON;
... neighbours: beside other nodes' patches; ... motif PACK [PACK]: Motif-Video of its authors' pack, in GGUF too with
the pack that loads it.

Token routes through the host's own transformers, against a slow reference written differently: every token present,
routed tokens put back after each block, and hidden from attention.
"""

import contextlib
import importlib.util
import json
import sys
import traceback
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

checkout, pack, *wanted = sys.argv[1:]
sys.argv = ["main.py", "--cpu", "--use-pytorch-cross-attention"]
sys.path[:0] = [checkout, str(Path(__file__).parent)]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
import torch._dynamo.testing  # noqa: E402
from attention_count import counting  # noqa: E402
from cases import Case, cases, tokens_of  # noqa: E402
from comfy_api.torch_helpers import set_torch_compile_wrapper  # noqa: E402
from hidden_tokens import NoRows, Reference, RowsInside, WithSound  # noqa: E402
from probing import SEED, SIGMA, error, message, predictions, same  # noqa: E402
from torch import Tensor  # noqa: E402
from zoo import ZOO, Animal, blocks_of, build, conditions, latent  # noqa: E402

spec = importlib.util.spec_from_file_location("/a/sparse-guidance", Path(pack) / "__init__.py",
                                              submodule_search_locations=[pack])  # fmt: skip
module = importlib.util.module_from_spec(spec)
sys.modules["/a/sparse-guidance"] = module
spec.loader.exec_module(module)


def part(name: str) -> ModuleType:
    return importlib.import_module(f"/a/sparse-guidance.{name}")


guided, adapter_of = part("nodes.host.guide.patch").guided, part("nodes.host.adapters").adapter_of
description = part("nodes.route").description
first_evaluation = part("nodes.host.guide.run").first_evaluation
step_costs = part("nodes.host.cost").step_costs
unguided_seconds = part("nodes.host.guide.timing").unguided_seconds


def routed(patcher, sparsity):
    return adapter_of(patcher).routed(sparsity)


Staying = part("sparse_model.method.tokens").Staying
Route, Sparsity = part("sparse_model.method.sparsity").Route, part("sparse_model.method.sparsity").Sparsity
subsets, constant = part("sparse_model.method.tokens").subsets, part("sparse_model.method.schedule").constant

REFERENCES: dict[str, type] = {"Cosmos 1": RowsInside, "LTX-2": WithSound, "MiniMax-H3": NoRows}
"""Model -> what to compare it with, where that is not `Reference`."""
BUILDERS: dict[str, Callable] = {}
"""Model -> what builds it, where that is not `build`."""


class Motion(torch.nn.Module):
    """In place of what Wan Animate makes of a face, [N, 3, H, W] -> [N, 512]."""

    def get_motion(self, face: Tensor) -> Tensor:
        return face.flatten(1).cumsum(dim=1).repeat(1, 3)[:, :512].sin()


def depth(patcher: Any, animal: Animal) -> int:
    return sum(len(getattr(patcher.model.diffusion_model, path)) for path in animal.blocks)


def subset(patcher: Any, branch: int, batch: int, tokens: int, gamma: float, stays: Tensor | None = None) -> Tensor:
    """The tokens that a branch keeps in the first evaluation, [batch, K]; `stays` [tokens] always."""
    run = first_evaluation(patcher.get_model_object("model_sampling"), SIGMA)
    stay = None if stays is None else Staying(stays.unsqueeze(0))
    return replace(subsets(SEED, run, "exact"), stay=stay).draw(branch, batch, tokens, gamma)


def bottom_row(animal: Animal, case: Case) -> tuple[Tensor, Tensor]:
    """A mask of eight times the latent's size over its lowest row of patches, and the droppable tokens under it."""
    high, wide = animal.latent[-2:]
    mask = torch.zeros(1, 8 * high, 8 * wide)
    mask[:, -8 * animal.patch[-2] :] = 1
    sides = animal.latent[-len(animal.patch) :]
    under = torch.zeros([-(-side // patch) for side, patch in zip(sides, animal.patch, strict=True)], dtype=torch.bool)
    under[..., -1, :] = True
    size = case.size or under.numel()
    return mask, under.flatten()[-size:] if case.before else under.flatten()[:size]


def check(case: Case) -> dict[str, Any] | None:
    """What the tests ask of one case; None where this host has no such model."""
    animal = ZOO[case.animal]
    animal = replace(
        animal,
        sizes={**animal.sizes, **case.sizes},
        config=case.config or animal.config,
        latent=case.latent or animal.latent,
        patch=case.patch or animal.patch,
        sound=case.sound or animal.sound,
        context=(case.prompt or animal.context[0], animal.context[1]),
        text=case.prompt or animal.text,
    )
    patcher = BUILDERS.get(case.animal, build)(animal)
    if patcher is None:
        return None
    if hasattr(patcher.model.diffusion_model, "motion_encoder"):  # a deep network over faces of 512 x 512
        patcher.model.diffusion_model.motion_encoder = Motion()
    keys = set(patcher.model.state_dict())
    if case.lora:
        generator = torch.Generator().manual_seed(4)
        path = next(iter(animal.blocks))
        second = [*getattr(patcher.model.diffusion_model, path).named_children()][1][0]
        weights = [key for key in sorted(keys) if f".{path}.{second}." in key and "weight" in key]
        patches = {
            key: ("diff", (0.1 * torch.randn(patcher.model.state_dict()[key].shape, generator=generator),))
            for key in weights
        }
        assert len(patcher.add_patches(patches)) == len(patches) > 2
    x, positive, negative = latent(animal), conditions(animal, 1, **case.extra), conditions(animal, 3, **case.extra)
    route = Route(*case.route)
    layers, sparse = route.layers(depth(patcher, animal)), routed(patcher, Sparsity((route,)))
    hiding = REFERENCES.get(case.animal, Reference)
    plain = predictions(patcher, positive, negative, x, 2.0)
    dense = predictions(guided(sparse, constant(0.0, 0.0, 2.0, "CFG + SG")), positive, negative, x, 2.0)
    with launched(patcher, animal, layers) as runs:
        sg = predictions(guided(sparse, constant(0.25, 0.75, 2.0)), positive, None, x, 2.0)
    with launched(patcher, animal, layers) as runs_of_both:
        both = predictions(guided(sparse, constant(0.0, 0.5, 2.0, "CFG + SG")), positive, negative, x, 2.0)
    dropped = predictions(guided(sparse, constant(0.25, 1.0, 2.0)), positive, None, x, 2.0)
    same_keys = set(sparse.model.state_dict()) == keys
    masked = []
    if not case.lora:
        mask, stays = bottom_row(animal, case)
        sparse_there = guided(sparse, constant(0.25, 0.75, 2.0), mask)
        masked = [(0.25, 0, positive, stays), (0.75, 1, positive, stays)]
    single = predictions(guided(sparse, constant(0.25, 0.75, 2.0)), positive, None, x[:1], 2.0)
    after = predictions(patcher, positive, negative, x, 2.0)
    seconds = unguided_seconds(patcher, conditions(animal, 1), tuple(x.shape)) if x.is_nested else 1.0
    expected = []
    plans = [(0.25, 0, positive), (0.75, 1, positive), (0.5, 1, negative), (1.0, 1, positive)]
    for gamma, branch, condition, *stay in plans + masked:
        kept = subset(patcher, branch, animal.latent[0], case.size or tokens_of(animal), gamma, *stay)
        with hiding(patcher.model.diffusion_model, case, animal, layers, kept).hiding():
            expected.append(predictions(patcher, condition, None, x, 1.0)[0])
    return {
        "gamma 0": all(torch.equal(a, b) for a, b in zip(plain, dense, strict=True)),
        "removed": all(torch.equal(a, b) for a, b in zip(plain, after, strict=True)),
        "keys": same_keys,
        "finite": all(bool(torch.isfinite(value).all()) for value in plain + sg) and seconds > 0,
        "errors": {
            "strong": error(sg[0], expected[0]),
            "weak": error(sg[1], expected[1]),
            "dense beside sparse": error(both[0], plain[0]),
            "another condition": error(both[1], expected[2]),
            "path dropped": error(dropped[1], expected[3]),
            "batch of one": error(single[1][0], expected[1][0]),
            **(
                {
                    f"under a mask, {branch}": error(found, wanted)
                    for branch, found, wanted in zip(
                        ("strong", "weak"), predictions(sparse_there, positive, None, x, 2.0), expected[4:], strict=True
                    )
                }
                if masked
                else {}
            ),
        },
        "effect": error(expected[1], plain[0]),
        "half precision": halved(animal, route, positive, negative, x, plain, sg)
        if not case.extra and not case.lora and case.animal not in BUILDERS
        else True,
        "runs": max(runs.values()),
        "runs of two prompts": max(runs_of_both.values()),
        "cost": costs(sparse, animal, positive, negative, x) if not case.extra else {},
    }


@contextlib.contextmanager
def launched(patcher: Any, animal: Animal, layers: range) -> Iterator[Counter]:
    """How often each linear layer of the routed blocks runs."""
    blocks = [block for path in animal.blocks for block in blocks_of(patcher.model.diffusion_model, path)]
    linear = [m for i in layers for m in blocks[i].modules() if isinstance(m, torch.nn.Linear)]
    runs = Counter()
    hooks = [layer.register_forward_hook(lambda layer, *_: runs.update([layer])) for layer in linear]
    try:
        yield runs
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def counted(patcher: Any, animal: Animal) -> Iterator[list[int]]:
    """Multiply-adds of everything that runs inside the blocks: linear layers, and both products of attention."""
    total, inside, hooks, replaced = [0], [0], [], []

    def linear(layer: torch.nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        total[0] += args[0].numel() * output.shape[-1]

    def add(count: int) -> None:
        total[0] += inside[0] * count

    for module in [m for name, m in sys.modules.items() if name.startswith(("comfy.ldm.", "motif_authors."))]:
        for name in ("optimized_attention", "optimized_attention_masked"):
            if hasattr(module, name):
                replaced.append((module, name, getattr(module, name)))
                setattr(module, name, counting(getattr(module, name), add))
    for path in animal.blocks:
        for block in blocks_of(patcher.model.diffusion_model, path):
            layers = [layer for layer in block.modules() if isinstance(layer, torch.nn.Linear)]
            hooks += [layer.register_forward_hook(linear) for layer in layers]
            hooks.append(block.register_forward_pre_hook(lambda *_: inside.__setitem__(0, 1)))
            hooks.append(block.register_forward_hook(lambda *_: inside.__setitem__(0, 0)))
    try:
        yield total
    finally:
        for hook in hooks:
            hook.remove()
        for owner, name, value in replaced:
            setattr(owner, name, value)


def costs(sparse: Any, animal: Animal, positive: list, negative: list, x: Tensor) -> dict[str, float]:
    """What counting gives for a guided step of one prompt or two, as a share of what really runs."""
    plans = {
        "SG": constant(0.25, 0.75, 2.0),
        "nothing left out": constant(0.0, 0.0, 2.0, "CFG + SG"),
        "path dropped": constant(0.25, 1.0, 2.0),
        "CFG + SG": constant(0.25, 0.75, 2.0, "CFG + SG"),
        "SG beside CFG": constant(0.25, 0.75, 2.0, "SG beside CFG"),
    }
    text, found = animal.others or animal.text or animal.context[0], {}
    for name, plan in plans.items():
        guided_model = guided(sparse, plan)
        with counted(guided_model, animal) as total:
            predictions(guided_model, positive, negative, x, 2.0)
        (step,) = step_costs(sparse, plan, [0.0], tuple(x.shape), text, cfg=2.0)
        found[name] = step.cost.total * x.shape[0] / total[0]
    return found


def halved(
    animal: Animal, route: Any, positive: list, negative: list, x: Tensor, plain: list[Tensor], sg: list[Tensor]
) -> bool:
    """In bf16 and fp16: gamma 0 is unpatched bit for bit, and a routed branch loses no more than an unrouted one."""
    good = []
    for dtype in (torch.bfloat16, torch.float16):
        patcher = build(animal, dtype)
        sparse = routed(patcher, Sparsity((route,)))
        stock = predictions(patcher, positive, negative, x, 2.0)
        dense = predictions(guided(sparse, constant(0.0, 0.0, 2.0, "CFG + SG")), positive, negative, x, 2.0)
        half = predictions(guided(sparse, constant(0.25, 0.75, 2.0)), positive, None, x, 2.0)
        good.append(all(torch.equal(a, b) for a, b in zip(stock, dense, strict=True)))
        good.append(error(half[1], sg[1]) < 2 * error(stock[0], plain[0]) + 0.01)
    return all(good)


def auxiliary(route: Any) -> str:
    """AG + SG with a second checkpoint: its own route is needed, and is followed."""
    animal = ZOO["FLUX.1"]
    main, weak, x, positive = build(animal), build(animal, seed=1), latent(animal), conditions(animal)

    def sampled(weak_model: Any, gamma: float) -> Tensor:
        plan = constant(0.25, gamma, 2.0, "AG + SG")
        guider = part("nodes.host.guide.guider").SparseGuider(routed(main, route), plan, positive, None, weak_model)
        sampler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor([SIGMA, 0.0])
        return guider.sample(x, torch.zeros_like(x), sampler, sigmas, disable_pbar=True, seed=SEED)

    if torch.equal(sampled(routed(weak, route), 0.0), sampled(routed(weak, route), 0.75)):
        return "the weak model's route is not followed"
    return message(lambda: sampled(weak, 0.75))


def one_row() -> list[float] | None:
    """How far each of two videos under SG is from itself with its tokens hidden, in a network that takes one row."""
    case = Case("MiniMax-H3")
    animal = ZOO[case.animal]
    patcher = build(animal)
    if patcher is None:
        return None
    x = latent(replace(animal, latent=(2, *animal.latent[1:])))
    positive, route = conditions(animal), Route(*case.route)
    sparse = guided(routed(patcher, Sparsity((route,))), constant(0.25, 0.75, 2.0))
    together = predictions(sparse, positive, None, x, 2.0)[1]
    kept, found = subset(patcher, 1, 2, tokens_of(animal), 0.75), []
    for i in range(2):
        own = kept[i : i + 1]
        hidden = NoRows(patcher.model.diffusion_model, case, animal, route.layers(depth(patcher, animal)), own)
        with hidden.hiding():
            alone = predictions(patcher, positive, None, x[i : i + 1], 1.0)[0]
        found.append(error(together[i], alone[0]))
    return found


def neighbours() -> dict[str, Any]:
    """Routes beside what other nodes do to the same model."""
    animal = ZOO["FLUX.1"]
    patcher, x, positive = build(animal), latent(animal), conditions(animal)
    middle, early = Sparsity((Route(1, -2, 0.5),)), Sparsity((Route(0, 0),))
    two = Route(0, 0, factor=0.5), Route(1, 1)
    plan = constant(0.25, 0.75, 2.0)

    def sampled(model: Any) -> list[Tensor]:
        return predictions(guided(model, plan), positive, None, x, 2.0)

    def alone_at(route: Any, gamma: float) -> list[Tensor]:
        return predictions(guided(routed(patcher, route), constant(0.0, gamma, 2.0)), positive, None, x, 2.0)

    alone = sampled(routed(patcher, middle))
    seen: list[int] = []

    def replacement(args: dict, extra: dict) -> dict:
        seen.append(args["img"].shape[1])
        return extra["original_block"](args)

    replaced = routed(patcher, middle)
    for kind, count in (("double_block", 2), ("single_block", 3)):
        for number in range(count):
            replaced.set_model_patch_replace(replacement, "dit", kind, number)
    beside = sampled(replaced)

    def foreign(*args: Any, **kwargs: Any) -> Any:
        seen.append(-1)
        return original(*args, **kwargs)

    name = "diffusion_model.double_blocks.1.forward"
    original = patcher.get_model_object(name)
    before = patcher.clone()
    before.add_object_patch(name, foreign)
    wrapped, before_calls = sampled(routed(before, middle)), seen.count(-1)
    behind = routed(patcher, middle)
    behind.add_object_patch(name, foreign)
    behind_ours, all_calls = sampled(behind), seen.count(-1)
    split = routed(patcher, middle)
    calls: list[int] = []

    def count(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(len(x))
        return executor(x, *args, **kwargs)

    split.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "count", count)
    sampled(split)
    split.model.memory_required = lambda *_, **__: 1e30
    apart = sampled(split)
    del split.model.memory_required
    skipped = routed(patcher, middle)
    for number in (0, 1, 2):  # what skip-layer guidance does to a block
        skipped.set_model_patch_replace(lambda args, extra: args, "dit", "single_block", number)
    left, right = conditions(animal, 1, area=(10, 4, 0, 0)), conditions(animal, 3, area=(10, 4, 0, 4))
    regions = predictions(guided(routed(patcher, middle), plan), left + right, None, x, 2.0)
    half = predictions(guided(routed(patcher, middle), plan), left, None, x[..., :4], 2.0)
    compiled, graphs = routed(patcher, middle), torch._dynamo.testing.CompileCounter()
    set_torch_compile_wrapper(compiled, backend=graphs)
    counts = [(error(sampled(compiled)[1], alone[1]), graphs.frame_count) for _ in range(3)]
    elsewhere = alone
    if hasattr(patcher, "get_clone_model_override"):  # a host that knows second devices
        second, sparse = build(animal), routed(patcher, middle)
        sampled(sparse)
        elsewhere = sampled(sparse.clone(model_override=second.get_clone_model_override()))
    unet = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel(
        image_size=32, in_channels=4, model_channels=32, out_channels=4, num_res_blocks=[1], channel_mult=[1],
        transformer_depth=[0], transformer_depth_output=[0, 0], transformer_depth_middle=-1, num_heads=1,
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    convolutional = types.SimpleNamespace(model=types.SimpleNamespace(diffusion_model=unet), object_patches_backup={})
    return {
        "two videos, a row each": one_row(),
        "replaced": same(alone, beside) and set(seen[:2]) == {20},
        "patched before": same(alone, wrapped) and before_calls > 0,
        "patched behind": same(alone, behind_ours) and all_calls > before_calls,
        "factor": same(alone_at(middle, 0.75), alone_at(Sparsity((replace(middle.routes[0], factor=1.5),)), 0.5)),
        "order": same(*(alone_at(Sparsity(two[::step]), 0.5) for step in (1, -1))),
        "factor over 1": message(lambda: sampled(routed(patcher, Sparsity((Route(1, -2, factor=1.5),))))),
        "mask of everything": message(
            lambda: predictions(guided(routed(patcher, middle), plan, torch.ones(1, 9, 9)), positive, None, x, 2.0)
        ),
        "stacked": same(alone, sampled(routed(routed(patcher, early), middle))),
        "stacked text": description(adapter_of(routed(patcher, early)), middle, tuple(x.shape)),
        "regions": max(error(found[..., :4], own) for found, own in zip(regions, half, strict=True)),
        "compiled": counts,
        "calls": calls,
        "split": error(apart[1], alone[1]),
        "skipped": bool(torch.isfinite(sampled(skipped)[0]).all()),
        "other device": same(alone, elsewhere),
        "unet": message(lambda: adapter_of(convolutional).default_route),
        "past the end": message(lambda: routed(patcher, Sparsity((Route(2, 9),)))),
        "no route": message(lambda: guided(patcher, plan)),
        "weak model": auxiliary(middle),
        "class labels": message(lambda: guided(routed(patcher, middle), constant(0.25, 0.75, 2.0, "ICG"))),
    }


if wanted[:1] == ["motif"]:
    import motif

    comfy.supported_models.MotifVideo19B = motif.load(Path(wanted[1])).MotifVideo19B
    for further in wanted[2:]:
        motif.load(Path(further), "motif_gguf")
    ZOO |= {"Motif-Video": motif.MOTIF, "Motif-Video, GGUF": motif.WIDE}
    REFERENCES |= dict.fromkeys(("Motif-Video", "Motif-Video, GGUF"), motif.TreadReference)
    BUILDERS["Motif-Video, GGUF"] = motif.build_gguf
    print(json.dumps({name: check(case) for name, case in motif.motif_cases(len(wanted) > 2).items()}))
    sys.exit()
if wanted == ["neighbours"]:
    print(json.dumps(neighbours()))
    sys.exit()
results: dict[str, Any] = {}
for name, case in cases().items():
    if not wanted or name in wanted:
        try:
            results[name] = check(case)
        except Exception:
            results[name] = {"error": traceback.format_exc()[-3000:]}
print(json.dumps(results))
