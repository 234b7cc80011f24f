"""What a training run is: one frozen record, saved beside its checkpoints, and the ready ones of the demo models."""

from dataclasses import dataclass, field

from ..models.dit import DiTConfig
from ..sparsity import Route, Sparsity

EMOJI = ("twemoji", "noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji", "emojione", "fxemoji", "streamline-emojis")
PICTURES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects", "Smileys & Emotion")


@dataclass(frozen=True)
class TrainConfig:
    """`steps` of `batch` pictures; the rate warms up, stays, and falls to zero over the last `decay` steps, so a run
    may be continued with more steps. `filters` go to data.load_packed. `early` is the step whose weights are kept for
    AutoGuidance."""

    network: DiTConfig
    sparsity: Sparsity = field(default_factory=Sparsity)
    output: str = "data"
    time_scale: float = 1.0
    filters: dict = field(default_factory=dict)
    title: str = ""
    steps: int = 10_000
    batch: int = 128
    rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 200
    decay: int = 2_000
    ema: float = 0.999
    noise_mean: float = 0.0
    noise_spread: float = 1.0
    label_drop: float = 0.1
    mae: float = 0.0
    held_out: int = 256
    early: int = 2_000
    precision: str = "no"
    compile: bool = False
    seed: int = 0


CONFIGS: dict[str, TrainConfig] = {
    "icons-32": TrainConfig(
        network=DiTConfig(input_size=32, patch_size=4, in_channels=3, width=160, depth=12, heads=4),
        sparsity=Sparsity((Route(1, -2, 0.5),)),
        filters={"sets": EMOJI, "categories": PICTURES, "min_sets": 4, "min_count": 4},
        title="Icons 32 px, token-routed DiT",
    ),
}
