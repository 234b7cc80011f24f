"""The picture of `sample`: one row each of no guidance, CFG and a schedule, from the same seeds."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..checkpoints.checkpoint import CheckpointError, load
from ..checkpoints.spec import ModelSpec
from ..conditions.labels import label_weights
from ..cost import step_cost
from ..method.guidance import RULES
from ..method.sampling import Compiled, Denoiser, sample
from ..method.schedule import Schedule, constant
from ..pictures.image import contact_sheet
from .schedule_options import cfg_of

UNGUIDED = constant(0, 0, 1, "CFG")


def comparison_picture(
    checkpoint: Path,
    prompts: Sequence[str],
    schedule: Schedule | None,
    *,
    cfg: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    auxiliary: Path | None = None,
    compile: bool = False,
) -> Image.Image:
    """Rows of guidance methods over one column per prompt (column i has seed + i), their cost per step in the titles.

    The schedule and the steps are the checkpoint's own recommendation where none are given; `cfg` is the scale of CFG
    beside it. ValueError for a checkpoint, a label, a schedule or a scale that does not fit.
    """
    network, spec = load(checkpoint)
    schedule = schedule or spec.schedule or constant(0.5, 0.9, 1.5)
    beside = cfg_of(cfg, schedule)
    refuse_unfit(checkpoint, spec, schedule)
    weak_network = weaker_denoiser(schedule.rule, auxiliary, spec) if RULES[schedule.rule].auxiliary else None
    steps = steps or spec.steps
    condition = torch.stack([label_weights(prompt, spec.labels) for prompt in prompts])
    shape = (spec.config.in_channels, spec.config.input_size, spec.config.input_size)
    denoiser = Denoiser(Compiled(network.float()) if compile else network.float(), spec.prediction)
    unguided_cost = step_cost(spec, UNGUIDED, 1).unguided
    pictures, rows = {}, compared_schedules(schedule, beside)
    with tqdm(total=steps * len(rows), desc="sampling") as bar:
        for name, compared in rows.items():
            cost = step_cost(spec, compared, steps, cfg=beside).total
            title = f"{name}: {cost / 1e6:.0f} MMAC per step, {cost / unguided_cost:.2f} of unguided"
            pictures[title] = sample(
                denoiser,
                condition,
                compared,
                shape=shape,
                steps=steps,
                seed=seed,
                cfg=beside,
                auxiliary=weak_network if RULES[compared.rule].auxiliary else None,
                callback=lambda *_: bar.update(),
            )
    return contact_sheet(pictures, scale=max(1, 128 // spec.config.input_size), columns=list(prompts))


def compared_schedules(schedule: Schedule, cfg: float = 1.0) -> dict[str, Schedule]:
    """Name of a row -> its schedule. CFG gets the schedule's own omega, so that only the rule differs, or the scale
    that it has beside the schedule."""
    omega, scale = schedule.omega.high, cfg if RULES[schedule.rule].beside_cfg else schedule.omega.high
    rates = f"{_first_to_last(schedule, 'strong')} / {_first_to_last(schedule, 'weak')}"
    rows = {"no guidance": UNGUIDED}
    if scale != 1:
        rows[f"CFG omega {scale:g}"] = constant(0, 0, scale, "CFG")
    beside = f", CFG {cfg:g}" if cfg != 1 else ""
    return rows | {f"{schedule.rule} omega {omega:g}{beside}, gamma {rates}": schedule}


def _first_to_last(schedule: Schedule, branch: str) -> str:
    curve = getattr(schedule, f"gamma_{branch}")
    return f"{curve(0):g}" if curve.low == curve.high else f"{curve(0):g} to {curve(1):g}"


def refuse_unfit(checkpoint: Path, spec: ModelSpec, schedule: Schedule) -> None:
    """CheckpointError for a model that does not make pixels of labels, or cannot leave out what the schedule does."""
    if spec.text is not None:
        raise CheckpointError(
            f"{checkpoint.name}: reads {spec.text.describe()}, which ComfyUI encodes; this command samples models of "
            "labels."
        )
    if spec.latent != "pixels":
        raise CheckpointError(
            f"{checkpoint.name}: makes latents of the '{spec.latent}' VAE, which needs ComfyUI to decode; "
            "this command shows models that make pixels."
        )
    if schedule.sparse and not spec.sparsity:
        raise CheckpointError(
            f"{checkpoint.name}: has no token route in its metadata, so nothing can be left out; use gammas of 0, or "
            "record the route that it was trained with: convert --route START END."
        )


def weaker_denoiser(rule: str, path: Path | None, spec: ModelSpec) -> Denoiser:
    """The weak branch of AG rules; ValueError if there is no second checkpoint, or it predicts something else."""
    if path is None:
        raise ValueError(f"{rule} needs a weaker second checkpoint of the same model; name it by --auxiliary.")
    network, other = load(path)
    if what := spec.unlike(other):
        raise CheckpointError(f"{path.name}: cannot be the weak branch of this model: {what}.")
    return Denoiser(network.float(), other.prediction)
