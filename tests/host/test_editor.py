"""The browser harness itself, on stock nodes: the editor opens good workflows and names what is wrong with bad ones."""

import json
from pathlib import Path

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


def test_api_form_to_editor_form_and_back(editor: Editor, host: Host, tmp_path: Path) -> None:
    picture = tmp_path / "editor.png"
    path = tmp_path / "good.json"
    path.write_text(json.dumps(editor.convert(GOOD, picture)))
    assert Image.open(picture).convert("L").getextrema()[1] > 200, "something is drawn"

    report = editor.check(path)
    assert report.problems == []
    assert report.links == 4
    assert {node["title"] for node in report.nodes} >= {"Pixels"}
    stripped = {id_: {key: node[key] for key in ("class_type", "inputs")} for id_, node in report.prompt.items()}
    assert stripped == {id_: {key: node[key] for key in ("class_type", "inputs")} for id_, node in GOOD.items()}
    assert host.run(report.prompt).pixels().shape == (1, 48, 64, 3)


def test_editor_names_what_is_wrong(editor: Editor, tmp_path: Path) -> None:
    workflow = editor.convert(GOOD)
    for node in workflow["nodes"]:
        if node["type"] == "ImageInvert":
            node["type"] = "NodeThatDoesNotExist"
        if node["type"] == "VAELoader":
            node["widgets_values"] = ["absent.safetensors"]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(workflow))
    report = editor.check(path)
    assert report.missing == ["NodeThatDoesNotExist"]
    assert [(found["type"], found["widget"]) for found in report.widgets] == [("VAELoader", "vae_name")]
    assert len(report.problems) >= 2
