"""From the CFG scale that somebody uses to the omega that moves the picture as far."""

from comfy_api.latest import io, ui

from ..sparse_model.method.schedule import Schedule
from .host.guide.match import match
from .sockets import (
    CATEGORY,
    FROM_MODEL,
    LARGEST_SCALE,
    PRESET_HELP,
    PRESET_NAMES,
    SparsitySocket,
    found_by,
    preset_schedule,
    seed_input,
    sparsity_input,
)


class SparseGuidanceMatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseGuidanceMatch",
            display_name="Sparse Guidance Match",
            category=CATEGORY,
            **found_by("match CFG", "CFG to omega", "guidance scale"),
            description="Finds the omega at which Sparse Guidance moves the picture as far as the CFG scale that you "
            "use, by looking at both along a few steps. Each step runs CFG's two predictions and the plan's two.",
            inputs=[
                io.Model.Input("model", tooltip="Any model that Sparse KSampler takes, with its token route."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Latent.Input(
                    "latent_image", tooltip="The latent that will be sampled. A batch gives a steadier answer than one."
                ),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=1.1,
                    max=LARGEST_SCALE,
                    step=0.1,
                    round=0.01,
                    tooltip="The scale at which you use CFG on this model.",
                ),
                io.Combo.Input(
                    "preset",
                    options=PRESET_NAMES,
                    default=FROM_MODEL,
                    tooltip=f"Which gammas and interval to guide with. {PRESET_HELP} Not used when sparsity is "
                    "connected.",
                ),
                seed_input(),
                io.Int.Input(
                    "steps",
                    default=10,
                    min=1,
                    max=10000,
                    tooltip="How many steps of CFG to look at. A plan that guides for a short time needs more.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What your CFG guides away from; left open it is the null condition of a model that has "
                    "one.",
                ),
                sparsity_input(),
            ],
            outputs=[
                SparsitySocket.Output(display_name="sparsity", tooltip="The plan with the omega that was found."),
                io.Float.Output(
                    display_name="omega",
                    tooltip="Its omega, at its highest: the cfg of a stock sampler behind Sparse Guidance.",
                ),
                io.String.Output(display_name="report", tooltip="What was found, and what it took, as text."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        positive: list,
        latent_image: dict,
        cfg: float,
        preset: str,
        seed: int,
        steps: int,
        negative: list | None = None,
        sparsity: Schedule | None = None,
    ) -> io.NodeOutput:
        schedule = sparsity if sparsity is not None else preset_schedule(preset, model)
        found = match(model, schedule, cfg, positive, negative, latent_image, seed=seed, looks=steps)
        omega = found.schedule.omega.high
        cost = "" if found.cost is None else f", each about as long as {found.cost:.1f} of CFG"
        report = (
            f"{schedule.rule} at omega {omega:g} moves the picture as far as CFG at {cfg:g}. "
            f"Found in {found.looks} steps{cost}, in {found.seconds:.1f} s."
        )
        return io.NodeOutput(found.schedule, omega, report, ui=ui.PreviewText(report))
