"""The workflows for the host's own models, run to their pictures on small files of random weights, in published form.

The host's loaders build text encoders (and some networks) at full size whatever a file holds: `small_models.py` has
nodes of the same inputs in their place. All others, from prompt to picture, are the workflow's. Motif-Video needs its
authors' nodes: `test_motif_authors.py`.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from host import Host, Result, Workflow
from hosted_files import LOADERS, named_files, write_small
from hosts import REPOSITORY, Checkout, version_key
from PIL import ImageSequence

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
PATHS = sorted((REPOSITORY / "workflows" / "api").glob("3[1-5] *.json"))
FRAMES, HEIGHT, WIDTH = 5, 48, 64
SIZED = {
    "EmptySD3LatentImage": {"width": WIDTH, "height": HEIGHT},
    "EmptyHunyuanLatentVideo": {"width": WIDTH, "height": HEIGHT, "length": FRAMES},
    "KSampler": {"steps": 3},
    "SparseGuidanceSimple": {"end_percent": 1.0},
}
"""A smaller size and fewer steps than the workflow's, guided in all of them."""
KNOWN_NETWORKS = {"wan2.1_t2v_1.3B_fp16.safetensors": (0,), "flux1-dev.safetensors": (0, 4)}
"""Small files that the host's own loader takes, and since which version."""


def taken(path: Path, version: str) -> Workflow:
    """Small, and loaded by what can load it."""
    nodes = json.loads(path.read_text())
    for node in nodes.values():
        kind, inputs = node["class_type"], node["inputs"]
        inputs |= SIZED.get(kind, {})
        known = KNOWN_NETWORKS.get(inputs.get("unet_name"))
        if kind in ("DualCLIPLoader", "CLIPLoader", "CheckpointLoaderSimple") or (
            kind == "UNETLoader" and (known is None or version_key(version) < known)
        ):
            node["class_type"] = f"Small{kind}"
    return nodes


def of_kind(nodes: Workflow, *kinds: str) -> list[str]:
    return [name for name, node in nodes.items() if node["class_type"] in kinds]


def dense(nodes: Workflow) -> Workflow:
    """With every token in every branch that counts, and no guidance but CFG."""
    nodes = copy.deepcopy(nodes)
    for node in nodes.values():
        if node["class_type"] == "SparseGuidanceSimple":
            node["inputs"]["strength"] = 0.0
        elif node["class_type"] == "SparsityScheduler":
            rule = node["inputs"]["rule"]
            # in SG the weak branch must drop some; at a scale of 1 it counts for nothing
            branches = ("strong",) if rule == "SG" else ("strong", "weak")
            ends = {f"gamma_{branch}_{end}": 0.0 for branch in branches for end in ("start", "end")}
            node["inputs"] |= {"preset": "custom", **ends}
            if rule == "SG":
                nodes[of_kind(nodes, "KSampler")[0]]["inputs"]["cfg"] = 1.0
    return nodes


def stock(nodes: Workflow) -> Workflow:
    """The host's own nodes of it."""
    nodes = copy.deepcopy(nodes)
    for name in of_kind(nodes, "SparseGuidanceSimple", "SparseGuidance", "TokenRoute"):
        model = nodes.pop(name)["inputs"]["model"]
        for node in nodes.values():
            node["inputs"] = {key: model if value == [name, 0] else value for key, value in node["inputs"].items()}
    for name in of_kind(nodes, "SparsityScheduler", "SparseGuidanceReport"):
        del nodes[name]
    return nodes


def pictures(result: Result, saver: str) -> np.ndarray:
    """All frames of all files -> uint8 [B, H, W, 3]."""
    assert result.error is None, json.dumps(result.error)[:4000]
    frames = [frame.convert("RGB") for image in result.images[saver] for frame in ImageSequence.Iterator(image)]
    return np.stack([np.asarray(frame) for frame in frames])


@pytest.fixture(scope="module")
def small(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("small")
    files = {f"{LOADERS[name]}/{file}" for path in PATHS for name, file in named_files(path)}
    write_small(checkout, directory / "models", *sorted(files))
    (directory / "custom_nodes").mkdir()
    (directory / "custom_nodes" / "small_models.py").symlink_to(HERE / "small_models.py")
    with Host(checkout, directory) as running:
        yield running


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_from_prompt_to_picture(small: Host, path: Path) -> None:
    """Guided, and as without this pack's nodes once no token is dropped and nothing is scaled."""
    models = small.directory / "models"
    absent = [file for name, file in named_files(path) if not (models / LOADERS[name] / file).exists()]
    if absent:
        pytest.skip(f"ComfyUI {small.version} has no network for {absent[0]}")
    nodes = taken(path, small.version)
    (saver,) = of_kind(nodes, "SaveImage", "SaveAnimatedWEBP")
    result = small.run(nodes)
    guided = pictures(result, saver)
    frames = FRAMES if nodes[saver]["class_type"] == "SaveAnimatedWEBP" else 1
    assert guided.shape == (frames, HEIGHT, WIDTH, 3)
    assert guided.std() > 1
    assert {saver, *of_kind(nodes, "SparseGuidanceReport")} <= set(result.outputs)
    without = pictures(small.run(stock(dense(nodes))), saver)
    assert (pictures(small.run(dense(nodes)), saver) == without).all()
    assert (guided != without).mean() > 0.1
    for name in of_kind(nodes, "LoraLoaderModelOnly"):
        nodes[name]["inputs"]["strength_model"] = 0.0
        assert (pictures(small.run(nodes), saver) != guided).mean() > 0.1
    assert "lora key not loaded" not in small.log
