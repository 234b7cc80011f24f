"""The host's model classes for networks of `sparse_model`: sampling type, latent format, checks of what comes in."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models_base
import torch
from comfy.model_base import ModelType
from torch import Tensor

from ....sparse_model.checkpoints.metadata import RECORD, to_tensor
from ....sparse_model.checkpoints.spec import ModelSpec
from ....sparse_model.conditions.text import Text, TextSpec
from ....sparse_model.method.prediction import EDM, Epsilon, Flow, Prediction
from ....sparse_model.method.sparsity import Sparsity
from ..notices import begin, notices_of
from ..plain import plain
from ..wire import evaluation_of, touched, wrapped
from .batch import Batch
from .foreign import check_foreign
from .merged import about_merge
from .network import hosted


class Pixels(comfy.latent_formats.LatentFormat):
    """Pictures in [-1, 1] instead of latents: nothing to scale, and a preview is the picture itself."""

    latent_channels = 3
    spacial_downscale_ratio = 1
    latent_rgb_factors: ClassVar = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


class DCAE(comfy.latent_formats.LatentFormat):
    """Latents of the deep compression autoencoder of Sana (dc-ae-f32c32-sana-1.1), which the host has no VAE for."""

    latent_channels = 32
    spacial_downscale_ratio = 32
    scale_factor = 0.41407


class EQSDXL(comfy.latent_formats.LatentFormat):
    """Latents of EQ-SDXL-VAE, which is SDXL's trained further, with a mean and a deviation for each channel."""

    MEAN: ClassVar = (-3.865960634760459, -1.3353925720045965, 0.8353661802812418, 0.909888159310023)
    DEVIATION: ClassVar = (10.036514488374861, 6.848430044716239, 7.213817552213277, 5.591315799887989)

    def __init__(self):
        """A preview is that of SDXL, whose colours are those of latents at its own scale."""
        theirs = comfy.latent_formats.SDXL()
        colours, scale = torch.tensor(theirs.latent_rgb_factors), theirs.scale_factor
        mean, deviation = torch.tensor(self.MEAN), torch.tensor(self.DEVIATION)
        self.latent_rgb_factors = (scale * deviation.unsqueeze(1) * colours).tolist()
        self.latent_rgb_factors_bias = (torch.tensor(theirs.latent_rgb_factors_bias) + scale * mean @ colours).tolist()

    def process_in(self, latent: Tensor) -> Tensor:
        mean, deviation = (latent.new_tensor(values).view(1, 4, 1, 1) for values in (self.MEAN, self.DEVIATION))
        return (latent - mean) / deviation

    def process_out(self, latent: Tensor) -> Tensor:
        mean, deviation = (latent.new_tensor(values).view(1, 4, 1, 1) for values in (self.MEAN, self.DEVIATION))
        return latent * deviation + mean


class KLF8D16(comfy.latent_formats.LatentFormat):
    """Latents of ostris/vae-kl-f8-d16, an autoencoder of MicroDiT."""

    latent_channels = 16
    scale_factor = 0.2614


class INVAE(comfy.latent_formats.LatentFormat):
    """Latents of REPA-E's INVAE, the autoencoder of SR-DiT, and three channels that hold its class token."""

    latent_channels = 35
    spacial_downscale_ratio = 16
    scale_factor = 0.3099


LATENT_FORMATS = {
    "pixels": Pixels,
    "sd": comfy.latent_formats.SD15,
    "sdxl": comfy.latent_formats.SDXL,
    "flux": comfy.latent_formats.Flux,
    "dcae": DCAE,
    "eq-sdxl": EQSDXL,
    "kl-f8-d16": KLF8D16,
    "invae": INVAE,
}
CAMERA = {"x_shift": 0.0, "y_shift": 0.0, "zoom": 1.0}
"""Keys of a conditioning that move the camera of a network that has one, and where they leave it."""
MODEL_TYPES = {Flow: ModelType.FLOW, Epsilon: ModelType.EPS, EDM: ModelType.EDM}

ROUTE = "token_route"
"""Token Route's entry in transformer_options."""


MANY = 4
"""How many times the trained number of tokens, or how small a part of it, is worth a word."""


STOCK_RATIO = 8
"""By what the host's nodes divide a size in pixels that they are told."""


class Sizes(dict):
    """What the host's nodes look up about a model; ValueError where they ask for what only U-Nets have (FreeU)."""

    def __missing__(self, key: str) -> None:
        raise ValueError(
            f"This node asks for the {key.replace('_', ' ')} of a U-Net (SD 1.5, SDXL), but the model is a transformer "
            "and has none: connect the model to the next node directly."
        )


class Config(comfy.supported_models_base.BASE):
    """What the host wants to know of a model before it makes one."""

    unet_extra_config: ClassVar = {}

    def __init__(self, spec: ModelSpec):
        self.latent_format = LATENT_FORMATS[spec.latent]
        super().__init__({"spec": spec})
        self.unet_config = Sizes(self.unet_config)
        self.sampling_settings = _sampling_settings(spec.prediction)
        # The host's estimate is per latent pixel; relative to Flux, whose factor is 2.8 at width 3072 and patch 2.
        self.memory_usage_factor = 2.8 * spec.config.width / 3072 * 4 / spec.config.patch_size**2

    def get_model(self, state_dict: dict, prefix: str = "", device: Any = None) -> "SparseModel":
        return SparseModel(self, device)

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The host's Save nodes keep no metadata of a file; without it a merged model would be taken for another."""
        record = {} if RECORD in state_dict else {RECORD: to_tensor(self.unet_config["spec"])}
        return super().process_unet_state_dict_for_saving({**state_dict, **record})


class SparseModel(comfy.model_base.BaseModel):
    """A token-sparse network as the host samples it; `spec` says what it is."""

    def __init__(self, config: Config, device: Any = None):
        spec = config.unet_config["spec"]
        super().__init__(config, MODEL_TYPES[type(spec.prediction)], device, hosted(spec.architecture))
        self.spec = spec
        self.eval().requires_grad_(False)
        if isinstance(spec.prediction, Epsilon):
            self.model_sampling.set_sigmas(spec.prediction.table())
        if spec.prediction.noise_scale != 1 and not hasattr(self.model_sampling, "noise_scale"):
            self.model_sampling = with_noise_scale(self.model_sampling, config, spec.prediction.noise_scale)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Checks what is about to be sampled, before the first step: an artist reads one sentence, not a shape."""
        check_latent(self.spec, kwargs["noise"].shape, kwargs.get("area"))
        camera = camera_of(self.spec, kwargs)
        if self.spec.text is None:
            check_condition(self.spec, kwargs.get("cross_attn"))
            return super().extra_conds(**kwargs)
        text = fitted_text(self.spec.text, kwargs.pop("cross_attn", None), kwargs.pop("attention_mask", None))
        conditions = {"c_crossattn": text.embeddings, "attention_mask": text.mask, "camera": camera}
        return {
            **super().extra_conds(**kwargs),
            **{name: comfy.conds.CONDRegular(value) for name, value in conditions.items() if value is not None},
        }

    def _apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},  # noqa: B006, the host's own signature
        **kwargs: Any,
    ) -> Tensor:
        """Draws the kept tokens in front of the network, which the host may have compiled."""
        patcher = self.current_patcher
        network = plain(self, {} if patcher is None else patcher.object_patches_backup, "diffusion_model")
        check_foreign(transformer_options, control, notices_of(transformer_options).say)
        with network.called(route_of(transformer_options, self.spec), transformer_options):
            kwargs["batch"] = Batch(
                evaluation_of(transformer_options, x, t).prepare(network, x),
                rows=len(x),
                sigma=t,
                sampling=self.model_sampling,
                linear=isinstance(self.spec.prediction, Flow),
                doubted=touched(transformer_options),
                wrapped=wrapped(transformer_options),
            )
            return super()._apply_model(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)


def route_of(transformer_options: dict[str, Any], spec: ModelSpec) -> Sparsity:
    """Where a model is token-sparse: as Token Route says, or else its file."""
    return transformer_options.get(ROUTE, spec.sparsity)


def with_noise_scale(sampling: Any, config: Config, scale: float) -> Any:
    """The sampling of a model whose noise is `scale` times as strong, for hosts that do not know such models."""

    class ScaledNoise(type(sampling)):
        def noise_scaling(self, sigma: Any, noise: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
            return super().noise_scaling(sigma, noise * scale, *rest, **options)

    return ScaledNoise(config)


def spec_of(model: Any) -> ModelSpec | None:
    """The spec of a MODEL's checkpoint, or None for a MODEL that Sparse Model Loader did not make."""
    return model.model.spec if isinstance(model.model, SparseModel) else None


def check_latent(spec: ModelSpec, shape: torch.Size, area: tuple[int, ...] | None = None) -> None:
    """ValueError if a latent [B, C, H, W], or an area (height, width, ...) of it, does not fit the network."""
    channels, patch = spec.config.in_channels, spec.config.patch_size
    token = getattr(spec.config, "class_channels", 0)
    encoded = ", or encode an image with a VAE of this model"
    other = f": {token} of them hold its class token, which no VAE encodes" if token else encoded
    unit = "pixels" if spec.ratio == 1 else f"latent pixels ({spec.ratio} image pixels each)"
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(
            f"The latent has {shape[1]} channels in {len(shape)} dimensions but this model works on {channels} in 4; "
            f"make it with Empty Sparse Latent{other}."
        )
    if token and area is not None:
        raise ValueError(
            "The conditioning has an area, but this model's class token is that of a whole picture; take Conditioning "
            "(Set Area) out."
        )
    sizes = [("latent", shape[2:])] + ([("area of a condition", area[:2])] if area is not None else [])
    for name, (height, width) in sizes:
        if height % patch or width % patch:
            fractions = f" (as fractions: of {patch / shape[3]:.4g} and {patch / shape[2]:.4g})"
            raise ValueError(
                f"The {name} is {width} x {height} but this model cuts it into patches of {patch}; use a width and "
                f"height that are multiples of {patch} {unit}{'' if name == 'latent' else fractions}."
                f"{about_stock_nodes(spec)}"
            )


def begin_run(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE wrapper of every model of this pack: what is worth a word before the first step."""
    guider = executor.class_obj
    spec, notices = spec_of(guider.model_patcher), begin(guider.model_options)
    check_latent(spec, noise.shape)  # a size is worth no word if the latent is another model's
    conditions = getattr(guider, "conds", {})
    words = about_size(spec, noise.shape), about_areas(spec, conditions), about_merge(guider.model_patcher)
    for sentence in filter(None, words):
        notices.say(sentence)
    return executor(noise, *args, **kwargs)


def about_size(spec: ModelSpec, shape: torch.Size) -> str | None:
    """How many tokens a latent [B, C, H, W] is, if that is far more than the model was trained at, or far less where
    the host's nodes make smaller latents than they are told."""
    trained, side = spec.config.tokens(*[spec.config.input_size] * 2), spec.config.input_size * spec.ratio
    tokens, (height, width) = spec.config.tokens(*shape[-2:]), (length * spec.ratio for length in shape[-2:])
    large, small = tokens > MANY * trained, shrunk(spec, *shape[-2:])
    if not (large or small):
        return None
    stock = about_stock_nodes(spec) if small or spec.ratio > STOCK_RATIO else ""
    return (
        f"{width} x {height} pixels are {tokens} token{'' if tokens == 1 else 's'}; this model was trained at "
        f"{side} x {side} ({trained} tokens), so {'every step will take long and ' if large else ''}the picture may "
        f"not look right.{stock} Width and height 0 in Empty Sparse Latent are the trained size."
    )


def about_areas(spec: ModelSpec, conditions: Mapping[str, list[dict[str, Any]]]) -> str | None:
    """The first area of a condition that comes out far smaller than what the model was trained at, where the host's
    nodes make smaller ones than they are told. Areas in fractions come out as told."""
    areas = (each.get("area") for given in conditions.values() for each in given)
    for height, width, *_ in (area for area in areas if area and area[0] != "percentage"):
        if shrunk(spec, height, width):
            side = spec.config.input_size
            return (
                f"The area of a condition is {width} x {height} pixels; this model was trained at {side} x {side}, so "
                f"the picture may not look right there.{about_stock_nodes(spec)}"
            )
    return None


def shrunk(spec: ModelSpec, height: int, width: int) -> bool:
    """Whether a latent is far smaller than the trained one and a node of the host may have made it so."""
    trained = spec.config.tokens(*[spec.config.input_size] * 2)
    return spec.ratio < STOCK_RATIO and MANY * spec.config.tokens(height, width) < trained


def about_stock_nodes(spec: ModelSpec) -> str:
    """What to type into nodes of the host that divide a size by another number than the model; nothing if by its."""
    if spec.ratio == STOCK_RATIO:
        return ""
    return (
        f" Stock nodes that are told a size in pixels (Upscale Latent, Conditioning (Set Area)) divide it by "
        f"{STOCK_RATIO}, this model by {spec.ratio}: type {STOCK_RATIO / spec.ratio:g} times the size there, or take a "
        "node that is told a factor (Upscale Latent By, Conditioning (Set Area with Percentage))."
    )


def check_condition(spec: ModelSpec, condition: torch.Tensor | None) -> None:
    """ValueError unless a condition is label weights [B, n, classes] of this model, or None, the null condition."""
    classes = spec.config.num_classes
    if condition is not None and (condition.ndim != 3 or condition.shape[-1] != classes):
        raise ValueError(
            f"The conditioning has {condition.shape[-1]} channels but this class-conditional model knows {classes} "
            "labels; make it with Sparse Class Condition from this model."
        )


def camera_of(spec: ModelSpec, conditioning: dict[str, Any]) -> Tensor | None:
    """What a conditioning says of the camera, [1, 3] as the network takes it, or None for a network without one.

    ValueError if such a network is given a camera, or if the camera sees nothing.
    """
    values = [float(conditioning.get(name, default)) for name, default in CAMERA.items()]
    if not getattr(spec.config, "camera", False):
        if any(name in conditioning for name in CAMERA):
            raise ValueError(
                "The conditioning moves a camera, which this model does not have; take Sparse Camera Condition out."
            )
        return None
    if not all(map(math.isfinite, values)):
        raise ValueError(f"The camera's shifts and zoom must be numbers, not {', '.join(f'{v:g}' for v in values)}.")
    if not values[2] > 0:
        raise ValueError(f"The camera's zoom is {values[2]:g}; use a number above 0, 1 for the whole picture.")
    return torch.tensor([values])


def fitted_text(spec: TextSpec, embeddings: torch.Tensor | None, mask: torch.Tensor | None) -> Text:
    """The host's conditioning as the text of a model: every condition of one length, so that branches share a batch.

    Without a mask every token counts, as do the tokens that Conditioning (Concat) adds behind a mask. ValueError if it
    comes from another text encoder, or is missing where the model has no null condition of its own.
    """
    if embeddings is None:
        if spec.null == "zeros":
            return spec.zeros()
        raise ValueError("This model is conditioned on text: connect a prompt encoded with CLIP Text Encode.")
    known = embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool)
    if mask is not None:
        count = min(mask.shape[-1], known.shape[1])
        known[:, :count] = mask.reshape(-1, mask.shape[-1])[:, :count].to(known)
    return spec.fit(Text(embeddings, known))


def _sampling_settings(prediction: Prediction) -> dict[str, Any]:
    if isinstance(prediction, EDM):
        return {name: getattr(prediction, name) for name in ("sigma_data", "sigma_min", "sigma_max")}
    if isinstance(prediction, Flow):
        return {"shift": prediction.shift, "noise_scale": prediction.noise_scale}
    return {}
