"""A long day of one server: good prompts, bad ones and cancelled ones in turn. None is lost, nothing grows, and the
first pictures come out again at the end."""

import statistics
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import Graph, latents, write_checkpoint
from host import Host
from torch import Tensor

PROMPTS = 200
WARM = 80  # prompts until everything has been loaded and allocated once
GROWTH = 12e6  # bytes; a network kept for every prompt would be more


def base(labels: str = "cat") -> tuple[Graph, list, list, list]:
    graph = Graph()
    model = graph.model()
    positive, _ = graph.labels(model, labels)
    return graph, model, positive, graph.add("EmptySparseLatent", model=model, batch_size=2, width=0, height=0)


def stock(seed: int, steps: int = 4) -> Graph:
    graph, model, positive, latent = base()
    guided = graph.add("SparseGuidance", model=model, sparsity=graph.sparsity())
    graph.save(graph.sampled(guided, positive, positive, latent, seed=seed, steps=steps))
    return graph


def all_in_one(seed: int, steps: int = 4, labels: str = "twemoji, rocket", **values: Any) -> Graph:
    graph, model, positive, latent = base(labels)
    graph.save(graph.sparse_sampled(model, positive, latent, seed=seed, steps=steps, **values))
    return graph


def weak_model(seed: int, steps: int = 4) -> Graph:
    graph, model, positive, latent = base()
    weak = graph.model("tiny-early.safetensors")
    schedule = graph.sparsity(rule="AG + SG")
    sampled = graph.sparse_sampled(
        model, positive, latent, sparsity=schedule, weak_model=weak, seed=seed, steps=steps
    )  # fmt: skip
    graph.save(sampled)
    return graph


def rerouted(seed: int, steps: int = 4) -> Graph:
    graph, model, positive, latent = base("rocket:0.5")
    route = {"route": "custom", "start_layer": 0, "end_layer": 1, "ratio": 0.5, "json": ""}
    routed = graph.add("TokenRoute", model=model, **route)
    guider = graph.add("SparseGuider", model=routed, positive=positive, sparsity=graph.sparsity(rule="ICG"))
    graph.save(graph.advanced(guider, latent, routed, steps, seed))
    return graph


GOOD: tuple[Callable[..., Graph], ...] = (stock, all_in_one, weak_model, rerouted)
BAD: tuple[Callable[[int], Graph], ...] = (
    lambda seed: all_in_one(seed, labels="no such label"),
    lambda seed: all_in_one(seed, preset="SG_FID"),  # needs a weak model
    lambda seed: all_in_one(seed, labels="rocket:nan"),
)


def resident(host: Host) -> int:
    """Bytes of memory that the server's process holds."""
    with open(f"/proc/{host.pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def picture(host: Host, graph: Graph) -> Tensor:
    result = host.run(graph.nodes)
    assert result.error is None, result.error
    (found,) = latents(host, result).values()
    return found


def cancelled(host: Host, graph: Graph) -> None:
    def cancel(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and event["data"]["value"] > 3:
            host.interrupt()

    result = host.run(graph.nodes, on_event=cancel)
    assert result.error is not None and result.error["type"] == "execution_interrupted"


def failed(host: Host, graph: Graph) -> None:
    result = host.run(graph.nodes)
    assert result.error is not None and result.error["type"] == "execution_error", result.error
    assert "\n" not in result.error["exception_message"].strip()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_two_hundred_prompts(start_host: Callable[..., Host]) -> None:
    host = start_host()
    folder = host.directory / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "tiny.safetensors")
    write_checkpoint(folder / "tiny-early.safetensors", seed=1)
    first, memory = {}, []
    for number in range(PROMPTS):
        make = GOOD[number % len(GOOD)]
        if number % 10 == 3:
            failed(host, BAD[number // 10 % len(BAD)](number))
        elif number % 10 == 8:
            cancelled(host, make(number, steps=5000))
        else:
            found = picture(host, make(number))
            if number < 20:
                first[number] = found
        memory.append(resident(host))
    early, late = statistics.median(memory[WARM : WARM + 20]), statistics.median(memory[-20:])
    assert late - early < GROWTH, f"{early / 1e6:.0f} MB, then {late / 1e6:.0f} MB"
    for number, found in first.items():
        assert torch.equal(picture(host, GOOD[number % len(GOOD)](number)), found), number
    assert len(host.get("/history").json()) == PROMPTS + len(first)
    queue = host.get("/queue").json()
    assert queue["queue_running"] == queue["queue_pending"] == []
