"""What several nodes share: the SPARSITY socket, categories, and choices that a widget offers."""

import dataclasses
import importlib

import comfy.samplers
from comfy_api.latest import io

from ..sparse_model.checkpoints.spec import ModelSpec
from ..sparse_model.method.schedule import PRESETS, Schedule
from .host.own.model import spec_of


def _host_category() -> str:
    """Where the host lists its own sampler: versions differ."""
    return importlib.import_module("nodes").KSampler.CATEGORY  # the host's module of that name


def found_by(*words: str) -> dict[str, list[str]]:
    """What else a node is searched for as, for a schema of a host that knows such words."""
    known = "search_aliases" in {field.name for field in dataclasses.fields(io.Schema)}
    return {"search_aliases": list(words)} if known else {}


SparsitySocket = io.Custom("SPARSITY")
"""Carries an immutable `Schedule`."""


def rarely_needed(field: io.Input) -> io.Input:
    """The same input, which editors fold away until it is asked for. Older hosts have no argument for that."""
    field.extra_dict = {**field.extra_dict, "advanced": True}
    return field


CATEGORY = "model/sparse guidance" if _host_category().startswith("model/") else "sampling/sparse guidance"
"""One place for all nodes, where the host keeps its own samplers."""
FROM_MODEL = "from the model"
PRESET_NAMES = [FROM_MODEL, *PRESETS]
PRESET_HELP = (
    "SG_FLOPS: fastest, both predictions drop tokens. SG_FID: best quality, needs an earlier checkpoint as weak model. "
    "HPSv3, GenEval: the paper's text-to-image settings (GenEval also uses the null condition). PDG: SPRINT's, the "
    "weak prediction has no label and skips the whole route. like Skip Layer Guidance: what that node does, beside "
    "CFG. from the model: what the checkpoint's author recommends."
)


LARGEST_SCALE = 100.0
"""Of guidance, as the host's own samplers have it."""


def cfg_input() -> io.Input:
    """The second scale of the rule that has two."""
    return io.Float.Input(
        "cfg",
        default=1.0,
        min=0.0,
        max=LARGEST_SCALE,
        step=0.1,
        round=0.01,
        optional=True,
        tooltip="CFG's own scale under the rule SG beside CFG, where omega is that of Sparse Guidance; 1 is no CFG and "
        "needs no negative. Other rules do not use it.",
    )


def within_scales(scale: float) -> float:
    """The scale; ValueError for one that no widget offers, which texts and links can hold."""
    if not 0 <= scale <= LARGEST_SCALE:
        raise ValueError(f"a guidance scale of {scale:g} is outside [0, {LARGEST_SCALE:g}]; 1 is no guidance.")
    return scale


def mask_input() -> io.Input:
    """What must not be left out."""
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip="Tokens under this mask are never left out: faces, text, what is inpainted. Any size; for a video one "
        "mask for all frames, or one for each.",
    )


def seed_input(tooltip: str = "Decides the noise and which tokens are dropped.") -> io.Input:
    """What a picture depends on besides its settings."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip=tooltip,
    )


def sparsity_input() -> io.Input:
    """A schedule for a node that has presets."""
    return SparsitySocket.Input(
        "sparsity", optional=True, tooltip="A schedule from Sparsity Scheduler, in place of the preset."
    )


def preset_schedule(name: str, model: object | None, setting: str = "") -> Schedule:
    """The schedule of a preset's name; ValueError if it should come from a model that recommends none."""
    if name == FROM_MODEL and model is None:
        raise ValueError(
            f"The preset '{FROM_MODEL}' cannot be used because no model is connected; connect one to the input 'model' "
            "or choose another preset."
        )
    return recommended(name, None if model is None else spec_of(model), setting)


def recommended(name: str, spec: ModelSpec | None, setting: str = "") -> Schedule:
    """The schedule of a preset's name for a checkpoint, which may offer several under the names of a `setting`;
    ValueError if it recommends none, or none of that name."""
    if name != FROM_MODEL:
        return PRESETS[name]
    if spec is not None and setting.strip():
        return spec.setting(setting.strip()).schedule
    if spec is None or spec.schedule is None:
        raise ValueError(
            f"The preset '{FROM_MODEL}' cannot be used because this model's file recommends no settings; choose "
            "another preset, such as HPSv3."
        )
    return spec.schedule


def sampler_inputs() -> list[io.Input]:
    """The host's samplers and schedulers to choose from."""
    return [
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            default="euler",
            tooltip="The algorithm that removes the noise.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="simple",
            tooltip="How noise levels are spread over the steps.",
        ),
    ]
