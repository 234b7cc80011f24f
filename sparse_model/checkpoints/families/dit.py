"""Checkpoints of facebookresearch/DiT, willisma/SiT and CompVis/tread, which share their keys."""

from ...method.prediction import EDM, Epsilon, Flow
from ...method.schedule import constant
from ...method.sparsity import Route, Sparsity
from ...networks.dit import DiTConfig
from ..clues import Clues
from ..spec import ModelSpec
from .guesses import heads_of, notes, side

# the routes of TREAD's published configurations (arXiv 2501.04765), by width
TREAD_ROUTES = {1152: Route(2, 24, 0.5), 768: Route(2, 8, 0.5)}
# what the authors' own sampling scripts do: CompVis/tread in 40 steps, DiT and SiT in 250
TREAD_SCHEDULE = constant(0.3, 0.7, 1.5)
DENSE_SCHEDULE = constant(0.0, 0.0, 4.0, "CFG")
CHANNELS = "Its authors' samples are guided in the first three of the four latent channels; here guidance acts on all"


def recognise(clues: Clues) -> ModelSpec | None:
    """A learned variance means DiT (noise prediction), or SiT if the file is called so. Without one it is a model of
    CompVis/tread: inside its EDM wrapper, as its training script saves it (keys model.*), or else a bare network of
    flow matching, which counts time from the data."""
    if not clues.have("x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight"):
        return None
    others = any(clues.have(key) for key in ("decoder_pos_embed", "fusion_proj.weight"))  # MaskDiT, SR-DiT
    if others or not clues.have("final_layer.linear.weight"):
        return None
    width, channels, patch, _ = clues.shape("x_embedder.proj.weight", 4)
    heads, guess = heads_of(width, DiTConfig)
    config = DiTConfig(
        input_size=side(clues, patch),
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=clues.layers("blocks."),
        heads=heads,
        mlp_ratio=clues.shape("blocks.0.mlp.fc1.weight", 2)[0] / width,
        num_classes=clues.shape("y_embedder.embedding_table.weight", 2)[0] - 1,
        learn_sigma=clues.shape("final_layer.linear.weight", 2)[0] // patch**2 == 2 * channels,
    )
    latent = "pixels" if channels == 3 else "sd"
    if config.learn_sigma:
        prediction = Flow(clean_time=1) if "sit" in clues.name.lower() else Epsilon()
        note = notes(CHANNELS if channels == 4 else "", guess)
        return ModelSpec("dit", config, prediction, latent=latent, schedule=DENSE_SCHEDULE, steps=250, note=note)
    prediction = EDM(sigma_data=0.5) if clues.wrappers[-1:] == ("model.",) else Flow()
    route = TREAD_ROUTES.get(width)
    if route is None:
        return ModelSpec("dit", config, prediction, latent=latent, note=guess)
    assumed = (
        f"The file records no route, so TREAD's published one for its width is assumed: {route.start} to {route.end}, "
        "half the tokens"
    )
    sparsity, note = Sparsity((route,)), notes(assumed, guess)
    return ModelSpec("dit", config, prediction, sparsity, latent=latent, schedule=TREAD_SCHEDULE, note=note)
