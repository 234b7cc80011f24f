"""What is said of a run that goes on stands under the node that samples."""

import json
import struct
import time

import pytest
import websocket
from graphs import Graph, write_models
from host import Host

TEXT = 3
"""The kind of a binary message that is a text for a node."""


@pytest.fixture(scope="module", autouse=True)
def models(host: Host) -> None:
    write_models(host)


def texts(messages: list[bytes]) -> list[tuple[str, str]]:
    """(node id, text) of every text among binary messages."""
    found = []
    for message in messages:
        kind, length = struct.unpack(">II", message[:8])
        if kind == TEXT:
            found.append((message[8 : 8 + length].decode(), message[8 + length :].decode()))
    return found


def sampled(side: int, ours: bool, patched: bool = False, seed: int = 5) -> tuple[Graph, str]:
    """A graph over a latent of `side` pixels, and the node that samples it."""
    graph = Graph()
    model = graph.model()
    positive, null = graph.labels(model)
    latent = graph.add("EmptySparseLatent", model=model, batch_size=1, width=side, height=side)
    if patched:
        model = graph.add("HyperTile", model=model, tile_size=256, swap_size=2, max_depth=0, scale_depth=False)
    if ours:
        made = graph.sparse_sampled(model, positive, latent, seed=seed)
    else:
        made = graph.sampled(model, positive, null, latent, seed=seed)
    graph.save(made)
    return graph, made[0]


@pytest.mark.parametrize("ours", [True, False], ids=["our sampler", "stock sampler"])
def test_a_size_far_from_the_trained_one(host: Host, ours: bool) -> None:
    graph, node = sampled(64, ours)
    result = host.run(graph.nodes)
    assert result.error is None
    ((shown, text),) = texts(result.previews)
    assert shown == node and text.startswith("64 x 64 pixels are 256 tokens; this model was trained at 16 x 16")
    again = host.run(sampled(16, ours)[0].nodes)
    assert texts(again.previews) == [(node, "")], "what no longer holds is taken away"
    assert texts(host.run(sampled(16, ours, seed=6)[0].nodes).previews) == []


def test_several_things_stand_together(host: Host) -> None:
    graph, node = sampled(64, True, patched=True)
    result = host.run(graph.nodes)
    assert result.error is None
    one, both = texts(result.previews)
    assert one[0] == both[0] == node
    assert both[1].splitlines() == [
        one[1],
        "HyperTile has no effect on this model, whose blocks and attention it does not know; take it out.",
    ]


def test_nobody_else_is_told(host: Host) -> None:
    """A prompt without a client, as scripts queue them: what it says is for no editor that happens to be open."""
    graph, _ = sampled(64, True, seed=7)
    stream = websocket.create_connection(f"ws://127.0.0.1:{host.port}/ws?clientId=somebody", timeout=2)
    try:
        prompt_id = host.post("/prompt", {"prompt": graph.nodes}).json()["prompt_id"]
        until = time.monotonic() + 120
        while prompt_id not in host.get(f"/history/{prompt_id}").json() and time.monotonic() < until:
            time.sleep(0.2)
        messages = []
        try:
            while True:
                messages.append(stream.recv())
        except websocket.WebSocketTimeoutException:
            pass
    finally:
        stream.close()
    kinds = [json.loads(message)["type"] for message in messages if isinstance(message, str)]
    assert "status" in kinds and "sparse_guidance.cost" not in kinds
    assert texts([message for message in messages if isinstance(message, bytes)]) == []
    assert "64 x 64 pixels are 256 tokens" in host.log
