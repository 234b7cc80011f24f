"""Sparse Guidance for stock samplers: as a patch on the model, and as a guider."""

from comfy_api.latest import io
from torch import Tensor

from ..sparse_model.method.schedule import Schedule
from .host.guide.guider import SparseGuider as Guider
from .host.guide.patch import guided
from .sockets import CATEGORY, SparsitySocket, cfg_input, found_by, mask_input


class SparseGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseGuidance",
            display_name="Sparse Guidance",
            category=CATEGORY,
            **found_by("SG", "CFG", "TREAD", "token dropping"),
            description="Makes any stock sampler guide with Sparse Guidance, instead of CFG or beside it. The "
            "sampler's cfg is the guidance scale omega; under the rule SG beside CFG it stays cfg, and the schedule's "
            "own omega counts.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A model with a route, from Sparse Model Loader or Token Route; LoRAs may come between.",
                ),
                SparsitySocket.Input(
                    "sparsity", tooltip="How sparse each branch is over progress, from Sparsity Scheduler."
                ),
                mask_input(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model for KSampler or CFGGuider. Under SG the negative input is ignored; CFG + SG "
                    "uses it as the null condition, SG beside CFG as CFG does.",
                )
            ],
        )

    @classmethod
    def execute(cls, model: object, sparsity: Schedule, mask: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(guided(model, sparsity, mask))


class SparseGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseGuider",
            display_name="Sparse Guider",
            category=CATEGORY,
            **found_by("SG guider", "AutoGuidance", "CFG guider"),
            description="A guider for SamplerCustomAdvanced that follows the schedule's own omega, and that can take a "
            "second, weaker checkpoint as the weak branch. Under SG beside CFG it guides without a negative, too.",
            inputs=[
                io.Model.Input("model", tooltip="A model with a token route, from Sparse Model Loader or Token Route."),
                io.Conditioning.Input("positive", tooltip="What to draw, from Sparse Class Condition."),
                SparsitySocket.Input(
                    "sparsity", tooltip="Sparsity, omega and rule over progress, from Sparsity Scheduler."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What CFG and CFG + SG guide away from. Left open it is the null condition; SG, AG and ICG "
                    "do not use it, nor does SG beside CFG at cfg 1.",
                ),
                io.Model.Input(
                    "weak_model",
                    optional=True,
                    tooltip="An earlier checkpoint of the same training, for the rules AG and AG + SG only.",
                ),
                cfg_input(),
                mask_input(),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        positive: list,
        sparsity: Schedule,
        negative: list | None = None,
        weak_model: object | None = None,
        cfg: float = 1.0,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(Guider(model, sparsity, positive, negative, weak_model, cfg, mask))
