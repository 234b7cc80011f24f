"""What comes into the nodes: images, masks, conditions of all kinds, LoRAs, weak models. On a tiny random network."""

import pytest
import torch
from graphs import Scene, equal, sampled_latents, write_models
from host import Host


@pytest.fixture(scope="session", autouse=True)
def models(host: Host) -> None:
    write_models(host)


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
