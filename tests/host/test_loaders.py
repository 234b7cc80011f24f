"""When a loader runs anew: its files have changed, and not because its name comes over a link."""

import os
from pathlib import Path

import pytest
from graphs import Graph, write_models
from host import Host


@pytest.fixture(scope="module", autouse=True)
def models(host: Host) -> None:
    write_models(host)


def ran(host: Host, graph: Graph, node: str) -> bool:
    result = host.run(graph.nodes)
    assert result.error is None, result.error
    return node not in {name for event in result.named("execution_cached") for name in event["data"]["nodes"]}


def test_a_linked_name_does_not_load_again(host: Host) -> None:
    if "ConvertStringToComboNode" not in host.object_info():
        pytest.skip("this host has no node that gives the name of a file")
    graph = Graph()
    model = graph.model(graph.add("ConvertStringToComboNode", string="tiny.safetensors"))
    graph.add("PreviewAny", source=[model[0], 1])
    ran(host, graph, model[0])
    assert not ran(host, graph, model[0])


def test_a_file_written_anew_is_loaded_again(host: Host) -> None:
    path: Path = host.directory / "models" / "diffusion_models" / "tiny.safetensors"
    graph = Graph()
    model = graph.model(path.name)
    graph.add("PreviewAny", source=[model[0], 1])
    ran(host, graph, model[0])
    assert not ran(host, graph, model[0])
    os.utime(path, (1, 1))
    assert ran(host, graph, model[0])
