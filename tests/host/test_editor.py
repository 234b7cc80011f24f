"""The browser harness itself, on stock nodes: the editor opens good workflows and says what is wrong with bad ones."""

import json
from pathlib import Path

import pytest
from editor import Editor
from host import Host, Workflow
from PIL import Image

GOOD: Workflow = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0x4080C0}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "editor"}},
    "4": {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}, "_meta": {"title": "Pixels"}},
    "5": {"class_type": "VAEEncode", "inputs": {"pixels": ["2", 0], "vae": ["4", 0]}},
    "6": {"class_type": "RandomNoise", "inputs": {"noise_seed": 7}},
}


def core(workflow: Workflow) -> Workflow:
    """An API form without what the editor adds to it."""
    return {id_: {key: node[key] for key in ("class_type", "inputs")} for id_, node in workflow.items()}


@pytest.mark.slow
def test_editor(editor: Editor, host: Host, tmp_path: Path) -> None:
    api = tmp_path / "api.json"
    api.write_text(json.dumps(GOOD))
    (workflow,) = editor.convert([api])
    good = tmp_path / "good.json"
    good.write_text(json.dumps(workflow))
    for node in workflow["nodes"]:
        if node["type"] == "ImageInvert":
            node["type"] = "NodeThatDoesNotExist"
        if node["type"] == "VAELoader":
            node["widgets_values"] = ["absent.safetensors"]
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(workflow))

    first, second, third = editor.check([good, bad, api], screenshots=tmp_path)

    assert first.problems == []
    assert first.links == 4
    assert "Pixels" in [node["title"] for node in first.nodes]
    assert core(first.prompt) == core(GOOD)
    assert host.run(first.prompt).pixels().shape == (1, 48, 64, 3)
    assert Image.open(tmp_path / "good.png").convert("L").getextrema()[1] > 200, "something is drawn"

    assert second.missing == ["NodeThatDoesNotExist"]
    assert [(found["type"], found["widget"]) for found in second.widgets] == [("VAELoader", "vae_name")]
    assert len(second.problems) >= 2

    assert third.problems == [], "what was wrong with one workflow does not stick to the next"
    assert core(third.prompt) == core(GOOD)
