"""Where the picture of a model with a camera (HDM) is seen from."""

import node_helpers
from comfy_api.latest import io

from .sockets import CATEGORY, found_by


class SparseCameraCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseCameraCondition",
            display_name="Sparse Camera Condition",
            category=CATEGORY,
            **found_by("HDM camera", "camera zoom"),
            description="Moves the camera of HDM, which was trained on crops that know their place in the picture. A "
            "wide picture that looks cut off at top and bottom is whole with a zoom below 1.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt, seen by the same camera."),
                io.Float.Input(
                    "x_shift", default=0.0, min=-5.0, max=5.0, step=0.01,
                    tooltip="To the right; 1 is half of the picture's longer side.",
                ),
                io.Float.Input(
                    "y_shift", default=0.0, min=-5.0, max=5.0, step=0.01,
                    tooltip="Downwards; 1 is half of the picture's longer side.",
                ),
                io.Float.Input(
                    "zoom", default=1.0, min=0.2, max=5.0, step=0.01,
                    tooltip="Above 1 the camera comes nearer, below 1 it shows more. The authors show 0.75 and 1.33.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompt, seen by this camera."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative prompt, seen by this camera."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, positive: list, negative: list, x_shift: float, y_shift: float, zoom: float) -> io.NodeOutput:
        camera = {"x_shift": x_shift, "y_shift": y_shift, "zoom": zoom}
        return io.NodeOutput(*(node_helpers.conditioning_set_values(text, camera) for text in (positive, negative)))
