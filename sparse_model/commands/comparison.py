"""The picture that tells the story: the same seeds without guidance, under CFG and under Sparse Guidance."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..checkpoints.bundled import DEFAULT, earlier  # noqa: F401
from ..checkpoints.checkpoint import CheckpointError, load
from ..checkpoints.spec import ModelSpec
from ..conditions.labels import label_weights
from ..cost import step_cost
from ..method.guidance import RULES
from ..method.sampling import Compiled, Denoiser, sample
from ..method.schedule import Schedule, constant
from ..pictures.image import contact_sheet


def rows_of(schedule: Schedule) -> dict[str, Schedule]:
    """The rows to compare: CFG gets the guided row's own omega, so that only the rule differs."""
    name = (
        f"{schedule.rule} omega {schedule.omega.high:g}, gamma {_span(schedule, 'strong')} / {_span(schedule, 'weak')}"
    )
    return {
        "no guidance": constant(0, 0, 1, "CFG"),
        f"CFG omega {schedule.omega.high:g}": constant(0, 0, schedule.omega.high, "CFG"),
        name: schedule,
    }


def _span(schedule: Schedule, branch: str) -> str:
    curve = getattr(schedule, f"gamma_{branch}")
    return f"{curve(0):g}" if curve.low == curve.high else f"{curve(0):g} to {curve(1):g}"


def tell(
    checkpoint: Path,
    prompts: Sequence[str],
    schedule: Schedule | None,
    *,
    steps: int | None = None,
    seed: int = 0,
    auxiliary: Path | None = None,
    compile: bool = False,
) -> Image.Image:
    """Rows of guidance methods over one column per prompt (column i has seed + i), their cost per step in the titles.

    The schedule and the steps are the checkpoint's own recommendation where none are given. ValueError for a
    checkpoint, a label or a schedule that does not fit.
    """
    network, spec = load(checkpoint)
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
    schedule = schedule or spec.schedule or constant(0.5, 0.9, 1.5)
    if schedule.sparse and not spec.sparsity:
        raise CheckpointError(
            f"{checkpoint.name}: has no token route in its metadata, so nothing can be left out; use gammas of 0, or "
            "record the route that it was trained with: convert --route START END."
        )
    helper = _auxiliary(auxiliary or earlier(checkpoint), spec, schedule)
    steps = steps or spec.steps
    condition = torch.stack([label_weights(prompt, spec.labels) for prompt in prompts])
    shape = (spec.config.in_channels, spec.config.input_size, spec.config.input_size)
    rows = {}
    main = Denoiser(Compiled(network.float()) if compile else network.float(), spec.prediction)
    dense = step_cost(spec, constant(0, 0, 1, "CFG"), 1).unguided
    plans = rows_of(schedule)
    with tqdm(total=steps * len(plans), desc="sampling") as bar:
        for name, plan in plans.items():
            cost = step_cost(spec, plan, steps).total
            pictures = sample(
                main,
                condition,
                plan,
                shape=shape,
                steps=steps,
                seed=seed,
                auxiliary=helper if RULES[plan.rule].auxiliary else None,
                callback=lambda *_: bar.update(),
            )
            rows[f"{name}: {cost / 1e6:.0f} MMAC per step, {cost / dense:.2f} of unguided"] = pictures
    return contact_sheet(rows, scale=max(1, 128 // spec.config.input_size), columns=list(prompts))


def _auxiliary(path: Path | None, spec: ModelSpec, schedule: Schedule) -> Denoiser | None:
    if not RULES[schedule.rule].auxiliary:
        return None
    if path is None:
        raise ValueError(f"{schedule.rule} needs a weaker second checkpoint of the same model; name it by --auxiliary.")
    network, other = load(path)
    if (other.architecture, other.config, other.labels) != (spec.architecture, spec.config, spec.labels):
        raise CheckpointError(f"{path.name}: is not a checkpoint of the same network, so it cannot be its weak branch.")
    return Denoiser(network.float(), other.prediction)
