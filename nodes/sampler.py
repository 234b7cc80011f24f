"""The all-in-one sampler."""

from comfy_api.latest import io
from torch import Tensor

from ..sparse_model.method.schedule import Schedule
from .host.guide.guider import SparseGuider
from .host.guide.sampling import sample_latent
from .host.own.model import spec_of
from .sockets import (
    CATEGORY,
    FROM_MODEL,
    LARGEST_SCALE,
    PRESET_HELP,
    PRESET_NAMES,
    cfg_input,
    found_by,
    mask_input,
    preset_schedule,
    sampler_inputs,
    seed_input,
    sparsity_input,
)

UNKNOWN_STEPS = 20
"""Steps for a model that recommends none: the stock KSampler's."""


class SparseKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseKSampler",
            display_name="Sparse KSampler",
            category=CATEGORY,
            **found_by("SG sampler", "TREAD sampler"),
            description="Samples a token-sparse model with Sparse Guidance in one box.",
            inputs=[
                io.Model.Input("model", tooltip="A model with a token route, from Sparse Model Loader or Token Route."),
                io.Conditioning.Input("positive", tooltip="What to draw, from Sparse Class Condition."),
                io.Latent.Input("latent_image", tooltip="The latent to denoise, from Empty Sparse Latent or an image."),
                seed_input(),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=10000,
                    tooltip="Denoising steps; more are slower and finer. 0 takes what the model's file recommends "
                    f"({UNKNOWN_STEPS} where it says nothing).",
                ),
                io.Combo.Input(
                    "preset",
                    options=PRESET_NAMES,
                    default=FROM_MODEL,
                    tooltip=f"{PRESET_HELP} Not used when sparsity is connected.",
                ),
                io.Float.Input(
                    "omega",
                    default=0.0,
                    min=0.0,
                    max=LARGEST_SCALE,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance scale: 1 is no guidance, more follows the labels harder. 0 leaves it to the "
                    "preset or the connected sparsity.",
                ),
                *sampler_inputs(),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the latent is drawn anew; below 1 it keeps the structure of an image.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What CFG and CFG + SG guide away from; left open it is the null condition. SG ignores it.",
                ),
                io.Model.Input(
                    "weak_model",
                    optional=True,
                    tooltip="An earlier checkpoint of the same training, for AG and AG + SG (the preset SG_FID).",
                ),
                sparsity_input(),
                cfg_input(),
                mask_input(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The denoised latent.")],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        positive: list,
        latent_image: dict,
        seed: int,
        steps: int,
        preset: str,
        omega: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        negative: list | None = None,
        weak_model: object | None = None,
        sparsity: Schedule | None = None,
        cfg: float = 1.0,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        schedule = sparsity if sparsity is not None else preset_schedule(preset, model)
        if not omega <= 0:  # NaN is neither, and refused there
            schedule = schedule.with_scale(omega)
        guider = SparseGuider(model, schedule, positive, negative, weak_model, cfg, mask)
        return io.NodeOutput(
            sample_latent(
                guider,
                latent_image,
                seed=seed,
                steps=steps or recommended_steps(model),
                sampler_name=sampler_name,
                scheduler=scheduler,
                denoise=denoise,
            )
        )


def recommended_steps(model: object) -> int:
    """What the model's file recommends, or the stock KSampler's number."""
    spec = spec_of(model)
    return UNKNOWN_STEPS if spec is None else spec.steps
