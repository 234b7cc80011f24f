"""Checkpoints of facebookresearch/DiT, willisma/SiT and CompVis/tread, which share their keys."""

from ...method.prediction import Epsilon, Flow
from ...method.schedule import constant
from ...method.sparsity import Route, Sparsity
from ...networks.dit import DiTConfig
from ..clues import Clues
from ..spec import ModelSpec

# the routes of TREAD's published configurations (arXiv 2501.04765), by width
TREAD_ROUTES = {1152: Route(2, 24, 0.5), 768: Route(2, 8, 0.5)}
# what the authors' own sampling scripts do: CompVis/tread in 40 steps, DiT and SiT in 250
TREAD_SCHEDULE = constant(0.3, 0.7, 1.5)
DENSE_SCHEDULE = constant(0.0, 0.0, 4.0, "CFG")
HEADS = {width: heads for width, _, heads in DiTConfig.SIZES.values()}


def recognise(clues: Clues) -> ModelSpec | None:
    """A learned variance means DiT (noise prediction), or SiT if the file is called so; without one it is a model of
    CompVis/tread, which counts time from the data."""
    shapes = clues.shapes
    if not clues.have("x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight"):
        return None
    if not clues.have("final_layer.linear.weight") or "decoder_pos_embed" in shapes:
        return None
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    config = DiTConfig(
        input_size=round(shapes["pos_embed"][1] ** 0.5) * patch,
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=clues.layers("blocks."),
        heads=HEADS.get(width, max(width // 64, 1)),
        mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
        num_classes=shapes["y_embedder.embedding_table.weight"][0] - 1,
        learn_sigma=shapes["final_layer.linear.weight"][0] // patch**2 == 2 * channels,
    )
    latent = "pixels" if channels == 3 else "sd"
    if config.learn_sigma:
        prediction = Flow(clean_time=1) if "sit" in clues.name.lower() else Epsilon()
        return ModelSpec("dit", config, prediction, latent=latent, schedule=DENSE_SCHEDULE, steps=250)
    route = TREAD_ROUTES.get(width)
    if route is None:
        return ModelSpec("dit", config, Flow(), latent=latent)
    return ModelSpec(
        "dit",
        config,
        Flow(),
        Sparsity((route,)),
        latent=latent,
        schedule=TREAD_SCHEDULE,
        note=f"The file records no route, so TREAD's published one for its width is assumed: {route.start} to "
        f"{route.end}, half the tokens",
    )
