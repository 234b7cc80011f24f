"""Runs inside a host's Python, without a server: python inside.py CHECKOUT PACK CHECKPOINT [CASE ...].

For what a server cannot be made to do on demand: split a batch for want of memory, or run a node that calls the model
between our calls. Prints a line of JSON with the names of the cases to come, all if none are named, then one for each:
its name, and its result or its error.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--preview-method", "latent2rgb", "--use-pytorch-cross-attention")

import comfy.samplers  # noqa: E402
import comfy.utils  # noqa: E402
import latent_preview  # noqa: E402
import torch  # noqa: E402
from comfy_api.torch_helpers import set_torch_compile_wrapper  # noqa: E402
from probing import message  # noqa: E402
from torch import Tensor  # noqa: E402
from torch._dynamo.testing import CompileCounter  # noqa: E402

Curve, Schedule = part("sparse_model.method.schedule").Curve, part("sparse_model.method.schedule").Schedule
guided, SparseGuider = part("nodes.host.guide.patch").guided, part("nodes.host.guide.guider").SparseGuider
Progress, keep_count = part("nodes.host.guide.progress").Progress, part("sparse_model.method.tokens").keep_count

model = part("nodes.host.own.loading").load(checkpoint)
label = torch.tensor([[[1.0, 0.0, 1.0]]])
positive, negative = [[label, {}]], [[torch.zeros_like(label), {}]]
noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
batches = []  # how many rows each call of the network had


def schedule(rule: str) -> Schedule:
    return Schedule(Curve.constant(0.25), Curve.linear(0.5, 0.75), Curve.constant(2.0), rule)


def sample(patcher, rule: str, seed: int = 9, steps: int = 4) -> Tensor:
    """Euler steps with the stock guider at cfg 2; the noise is given, so the seed decides the tokens alone."""
    batches.clear()
    model.model.diffusion_model.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    guider = comfy.samplers.CFGGuider(guided(patcher, schedule(rule)))
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    sigmas = torch.linspace(1, 0, steps + 1)
    sampler = comfy.samplers.sampler_object("euler")
    try:
        return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=seed)
    finally:
        model.model.diffusion_model._forward_pre_hooks.clear()


def split(rule: str) -> dict:
    """The same sampling with room for everything and with room for one chunk at a time; their difference as a share of
    what keeping other tokens changes."""
    whole, calls = sample(model, rule), list(batches)
    model.model.memory_required = lambda *_, **__: 1e30
    try:
        apart, counted = sample(model, rule), list(batches)
    finally:
        del model.model.memory_required
    others = (whole - sample(model, rule, seed=10)).abs().max()
    return {"calls": [calls, counted], "difference": float((whole - apart).abs().max() / others)}


def foreign() -> dict:
    """A node that evaluates the condition again after each step gets the strong prediction again."""
    differences = []

    def compare(args: dict) -> Tensor:
        again = comfy.samplers.calc_cond_batch(
            args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"]
        )[0]
        differences.append(float((again - args["cond_denoised"]).abs().max()))
        return args["denoised"]

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(compare)
    other = sample(patched, "SG")
    return {
        "calls": len(differences),
        "difference": max(differences),
        "harmless": bool((other == sample(model, "SG")).all()),
    }


def masked(rule: str) -> dict:
    """What a network of the pack is given in every step: counts of kept tokens, and whether those under a mask are
    among them, which covers one of 4 x 4 tokens in the first picture and seven in the second."""
    mask = torch.zeros(2, 64, 64)
    mask[0, 40, 40] = mask[1, :16] = mask[1, 60, 0:60:20] = 1
    under, seen = [{10}, {0, 1, 2, 3, 12, 13, 14}], []

    def look(_: Any, __: Any, kwargs: dict) -> None:
        seen.extend(kwargs["batch"].evaluation.kept[0])

    model.model.diffusion_model.register_forward_pre_hook(look, with_kwargs=True)
    plan = schedule(rule)
    guider = comfy.samplers.CFGGuider(guided(model, plan, mask))
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    ours = SparseGuider(model, plan, positive, negative, None, 2.0, mask)
    try:
        pictures = [
            each.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"),
                        torch.linspace(1, 0, 5), disable_pbar=True, seed=9)
            for each in (guider, ours)
        ]  # fmt: skip
    finally:
        model.model.diffusion_model._forward_pre_hooks.clear()
        model.model.diffusion_model._forward_pre_hooks_with_kwargs.clear()
    inside = all(tokens <= set(row) for index in seen for tokens, row in zip(under, index.tolist(), strict=True))
    return {
        "inside": inside,
        "counts": sorted({index.shape[1] for index in seen}),
        "equal": bool(torch.equal(*pictures)),
        "changed": not torch.equal(pictures[0], sample(model, rule)),
    }


def compiled() -> dict:
    """What the host's TorchCompileModel node does (it guards nothing in transformer_options), with a compiler that
    counts: two runs of 8 steps."""
    patched = model.clone()
    counter = CompileCounter()
    options = {"guard_filter_fn": lambda guards: ["transformer_options" not in guard.name for guard in guards]}
    set_torch_compile_wrapper(model=patched, backend=lambda graph, inputs, **_: counter(graph, inputs), options=options)
    results = [sample(patched, "SG", steps=8, seed=seed) for seed in (9, 10)]
    expected = [sample(model, "SG", steps=8, seed=seed) for seed in (9, 10)]
    errors = [float((a - b).abs().max()) for a, b in zip(results, expected, strict=True)]
    counts = {keep_count(16, schedule("SG").at(i / 8).gamma_weak) for i in range(8)}
    return {"graphs": counter.frame_count, "counts": len(counts), "difference": max(errors)}


def several_devices() -> float | None:
    """Branches on two devices, as the host's multi-GPU node spreads them: the difference as a share of the picture."""
    if not hasattr(model, "deepclone_multigpu"):
        return None
    second = model.deepclone_multigpu(new_load_device=torch.device("cpu:0"))  # not the same device as "cpu"
    second.is_multigpu_base_clone = True
    calls = []
    second.model.diffusion_model.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    both = model.clone()
    both.set_additional_models("multigpu", [second])
    apart, whole = sample(both, "SG"), sample(model, "SG")
    assert calls == [2] * 4, calls
    return float((apart - whole).abs().max() / whole.abs().max())


def percents() -> float:
    """The largest error of progress against the host's own percent_to_sigma, over sampling types."""
    sampling = comfy.model_sampling
    kinds = [
        sampling.ModelSamplingDiscrete(),
        sampling.ModelSamplingContinuousEDM(),
        sampling.ModelSamplingDiscreteFlow(),
    ]
    shifted = sampling.ModelSamplingDiscreteFlow()
    shifted.set_parameters(shift=3.0)
    values = [0.001, 0.1, 0.25, 0.5, 0.8, 0.999]
    errors = [abs(Progress(kind)(float(kind.percent_to_sigma(p))) - p) for kind in (*kinds, shifted) for p in values]
    ends = [Progress(kind)(s) for kind in kinds for s in (1e9, 0.0)]
    return max(*errors, *(abs(end - expected) for end, expected in zip(ends, [0.0, 1.0] * 3, strict=True)))


def cleanup_after_error() -> dict:
    """A callback that fails in the middle leaves no state in the model that was patched."""
    keys = json.dumps(sorted(model.model_options["transformer_options"])), sorted(model.model_options)
    wrappers = json.dumps(model.wrappers, default=str)
    guider = SparseGuider(model, schedule("SG"), positive)

    def fail(*_):
        raise RuntimeError("in the middle")

    with contextlib.suppress(RuntimeError):
        guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), torch.linspace(1, 0, 5),
                      callback=fail, disable_pbar=True, seed=9)  # fmt: skip
    after = json.dumps(sorted(model.model_options["transformer_options"])), sorted(model.model_options)
    same = wrappers == json.dumps(model.wrappers, default=str)
    return {"clean": keys == after and same and model.model.current_patcher is None}


def family_error(path: Path) -> dict:
    """The largest error of the host's denoised prediction against the one without a host, as a share of the picture:
    with all weights loaded, and with none, each fetched when its layer runs."""
    network, about = part("sparse_model.checkpoints.checkpoint").load(path)
    patcher = part("nodes.host.own.loading").load(str(path))
    return {
        "loaded": prediction_error(network, about, patcher),
        "offloaded": prediction_error(network, about, patcher, lowvram_model_memory=1),
    }


def prediction_error(network: torch.nn.Module, about: object, patcher: object, **memory: int) -> float:
    patcher.patch_model(device_to=torch.device("cpu"), **memory)
    patcher.pre_run()
    size, errors = about.config.input_size, []
    for sigma in (0.05, 0.5, 1.0):
        level = torch.full((2,), sigma)
        x = torch.randn(2, about.config.in_channels, size, size, generator=torch.Generator().manual_seed(1))
        options = {"cond_or_uncond": [0], "uuids": ["a"], "sigmas": level}
        if about.text is None:
            y = torch.eye(about.config.num_classes)[:2]
            inputs = {"c_crossattn": y.unsqueeze(1)}
        else:
            y = part("sparse_model.conditions.text").Text(
                torch.randn(2, about.text.length, about.text.width, generator=torch.Generator().manual_seed(2)),
                torch.arange(about.text.length) < torch.tensor([[2], [4]]),
            )
            inputs = {"c_crossattn": y.embeddings, "attention_mask": y.mask}
        with torch.no_grad():
            theirs = patcher.model.apply_model(x, level, **inputs, transformer_options=options)
            ours = about.prediction.denoise(network.float(), x, level, y)
        errors.append(float((theirs - ours).abs().max() / ours.abs().max()))
    if memory and not any(getattr(module, "comfy_cast_weights", False) for module in patcher.model.modules()):
        raise AssertionError("nothing was offloaded")
    patcher.detach()
    return max(errors)


def trajectory(path: Path) -> None:
    """Writes what 7 Euler steps of CFG at scale 5 went through, on the host's scheduler "normal", beside the file."""
    given = torch.load(path.with_name("prompts.pt"))
    patcher = part("nodes.host.own.loading").load(str(path))
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds(*([[text["embeddings"], {"attention_mask": text["mask"]}]] for text in given["texts"]))
    guider.set_cfg(5.0)
    noise = given["noise"][path.stem]
    sigmas = comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "normal", 7)
    steps = []
    guider.sample(
        noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=0,
        callback=lambda step, denoised, x, total: steps.append((x.clone(), denoised.clone())),
    )  # fmt: skip
    torch.save([x for x, _ in steps] + [steps[-1][1]], path.with_suffix(".trajectory.pt"))


def guided_by_us(path: Path) -> list:
    """What the authors' own sampling ends at, in latents: guided as the file recommends, on the host's sampler."""
    given = torch.load(path.with_suffix(".pt"))
    patcher = part("nodes.host.own.loading").load(str(path))
    about = patcher.model.spec
    positive = [[given["condition"], given.get("options", {})]]
    guider = SparseGuider(patcher, about.schedule, positive, given.get("negative"))
    sigmas = comfy.samplers.calculate_sigmas(
        patcher.get_model_object("model_sampling"), given["scheduler"], given["steps"]
    )
    sampler, noise = comfy.samplers.sampler_object(given["sampler"]), given["noise"]
    found = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)
    return patcher.model.process_latent_in(found).tolist()


def cancelled() -> list:
    """Whether loading stops where the artist has pressed Cancel, and loads when asked again."""
    load, management = part("nodes.host.own.loading").load, comfy.model_management
    management.interrupt_current_processing(True)
    try:
        load(checkpoint)
        stopped = False
    except management.InterruptProcessingException:
        stopped = True
    return [stopped, load(checkpoint).model.spec.title == model.model.spec.title]


def preview() -> list:
    """Size and first pixel of a white picture as the host previews it."""
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    picture = previewer.decode_latent_to_preview(torch.full((1, 3, 16, 16), 1.0))
    return [list(picture.size), list(picture.convert("RGB").getpixel((0, 0)))]


def mask_rates() -> dict[str, str]:
    """What is said of a mask over 11 of 16 tokens: of a strong branch that keeps 12 and weak ones that keep these."""
    mask_over, mask = part("nodes.host.guide.checks").mask_over, torch.zeros(1, 4, 4)
    mask.view(-1)[:11] = 1
    plans = {
        "12 down to 10": "linear 0.3 0.4",
        "12 but for 10 on the last stair": "step 0.3 0.4 0.99",
        "12 but for 4 at one moment": "0:0.3, 0.501:0.3, 0.502:0.75, 0.503:0.3",
        "12": "linear 0.3 0.31",
    }
    found = {}
    for words, weak in plans.items():
        plan = Schedule(Curve.constant(0.25), Curve.parse(weak), Curve.constant(2.0))
        found[words] = message(partial(mask_over, model, plan, mask, (1, 3, 16, 16)))
    return found


def sheet() -> dict:
    """Of a sheet at steps that are not even over progress: costs as foreseen and as they came, what was said of it, and
    its bar; and costs where the denoise leaves nothing to do."""
    cells, said, steps = part("nodes.host.guide.sheet"), [], []
    plan = schedule("SG")
    settings = [cells.Setting(plan, 7), cells.Setting(replace(plan, end=0.5), 7), cells.cfg_alone(2.0, 5)]
    sampling = {"seed": 3, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0}
    large = {"samples": torch.zeros(1, 3, 64, 64)}
    handler, log = logging.Handler(), logging.getLogger()
    handler.emit = lambda record: said.append(record.getMessage())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: steps.append((value, total)))
    try:
        made = cells.Sheet(model, positive, negative, None, large, sampling)
        foreseen = [made.cost(setting) for setting in settings]
        made.make(settings)
        part("nodes.host.guide.timing").step_seconds(model, plan, positive, (1, 3, 64, 64))
        idle = cells.Sheet(model, positive, negative, None, large, {**sampling, "denoise": 0.0})
        idle.make(settings[:1])
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        comfy.utils.set_progress_bar_global_hook(None)
    came = [made.made[setting].cost for setting in settings]
    return {"foreseen": foreseen, "came": came, "idle": idle.made[settings[0]].cost, "said": said, "steps": steps[:19]}


def evaluations() -> dict[str, list[float]]:
    """Of each of the host's samplers: evaluations of 5 steps as a sheet foresees them and as they came, and of 40 steps
    as it foresees them."""
    cells, sample_latent = part("nodes.host.guide.sheet"), part("nodes.host.guide.sampling").sample_latent
    latent, found = {"samples": torch.zeros(1, 3, 16, 16)}, {}
    state = torch.get_rng_state()
    for name in comfy.samplers.KSampler.SAMPLERS:
        sampling = {"seed": 3, "sampler_name": name, "scheduler": "normal", "denoise": 1.0}
        few, many = cells.Setting(schedule("SG"), 5), cells.Setting(schedule("SG"), 40)
        made = cells.Sheet(model, positive, negative, None, latent, sampling)
        foreseen = [made.evaluations(few), made.evaluations(many)]
        assert torch.equal(state, torch.get_rng_state()), name
        guider = made.guider(few)
        sample_latent(guider, latent, steps=few.steps, callback=lambda *_: None, **sampling)
        found[name] = [foreseen[0], sum(guider.ran.values()), foreseen[1]]
        torch.set_rng_state(state)
    return found


def merged() -> dict[str, list[str]]:
    """What is said of models merged by the host's nodes while they are sampled."""
    from comfy_extras.nodes_model_merging import ModelAdd, ModelMergeBlocks, ModelMergeSimple

    load = part("nodes.host.own.loading").load
    same = load(checkpoint)
    others = {path.stem: load(str(path)) for path in sorted(Path(checkpoint).parent.glob("merged-*.safetensors"))}
    models = {
        "itself": ModelMergeSimple().merge(model, same, 0.5)[0],
        "blocks": ModelMergeBlocks().merge(model, same, **{"blocks.": 0.3, "": 1.0})[0],
        **{name: ModelMergeSimple().merge(model, other, 0.5)[0] for name, other in others.items()},
        "at nothing": ModelMergeSimple().merge(model, others["merged-wider"], 1.0)[0],
        "added": ModelAdd().merge(model, others["merged-deeper"])[0],
        "onto a deeper one": ModelMergeSimple().merge(others["merged-deeper"], model, 0.5)[0],
        "a merge of itself": ModelMergeSimple().merge(model, ModelMergeSimple().merge(same, model, 0.2)[0], 0.5)[0],
    }
    about, found = part("nodes.host.own.merged").about_merge, {}
    for name, patcher in models.items():
        said = []
        handler = logging.Handler()
        handler.emit = lambda record, said=said: said.append(record.getMessage())
        logging.getLogger().addHandler(handler)
        try:
            sample(patcher, "SG", steps=1)
        finally:
            logging.getLogger().removeHandler(handler)
        found[name] = [text for text in said if "merged" in text]
        assert bool(about(patcher)) == bool(found[name])
    return found


def cases() -> dict[str, Callable[[], Any]]:
    """Name -> what returns its result. The checkpoints beside CHECKPOINT are cases by the names of their files."""
    folder = Path(checkpoint).parent
    rules = ("SG", "CFG + SG", "ICG", "SG beside CFG")
    found: dict[str, Callable[[], Any]] = {rule: partial(split, rule) for rule in rules}
    found |= {"foreign": foreign, "compiled": compiled, "devices": several_devices, "percents": percents}
    found |= {"error": cleanup_after_error, "preview": preview, "cancelled": cancelled}
    found |= {"mask rates": mask_rates, "sheet": sheet, "evaluations": evaluations}
    found |= {"merged": merged}
    found |= {f"mask {rule}": partial(masked, rule) for rule in ("SG", "SG beside CFG")}
    for path in sorted(folder.glob("family-*.safetensors")):
        found[path.stem] = partial(family_error, path)
        if path.stem.startswith("family-prx"):
            found[f"trajectory {path.stem}"] = partial(trajectory, path)
    return found | {path.stem: partial(guided_by_us, path) for path in sorted(folder.glob("guided-*.safetensors"))}


report(cases(), wanted)
