"""The workflow for an ordinary FLUX.1 dev, run to its picture on small files of random weights in the published form.

The host's loaders build text encoders (and, up to 0.3, FLUX) at full size whatever a file holds: `small_flux.py` has
nodes of the same inputs in their place. All others, from prompt to picture, are the workflow's.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from host import Host
from hosts import REPOSITORY, Checkout, version_key
from published_text import write_flux_vae
from safetensors.torch import save_file

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


def write_encoders(folder: Path) -> None:
    """CLIP-L and T5 XXL of small_flux.py's sizes, under the keys of their published files."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip = CLIPTextConfig(hidden_size=64, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2)
    t5 = T5Config(
        vocab_size=32128, d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = {
        f"text_model.{key.removeprefix('text_model.')}": v for key, v in CLIPTextModel(clip).state_dict().items()
    }
    save_file(weights, folder / "clip_l.safetensors")
    weights = {key: value.clone() for key, value in T5EncoderModel(t5).state_dict().items() if "embed_" not in key}
    save_file(weights, folder / "t5xxl_fp16.safetensors")


@pytest.fixture(scope="module")
def workflow(checkout: Checkout) -> dict[str, dict[str, Any]]:
    """At a smaller size and in fewer steps, guided in all of them."""
    nodes = json.loads((REPOSITORY / "workflows" / "api" / "31 FLUX dev as it is.json").read_text())
    for node in nodes.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "DualCLIPLoader" or (kind == "UNETLoader" and version_key(checkout.version) < (0, 4)):
            node["class_type"] = f"Small{kind}"
        elif kind == "EmptySD3LatentImage":
            inputs |= {"width": 128, "height": 96}
        elif kind == "KSampler":
            inputs["steps"] = 3
        elif kind == "SparseGuidanceSimple":
            inputs["end_percent"] = 1.0
    return nodes


@pytest.fixture(scope="module")
def flux(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("flux")
    models = directory / "models"
    write_encoders(models / "text_encoders")
    write_flux_vae(models / "vae" / "ae.safetensors")
    (models / "diffusion_models").mkdir()
    command = [checkout.python, HERE / "hosted_models.py", checkout.root, REPOSITORY, "write"]
    command += [models / "diffusion_models" / "flux1-dev.safetensors", "FLUX.1"]
    subprocess.run(command, env=checkout.environment, check=True, capture_output=True, timeout=300)
    (directory / "custom_nodes").mkdir()
    (directory / "custom_nodes" / "small_flux.py").symlink_to(HERE / "small_flux.py")
    with Host(checkout, directory) as running:
        yield running


def test_from_prompt_to_picture(flux: Host, workflow: dict[str, dict[str, Any]]) -> None:
    """Guided, and as FLUX is without the node once its strength is 0."""
    (simple,) = [name for name, node in workflow.items() if node["class_type"] == "SparseGuidanceSimple"]
    guided = flux.run(workflow).pixels()
    assert guided.shape == (1, 96, 128, 3)
    assert guided.std() > 1
    workflow[simple]["inputs"]["strength"] = 0.0
    unguided = flux.run(workflow).pixels()
    (sampler,) = [node for node in workflow.values() if node["class_type"] == "KSampler"]
    sampler["inputs"]["model"] = workflow.pop(simple)["inputs"]["model"]
    stock = flux.run(workflow).pixels()
    assert (unguided == stock).all()
    assert (guided != stock).mean() > 0.1
