"""DiT and SiT, class-conditional diffusion transformers (arXiv 2212.09748, 2401.08740), with TREAD routes.

Keys are those of facebookresearch/DiT, SiT and CompVis/tread checkpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..method.branches import DENSE, Evaluation, Prepared
from ..method.prediction import Epsilon, Flow
from ..method.schedule import constant
from ..method.sparse_pass import run_layers
from ..method.sparsity import Route, Sparsity
from .layers import (
    TORCH,
    AdaLNBlock,
    AdaLNLinear,
    Backend,
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    TransformerConfig,
    count_layers,
    sincos_positions,
    unpatchify,
)

# the routes of TREAD's published configurations (arXiv 2501.04765), by width
TREAD_ROUTES = {1152: Route(2, 24, 0.5), 768: Route(2, 8, 0.5)}
# what the authors' own sampling scripts do: CompVis/tread in 40 steps, DiT and SiT in 250
TREAD_SCHEDULE = constant(0.3, 0.7, 1.5)
DENSE_SCHEDULE = constant(0.0, 0.0, 4.0, "CFG")


@dataclass(frozen=True)
class DiTConfig(TransformerConfig):
    learn_sigma: bool = False


class DiT(nn.Module):
    def __init__(self, config: DiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, patch = config.width, config.patch_size
        self.x_embedder = PatchEmbed(backend, config.in_channels, patch, width)
        self.t_embedder = TimestepEmbedder(backend, width)
        self.y_embedder = LabelEmbedder(backend, config.num_classes, width)
        self.pos_embed = backend.parameter(1, config.grid**2, width)
        self.blocks = nn.ModuleList(
            AdaLNBlock(backend, width, config.heads, config.mlp_ratio, width) for _ in range(config.depth)
        )
        outputs = config.in_channels * (2 if config.learn_sigma else 1)
        self.final_layer = AdaLNLinear(backend, width, patch**2 * outputs, width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y [N, classes] -> [N, C, H, W]; a learned variance is dropped."""
        evaluation = evaluation.prepare(self, x)
        x, t, y = evaluation.distinct(x, t, y)
        patch, channels = self.config.patch_size, x.shape[1]
        height, length = x.shape[2] // patch, x.shape[3] // patch
        h = self.x_embedder(x) + self.positions(height, length).to(x)  # [U * B, T, D]
        c = (self.t_embedder(t, x.dtype) + self.y_embedder(y).to(x.dtype)).unsqueeze(1)  # [U * B, 1, D]
        h, c = run_layers(self.blocks, self.sparsity, evaluation, h, per_sample=(c,))  # [N, T, D]
        return unpatchify(self.final_layer(h, c), height, length, patch)[:, :channels]

    def positions(self, height: int, length: int) -> Tensor:
        """[1, height * length, D]: the checkpoint's own table at its own size, computed for any other."""
        grid = self.config.grid
        if height == length == grid:
            return self.pos_embed
        return sincos_positions(self.config.width, height, length, grid)


def infer(shapes: Mapping[str, tuple[int, ...]], name: str) -> dict[str, Any] | None:
    """Sizes from shapes. A learned variance means DiT (noise prediction), or SiT if the file is called so; without
    one it is a CompVis/tread model, which counts time from the data."""
    wanted = ("x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight", "final_layer.linear.weight")
    if any(key not in shapes for key in wanted) or "decoder_pos_embed" in shapes:
        return None
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    outputs = shapes["final_layer.linear.weight"][0] // patch**2
    known = {size[0]: size[2] for size in DiTConfig.SIZES.values()}
    config = DiTConfig(
        input_size=round(shapes["pos_embed"][1] ** 0.5) * patch,
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=count_layers(shapes, "blocks."),
        heads=known.get(width, max(width // 64, 1)),
        mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
        num_classes=shapes["y_embedder.embedding_table.weight"][0] - 1,
        learn_sigma=outputs == 2 * channels,
    )
    found = {"config": config, "latent": "pixels" if channels == 3 else "sd"}
    if config.learn_sigma:
        prediction = Flow(clean_time=1) if "sit" in name.lower() else Epsilon()
        return {**found, "prediction": prediction, "schedule": DENSE_SCHEDULE, "steps": 250}
    route = TREAD_ROUTES.get(width)
    if route is None:
        return {**found, "prediction": Flow()}
    return {
        **found,
        "prediction": Flow(),
        "sparsity": Sparsity((route,)),
        "schedule": TREAD_SCHEDULE,
        "note": f"The file records no route, so TREAD's published one for its width is assumed: {route.start} to "
        f"{route.end}, half the tokens",
    }
