"""Token route and Sparse Guidance in one node, for the models that people already have."""

from comfy_api.latest import io

from ..sparse_model.method.schedule import Curve, Schedule
from .host.adapters import adapter_of
from .host.guide.patch import guided
from .sockets import CATEGORY, found_by


class SparseGuidanceSimple(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = {"min": 0.0, "max": 1.0, "step": 0.001, "round": 0.001}
        return io.Schema(
            node_id="SparseGuidanceSimple",
            display_name="Sparse Guidance Simple",
            category=CATEGORY,
            **found_by("SG", "SLG", "skip layer guidance", "token dropping"),
            description="Adds Sparse Guidance to whatever the sampler does, on any transformer: FLUX, SD3.5, Wan, "
            "Qwen-Image, Z-Image and most others. CFG stays as it is; at cfg 1 no negative is needed.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Any transformer. One that has a token route keeps it; others get two blocks a third of "
                    "the way in.",
                ),
                io.Float.Input(
                    "strength",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How far the prediction is moved away from the one that leaves tokens out: omega - 1. 0 is "
                    "no Sparse Guidance.",
                ),
                io.Float.Input(
                    "start_percent", default=0.01, **percent, tooltip="Progress of sampling at which it begins."
                ),
                io.Float.Input(
                    "end_percent", default=0.15, **percent, tooltip="Progress of sampling at which it ends."
                ),
                io.Float.Input(
                    "gamma_weak",
                    default=1.0,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Fraction of tokens that the weak prediction leaves out of the route's blocks; at 1 it "
                    "leaves these blocks out, as skip-layer guidance does.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model for any stock sampler or guider.")],
        )

    @classmethod
    def execute(
        cls, model: object, strength: float, start_percent: float, end_percent: float, gamma_weak: float
    ) -> io.NodeOutput:
        adapter = adapter_of(model)
        routed = model if adapter.sparsity else adapter.routed(adapter.short_route)
        strong, weak, omega = (Curve.constant(value) for value in (0.0, gamma_weak, 1 + strength))
        return io.NodeOutput(guided(routed, Schedule(strong, weak, omega, "SG beside CFG", start_percent, end_percent)))
