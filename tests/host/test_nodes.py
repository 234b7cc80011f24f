"""The nodes on a real host, on a tiny random network: what must be equal bit for bit, and what must change."""

import shutil

import pytest
import torch
from graphs import SPEC, Graph, run, sampled_latents, write_checkpoint
from host import Host
from safetensors.torch import save_file

PATCHES = {
    "RescaleCFG": {"multiplier": 0.7},
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.1},
    "CFGZeroStar": {},
    "ModelSamplingSD3": {"shift": 3.0},
    "ModelSamplingAuraFlow": {"shift": 1.7},
    "SkipLayerGuidanceDiTSimple": {
        "double_layers": "1", "single_layers": "1", "start_percent": 0.0, "end_percent": 1.0,
    },
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def checkpoints(host: Host) -> None:
    """The tiny network, a copy of it, an earlier checkpoint, and a LoRA for one of its layers."""
    folder = host.directory / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "tiny.safetensors")
    shutil.copy(folder / "tiny.safetensors", folder / "tiny-copy.safetensors")
    write_checkpoint(folder / "tiny-early.safetensors", seed=1)
    loras = host.directory / "models" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    width = SPEC.config.width
    name = "diffusion_model.blocks.1.attn.qkv"
    generator = torch.Generator().manual_seed(2)
    save_file(
        {
            f"{name}.lora_up.weight": torch.randn(3 * width, 4, generator=generator),
            f"{name}.lora_down.weight": torch.randn(4, width, generator=generator),
        },
        loras / "tiny-lora.safetensors",
    )


class Scene:
    """Loader, labels and an empty latent: where every test starts."""

    def __init__(self, batch: int = 1) -> None:
        self.graph = Graph()
        self.model = self.graph.model()
        self.positive, self.null = self.graph.labels(self.model)
        self.latent = self.graph.add("EmptySparseLatent", model=self.model, batch_size=batch, width=0, height=0)

    def guided(self, sparsity: list, model: list | None = None) -> list:
        return self.graph.add("SparseGuidance", model=model or self.model, sparsity=sparsity)

    def stock(self, model: list | None = None, **values) -> str:
        latent = values.pop("latent", self.latent)
        positive = values.pop("positive", self.positive)
        return self.graph.save(self.graph.sampled(model or self.model, positive, self.null, latent, **values))

    def sparse(self, **values) -> str:
        latent = values.pop("latent", self.latent)
        positive = values.pop("positive", self.positive)
        return self.graph.save(self.graph.sparse_sampled(self.model, positive, latent, **values))


def equal(found, *nodes: str) -> bool:
    return all(torch.equal(found[nodes[0]], found[node]) for node in nodes[1:])


def forget(host: Host) -> None:
    """Make the host drop its models and cached results, before the next run at the latest."""
    host.post("/free", {"unload_models": True, "free_memory": True}).raise_for_status()


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
    for shape, exact in (("constant", True), ("cosine", False)):
        schedule = graph.sparsity(omega_start=3.0, omega_end=1.5, omega_shape=shape, selection="bernoulli")
        patch = scene.stock(scene.guided(schedule))
        guider = graph.add("SparseGuider", model=scene.model, positive=scene.positive, sparsity=schedule)
        custom = graph.save(graph.advanced(guider, scene.latent, scene.model))
        one_box = scene.sparse(sparsity=schedule)
        found = sampled_latents(host, graph)
        assert equal(found, custom, one_box)
        assert equal(found, patch, custom) if exact else torch.allclose(found[patch], found[custom], atol=1e-4)


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


def test_image_to_image_and_inpainting(host: Host) -> None:
    scene = Scene()
    graph = scene.graph
    dense, schedule = graph.dense(omega_start=3.0), graph.sparsity()
    painted = graph.save(picture := graph.sparse_sampled(scene.model, scene.positive, scene.latent, seed=3))
    mask = graph.add("SolidMask", value=1.0, width=8, height=16)
    empty = graph.add("SolidMask", value=0.0, width=16, height=16)
    half = graph.add("MaskComposite", destination=empty, source=mask, x=0, y=0, operation="add")
    masked = graph.add("SetLatentNoiseMask", samples=picture, mask=half)
    results = {}
    for name, latent, denoise in (("img2img", picture, 0.5), ("inpaint", masked, 1.0), ("both", masked, 0.6)):
        stock = scene.stock(latent=latent, denoise=denoise)
        ours = scene.sparse(latent=latent, denoise=denoise, sparsity=dense)
        sparse = scene.sparse(latent=latent, denoise=denoise, sparsity=schedule)
        results[name] = stock, ours, sparse
    found = sampled_latents(host, graph)
    for name, (stock, ours, sparse) in results.items():
        assert equal(found, stock, ours), name
        if name != "img2img":
            assert torch.allclose(found[sparse][..., 8:], found[painted][..., 8:], atol=1e-5)
        assert not torch.allclose(found[sparse][..., :8], found[painted][..., :8], atol=1e-2)


def test_regions_and_blends_of_conditions(host: Host) -> None:
    """Areas, masks, averages and zeroed conditions do what they do under stock CFG."""
    scene = Scene()
    graph = scene.graph
    cat, _ = graph.labels(scene.model, "cat")
    left = graph.add("SolidMask", value=1.0, width=8, height=16)
    whole = graph.add("SolidMask", value=0.0, width=16, height=16)
    half = graph.add("MaskComposite", destination=whole, source=left, x=0, y=0, operation="add")
    region = graph.add("ConditioningSetMask", conditioning=cat, mask=half, strength=1.0, set_cond_area="default")
    corner = graph.add(
        "ConditioningSetAreaPercentage", conditioning=cat, width=0.5, height=0.5, x=0.0, y=0.0, strength=1.0
    )
    positives = [
        graph.add("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=other)
        for other in (region, corner)
    ]
    positives.append(
        graph.add(
            "ConditioningAverage",
            conditioning_to=cat, conditioning_from=scene.positive, conditioning_to_strength=0.3,
        )
    )  # fmt: skip
    positives.append(graph.add("ConditioningSetTimestepRange", conditioning=scene.positive, start=0.0, end=0.9))
    dense, schedule = graph.dense(omega_start=3.0), graph.sparsity()
    triples = [
        [
            scene.stock(positive=positive),
            scene.sparse(positive=positive, sparsity=dense),
            scene.sparse(positive=positive, sparsity=schedule),
        ]
        for positive in positives
    ]
    zeroed = graph.add("ConditioningZeroOut", conditioning=scene.positive)
    nulls = [scene.sparse(positive=condition) for condition in (zeroed, scene.null)]
    found = sampled_latents(host, graph)
    assert all(equal(found, stock, ours) for stock, ours, _ in triples)
    assert not any(equal(found, stock, sparse) for stock, _, sparse in triples)
    assert equal(found, *nulls)


def test_lora_and_fp8(host: Host) -> None:
    scene = Scene()
    graph = scene.graph
    plain = scene.sparse()
    results = []
    for strength in (0.0, 1.0):
        scene.model = graph.add(
            "LoraLoaderModelOnly", model=graph.model(), lora_name="tiny-lora.safetensors", strength_model=strength
        )
        results.append(scene.sparse())
    scene.model = graph.add("SparseModelLoader", model_name="tiny.safetensors", weight_dtype="fp8_e4m3fn")
    fp8 = scene.sparse()
    found = sampled_latents(host, graph)
    assert equal(found, plain, results[0])
    assert not torch.allclose(found[plain], found[results[1]], atol=1e-3)
    assert not equal(found, plain, fp8)
    assert (found[plain] - found[fp8]).abs().mean() < 0.2


def test_weak_model(host: Host) -> None:
    """A weak model with the same weights and rates guides nowhere; an earlier checkpoint does, and so does ICG."""
    scene = Scene()
    graph = scene.graph
    even = graph.sparsity(rule="AG + SG", gamma_strong_start=0.0, gamma_weak_start=0.0)
    copy, early = graph.model("tiny-copy.safetensors"), graph.model("tiny-early.safetensors")
    stock = scene.stock(cfg=1.0)
    same = scene.sparse(sparsity=even, weak_model=copy)
    weaker = scene.sparse(sparsity=even, weak_model=early)
    sparser = scene.sparse(sparsity=graph.sparsity(rule="AG + SG"), weak_model=early)
    random = scene.sparse(sparsity=graph.sparsity(rule="ICG"))
    again = scene.sparse(sparsity=even, weak_model=copy, denoise=0.99999)
    found = sampled_latents(host, graph)
    assert torch.allclose(found[stock], found[same], atol=1e-5)
    assert equal(found, same, again)
    assert len({tuple(found[node].flatten().tolist()) for node in (stock, weaker, sparser, random)}) == 4


def test_what_the_nodes_show(host: Host) -> None:
    forget(host)  # a node that does not run again shows nothing again
    scene = Scene(batch=2)
    scheduler = scene.graph.sparsity()
    sampler = scene.graph.sparse_sampled(scene.model, scene.positive, scene.latent, sparsity=scheduler, steps=9)
    saved = scene.graph.save(sampler)
    result = run(host, scene.graph)
    assert result.outputs[scheduler[0]]["images"]
    assert "layers 1 to 2 routed" in result.outputs[scene.model[0]]["text"][0]
    assert "rocket" in result.outputs[scene.model[0]]["text"][0]
    assert result.outputs[scene.positive[0]]["text"] == ["rocket (1), twemoji (1)"]
    assert result.progress[-1] == (9, 9)
    assert saved in result.outputs
