"""When a loader runs anew: its files have changed, and not because its name comes over a link."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from graphs import SPEC, Graph, write_checkpoint, write_models
from host import Host
from hosts import REPOSITORY, Checkout
from safetensors.torch import save_file

from sparse_model.checkpoints.metadata import to_metadata


@pytest.fixture(scope="module", autouse=True)
def models(host: Host) -> None:
    write_models(host)


def ran(host: Host, graph: Graph, node: str) -> bool:
    result = host.run(graph.nodes)
    assert result.error is None, result.error
    return node not in {name for event in result.named("execution_cached") for name in event["data"]["nodes"]}


LINKED = """
import sys
from hosted_pack import load_pack
part = load_pack(sys.argv[1], sys.argv[2])
models, checkpoints = part("nodes.loader").SparseModelLoader, part("nodes.checkpoint").SparseCheckpointLoader
print(models.fingerprint_inputs(model_name=None, weight_dtype="default"))
print(checkpoints.fingerprint_inputs(ckpt_name=None, text_encoder=None))
"""


def test_a_linked_name_does_not_load_again(checkout: Checkout) -> None:
    """The host gives None for what comes over a link, and runs a node whose fingerprint fails every time."""
    command = [str(checkout.python), "-c", LINKED, str(checkout.root), str(REPOSITORY)]
    environment = {**checkout.environment, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["(None, 'default', None)", "(None, None, None, None)"]


def test_a_file_written_anew_is_loaded_again(host: Host) -> None:
    path: Path = host.directory / "models" / "diffusion_models" / "tiny.safetensors"
    graph = Graph()
    model = graph.model(path.name)
    graph.add("PreviewAny", source=[model[0], 1])
    ran(host, graph, model[0])
    assert not ran(host, graph, model[0])
    os.utime(path, (1, 1))
    assert ran(host, graph, model[0])


def test_a_shard_written_anew_is_loaded_again(host: Host) -> None:
    folder: Path = host.directory / "models" / "diffusion_models"
    state = write_checkpoint(folder / "whole.safetensors")
    names = [f"split-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file(dict(list(state.items())[number::2]), folder / name, metadata=to_metadata(SPEC))
    places = {key: names[i % 2] for i, key in enumerate(state)}
    (folder / "split.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    graph = Graph()
    model = graph.model("split.safetensors.index.json")
    graph.add("PreviewAny", source=[model[0], 1])
    ran(host, graph, model[0])
    assert not ran(host, graph, model[0])
    os.utime(folder / names[1], (1, 1))
    assert ran(host, graph, model[0])
