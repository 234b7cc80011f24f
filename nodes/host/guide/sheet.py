"""Many small samplings of one seed, one after another, for people to look at side by side."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.utils
import latent_preview
import numpy as np
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from PIL import Image
from torch import Tensor

from ....sparse_model.cost import Cost
from ....sparse_model.method.branches import Branch
from ....sparse_model.method.guidance import RULES
from ....sparse_model.method.schedule import Schedule, constant
from ....sparse_model.method.sparsity import Route, Sparsity
from ..adapters import adapter_of
from ..cost import share_of_unguided, step_costs
from ..notices import begin
from .evaluations import evaluations_of
from .guider import SparseGuider
from .progress import Progress
from .sampling import fitting, sample_latent, steps_of
from .telling import untold
from .timing import now, unguided_seconds

TIMED = "sparse_guidance_sheet"
"""The name of our wrapper."""
FEW = 20
"""Steps in which a sampler shows how often it evaluates the model at each."""


@dataclass(frozen=True)
class Setting:
    """What one picture of a sheet is sampled with; without a route it has the model's own."""

    schedule: Schedule
    steps: int
    cfg: float = 1.0
    route: tuple[int, int] | None = None

    @property
    def settled(self) -> "Setting":
        """Without a scale that its rule does not use: two settings that differ in nothing else are one."""
        return self if RULES[self.schedule.rule].beside_cfg else replace(self, cfg=1.0)


@dataclass(frozen=True)
class Picture:
    """What came of a setting: its latent, its multiply-adds against those of no guidance, the seconds it took."""

    latent: Tensor
    cost: float | None
    seconds: float


def cfg_alone(scale: float, steps: int) -> Setting:
    """Plain CFG, every token; at a scale of 1 no guidance."""
    return Setting(constant(0.0, 0.0, scale, "CFG"), steps)


@dataclass
class Sheet:
    """Samplings of the first picture of a latent; none is made twice, and what is to be said of several is said once.

    `sampling` are the seed and what else `sample_latent` wants but for the steps.
    """

    model: ModelPatcher
    positive: list
    negative: list | None
    weak_model: ModelPatcher | None
    latent: dict[str, Any]
    sampling: dict[str, Any]
    made: dict[Setting, Picture] = field(default_factory=dict)
    _routed: dict[tuple[int, int] | None, ModelPatcher] = field(default_factory=dict)
    _moments: dict[int, tuple[float, ...]] = field(default_factory=dict)
    _rates: dict[int, float] = field(default_factory=dict)

    def __post_init__(self):
        self.model = self.model.clone()
        begin(self.model.model_options)
        alone = dict(self.latent)
        for name in ("samples", "noise_mask", "batch_index"):
            if alone.get(name) is not None:
                alone[name] = alone[name][:1]
        self.latent = alone

    def guider(self, setting: Setting) -> SparseGuider:
        """ValueError in one sentence where a setting cannot be sampled."""
        auxiliary = self.weak_model if RULES[setting.schedule.rule].auxiliary else None
        # at a scale of 1 nothing is guided away from, but the rule names a negative all the same
        away = self.positive if setting == cfg_alone(1.0, setting.steps) else self.negative
        return SparseGuider(self._model(setting), setting.schedule, self.positive, away, auxiliary, setting.cfg)

    def make(self, settings: Iterable[Setting]) -> None:
        """Samples what has not been made, under one progress bar. An interrupt is heard after every step."""
        wanted = [setting for setting in dict.fromkeys(settings) if setting not in self.made]
        total, done = sum(len(self.moments(setting)) for setting in wanted), 0
        logging.info("Sparse Guidance Sheet: %d pictures, %d steps.", len(wanted), total)
        bar = comfy.utils.ProgressBar(total)
        previewer = latent_preview.get_previewer(self.model.load_device, self.model.model.latent_format)
        for number, setting in enumerate(wanted):
            comfy.model_management.throw_exception_if_processing_interrupted()
            self.made[setting] = self._sampled(setting, _reporter(bar, previewer, done, total))
            done += len(self.moments(setting))
            if number == 0 and total > done:
                left = self.made[setting].seconds / done * (total - done)
                logging.info(
                    "Sparse Guidance Sheet: about %s more, and longer where guidance costs more.", duration(left)
                )

    def seconds(self, settings: list[Setting]) -> float:
        """How long one of these will take on average, from a step without guidance and their multiply-adds."""
        step = unguided_seconds(self.model, self.positive, self._shape)
        total = sum((self.cost(setting) or 1.0) * self.evaluations(setting) for setting in settings)
        return step * total / len(settings)

    def moments(self, setting: Setting) -> tuple[float, ...]:
        """Progress at every step of a setting; there is none at a denoise of 0."""
        if setting.steps not in self._moments:
            progress = Progress(self.model.get_model_object("model_sampling"))
            sigmas = self._steps(setting.steps).sigmas.tolist()
            self._moments[setting.steps] = tuple(map(progress, sigmas[:-1]))
        return self._moments[setting.steps]

    def evaluations(self, setting: Setting) -> float:
        """How many a setting takes, of many steps as many as so few show."""
        steps = min(setting.steps, FEW)
        if steps not in self._rates:
            plan = self._steps(steps)
            self._rates[steps] = evaluations_of(plan) / max(len(plan.sigmas) - 1, 1)
        return self._rates[steps] * len(self.moments(setting))

    def _steps(self, steps: int) -> comfy.samplers.KSampler:
        return steps_of(self.model, steps, **{name: value for name, value in self.sampling.items() if name != "seed"})

    def cost(self, setting: Setting, ran: Mapping[tuple[Branch, ...], int] | None = None) -> float | None:
        """Multiply-adds of what `ran`, or as long as nothing has of one evaluation at every step, as a share of no
        guidance; None for networks that nobody can count, and where there is nothing to count."""
        model = self._model(setting)
        if not (ran or self.moments(setting)):
            return None
        try:
            text = adapter_of(model).text_tokens(self.positive)
        except ValueError:
            return None
        weak = self.weak_model if RULES[setting.schedule.rule].auxiliary else None
        if ran:
            return share_of_unguided(model, ran, self._shape, text, weak_model=weak)
        moments = self.moments(setting)
        steps = step_costs(model, setting.schedule, moments, self._shape, text, setting.cfg, weak_model=weak)
        mean = Cost.mean(step.cost for step in steps)
        return mean.total / mean.unguided

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(fitting(self.model, self.latent).shape)

    def _model(self, setting: Setting) -> ModelPatcher:
        """The model with a setting's route; one that has none and needs one gets the short one."""
        key = setting.route if setting.schedule.sparse else None
        if setting.schedule.sparse and key is None and not adapter_of(self.model).sparsity:
            short = adapter_of(self.model).short_route.routes[0]
            key = short.start, short.end
        if key not in self._routed:
            routed = None if key is None else Sparsity((Route(*key),))
            self._routed[key] = self.model if routed is None else adapter_of(self.model).routed(routed)
        return self._routed[key]

    def _sampled(self, setting: Setting, callback: Callable[..., None]) -> Picture:
        guider, took = self.guider(setting), []
        untold(guider)  # its cost stands under its picture

        def timed(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
            started = now(guider.model_patcher.load_device)
            output = executor(*args, **kwargs)
            took.append(now(guider.model_patcher.load_device) - started)
            return output

        # loading the model is no part of it
        guider.model_patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, TIMED, timed)
        found = sample_latent(guider, self.latent, steps=setting.steps, callback=callback, **self.sampling)
        return Picture(found["samples"].cpu(), self.cost(setting, guider.ran), sum(took))


def route_of(model: ModelPatcher) -> tuple[int, int]:
    """The ends of a model's first route, or of the short one where it has none."""
    adapter = adapter_of(model)
    routes = adapter.sparsity.routes or adapter.short_route.routes
    layers = routes[0].layers(adapter.depth)
    return layers.start, layers.stop - 1


def rerouted(model: ModelPatcher, setting: Setting, **ends: int) -> Setting:
    """The setting with another start or end of its route."""
    start, end = setting.route or route_of(model)
    return replace(setting, route=(ends.get("start", start), ends.get("end", end)))


def decoded(vae: Any, latent: Tensor) -> Image.Image:
    """A picture out of a latent [1, C, ...]; of a video the frame in the middle."""
    pixels = vae.decode(latent)
    frames = pixels.reshape(-1, *pixels.shape[-3:])  # [B, (frames,) H, W, C]
    picture = frames[len(frames) // 2].clamp(0, 1).mul(255).byte().cpu().numpy()  # rounded as the host saves it
    return Image.fromarray(np.ascontiguousarray(picture[..., :3]))


def duration(seconds: float) -> str:
    """In the two largest units that matter."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _reporter(bar: Any, previewer: Any, done: int, total: int) -> Callable[..., None]:
    def report(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        preview = previewer.decode_latent_to_preview_image("JPEG", denoised) if previewer else None
        bar.update_absolute(done + step + 1, total, preview)

    return report
