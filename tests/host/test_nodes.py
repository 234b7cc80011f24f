"""The nodes on a real host, on a tiny random network: what must be equal bit for bit, and what must change."""

import itertools

import pytest
import torch
from graphs import Scene, equal, run, sampled_latents, write_models
from host import Host

PATCHES = {
    "RescaleCFG": {"multiplier": 0.7},
    "RenormCFG": {"cfg_trunc": 100.0, "renorm_cfg": 0.9},
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.1},
    "CFGZeroStar": {},
    "ModelSamplingSD3": {"shift": 3.0},
    "ModelSamplingAuraFlow": {"shift": 1.7},
    "SkipLayerGuidanceDiTSimple": {
        "double_layers": "1", "single_layers": "1", "start_percent": 0.0, "end_percent": 1.0,
    },
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def models(host: Host) -> None:
    write_models(host)


def forget(host: Host) -> None:
    """Make the host drop its models and cached results. It does so at the latest behind the run that comes next."""
    host.post("/free", {"unload_models": True, "free_memory": True}).raise_for_status()
    image = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    assert host.run({"1": image, "2": shown}).error is None


@pytest.mark.slow
def test_nothing_dropped_is_cfg_with_every_sampler(host: Host) -> None:
    """CFG + SG with gamma 0 is stock CFG bit for bit, and SG runs, with every sampler and scheduler of the host."""
    schema = host.object_info("KSampler")["input"]["required"]
    samplers, schedulers = schema["sampler_name"][0], schema["scheduler"][0]
    if samplers == "COMBO":
        samplers, schedulers = schema["sampler_name"][1]["options"], schema["scheduler"][1]["options"]
    scene = Scene()
    dense, sparse = scene.guided(scene.graph.dense()), scene.guided(scene.graph.sparsity())
    choices = [{"sampler_name": name} for name in samplers] + [{"scheduler": name} for name in schedulers]
    triples = {str(choice): [scene.stock(model, **choice) for model in (None, dense, sparse)] for choice in choices}
    found = sampled_latents(host, scene.graph)
    assert len(triples) > 40
    assert not [name for name, (stock, ours, _) in triples.items() if not equal(found, stock, ours)]
    assert not [name for name, (stock, _, sg) in triples.items() if equal(found, stock, sg)]


@pytest.mark.parametrize("patch", PATCHES)
def test_stock_patches_keep_working(host: Host, patch: str) -> None:
    """In either order with ours, on a patch node and on a guider; at gamma 0 bit-identical to the patch on its own."""
    scene = Scene()
    graph = scene.graph
    schedule = graph.dense(omega_start=3.0)
    patched = graph.add(patch, model=scene.model, **PATCHES[patch])
    alone = scene.stock(patched)
    ours_after = scene.stock(scene.guided(schedule, patched))
    guider = graph.add("SparseGuider", model=patched, positive=scene.positive, negative=scene.null, sparsity=schedule)
    guided = graph.save(graph.advanced(guider, scene.latent, patched))
    sparse = scene.stock(scene.guided(graph.sparsity(), patched))
    nodes = [alone, ours_after, guided]
    if patch != "SkipLayerGuidanceDiTSimple":  # sets the one hook that we use, so it must come first
        nodes.append(scene.stock(graph.add(patch, model=scene.guided(schedule), **PATCHES[patch])))
    found = sampled_latents(host, graph)
    assert equal(found, *nodes)
    assert not equal(found, alone, sparse)


def test_scale_one_runs_the_strong_branch_alone(host: Host) -> None:
    """gamma_strong 0 and cfg 1 is the stock sampler without guidance, as is a schedule outside its interval."""
    scene = Scene()
    graph = scene.graph
    schedule = graph.sparsity(gamma_strong_start=0.0)
    stock = scene.stock(cfg=1.0)
    patched = scene.stock(scene.guided(schedule), cfg=1.0)
    one_box = scene.sparse(sparsity=schedule, omega=1.0)
    last = graph.dense(start_percent=1.0, omega_start=3.0)
    outside = scene.stock(scene.guided(last), cfg=3.0)
    found = sampled_latents(host, graph)
    assert equal(found, stock, patched, one_box)
    assert torch.allclose(found[stock], found[outside], atol=1e-5)


def test_three_ways_to_guide_agree(host: Host) -> None:
    """Patch with cfg = omega, guider, and all-in-one; with a varying omega up to rounding."""
    scene = Scene(batch=3)
    graph = scene.graph
    for shape, exact, selection in (("constant", True, "structured"), ("cosine", False, "bernoulli")):
        schedule = graph.sparsity(omega_start=3.0, omega_end=1.5, omega_shape=shape, selection=selection)
        patch = scene.stock(scene.guided(schedule))
        guider = graph.add("SparseGuider", model=scene.model, positive=scene.positive, sparsity=schedule)
        custom = graph.save(graph.advanced(guider, scene.latent, scene.model))
        one_box = scene.sparse(sparsity=schedule)
        found = sampled_latents(host, graph)
        assert equal(found, custom, one_box)
        assert equal(found, patch, custom) if exact else torch.allclose(found[patch], found[custom], atol=1e-4)


def test_every_selection_keeps_other_tokens(host: Host) -> None:
    """On a latent that is not square, too."""
    scene = Scene()
    wide = scene.graph.add("EmptySparseLatent", model=scene.model, batch_size=1, width=24, height=16)
    plans = [scene.graph.sparsity(selection=way) for way in ("exact", "bernoulli", "structured")]
    nodes = [[scene.sparse(sparsity=plan, latent=latent) for plan in plans] for latent in (scene.latent, wide)]
    found = sampled_latents(host, scene.graph)
    assert not any(equal(found, a, b) for row in nodes for a, b in itertools.combinations(row, 2))


def test_same_seed_same_picture(host: Host) -> None:
    """Also after the models were unloaded; another seed is another picture."""
    scene = Scene()
    first, other = scene.sparse(seed=1), scene.sparse(seed=2)
    found = sampled_latents(host, scene.graph)
    assert not equal(found, first, other)
    forget(host)
    again = Scene()
    third = again.sparse(seed=1)
    assert torch.equal(found[first], sampled_latents(host, again.graph)[third])


def test_model_is_left_as_it_was(host: Host) -> None:
    """One MODEL through every node of ours samples the same before and after."""
    scene = Scene()
    before = scene.stock(seed=11)
    found = sampled_latents(host, scene.graph)
    schedule = scene.graph.sparsity()
    scene.stock(scene.guided(schedule), seed=11)
    scene.sparse(sparsity=schedule, seed=11)
    early = scene.graph.model("tiny-early.safetensors")
    auxiliary = scene.graph.sparsity(rule="AG + SG")
    scene.sparse(sparsity=auxiliary, weak_model=early, seed=11)
    run(host, scene.graph)
    after = scene.stock(seed=11, denoise=0.99999)  # the same sampling, not the same cache entry
    assert torch.equal(found[before], sampled_latents(host, scene.graph)[after])


def test_what_the_nodes_show(host: Host) -> None:
    forget(host)  # a node that does not run again shows nothing again
    scene = Scene(batch=2)
    scheduler = scene.graph.sparsity()
    sampler = scene.graph.sparse_sampled(scene.model, scene.positive, scene.latent, sparsity=scheduler, steps=9)
    saved = scene.graph.save(sampler)
    result = run(host, scene.graph)
    assert "gamma weak 0.75" in result.outputs[scheduler[0]]["plan"][0]["words"]
    assert "layers 1 to 2 routed" in result.outputs[scene.model[0]]["text"][0]
    assert "rocket" in result.outputs[scene.model[0]]["text"][0]
    assert result.outputs[scene.positive[0]]["text"] == ["rocket (1), twemoji (1)"]
    assert result.progress[-1] == (9, 9)
    assert saved in result.outputs


def test_a_match_shows_what_it_found(host: Host) -> None:
    forget(host)
    scene = Scene(batch=2)
    plan = scene.graph.sparsity(gamma_strong_start=0.0)
    given = {"model": scene.model, "positive": scene.positive, "latent_image": scene.latent, "sparsity": plan}
    match = scene.graph.add("SparseGuidanceMatch", **given, cfg=2.0, preset="from the model", seed=5, steps=2)
    scene.graph.add("PreviewAny", source=[match[0], 1])
    assert "moves the picture as far as CFG at 2." in run(host, scene.graph).outputs[match[0]]["text"][0]
