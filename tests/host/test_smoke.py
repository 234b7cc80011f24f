"""The harness itself, on stock nodes only: a host starts, runs, fails, is interrupted and is read back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from host import Host, Workflow
from PIL import Image


def solid(color: int, width: int = 64, height: int = 48, batch: int = 2) -> Workflow:
    """EmptyImage -> SaveImage."""
    size = {"width": width, "height": height, "batch_size": batch, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "smoke"}},
    }


def test_saved_images_come_back(host: Host) -> None:
    result = host.run(solid(0x2040F0))
    pixels = result.pixels("2")
    assert pixels.shape == (2, 48, 64, 3)
    assert np.array_equal(pixels[0, 0, 0], [0x20, 0x40, 0xF0])


def test_schemas_are_listed(host: Host) -> None:
    assert host.object_info("KSampler")["input"]["required"]["steps"][0] == "INT"
    assert len(host.object_info()) > 100


def test_uploaded_image_is_loaded(host: Host) -> None:
    name = host.upload(Image.new("RGB", (8, 8), (10, 20, 30)), "probe.png")
    workflow = solid(0)
    workflow["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    assert np.array_equal(host.run(workflow).pixels()[0, 0, 0], [10, 20, 30])


def test_refused_workflow_is_an_error(host: Host) -> None:
    workflow = solid(0)
    workflow["1"]["inputs"]["width"] = -5
    result = host.run(workflow)
    assert result.error is not None
    assert "1" in result.error["node_errors"]
    with pytest.raises(AssertionError, match="width"):
        result.pixels()


def test_failing_node_is_an_error(host: Host) -> None:
    workflow = solid(0)
    workflow["2"]["inputs"]["filename_prefix"] = "../../outside"
    result = host.run(workflow)
    assert result.error is not None
    assert (result.error["type"], result.error["node_id"]) == ("execution_error", "2")
    assert "outside the output folder" in result.error["exception_message"]
    assert "Exception during processing" in host.log


def test_interrupt(host: Host) -> None:
    workflow = solid(1, 1024, 1024)
    for node in range(3, 103):
        source = str(node - 1) if node > 3 else "1"
        workflow[str(node)] = {"class_type": "ImageInvert", "inputs": {"image": [source, 0]}}
    workflow["2"]["inputs"]["images"] = ["102", 0]

    def interrupt_at_node_5(event: dict[str, Any]) -> None:
        if event["type"] == "executing" and event["data"]["node"] == "5":
            host.interrupt()

    result = host.run(workflow, on_event=interrupt_at_node_5)
    assert result.error is not None
    assert result.error["type"] == "execution_interrupted"
    assert host.run(solid(2)).error is None


@pytest.mark.slow
def test_start_with_other_flags(start_host: Callable[..., Host]) -> None:
    other = start_host("--cache-none")
    assert "--cache-none" in other.flags
    assert other.run(solid(0)).error is None
    assert other.stop() == 0
