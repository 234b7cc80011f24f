"""What a training run is: one frozen record, saved beside its checkpoints, and the ready ones of the demo models."""

from dataclasses import dataclass, field, fields, replace

from ..method.sparsity import Route, Sparsity
from ..networks.dit import DiTConfig
from ..networks.maskdit import MaskDiTConfig
from .augment import Augmentation
from .limits import check, parsed

EMOJI = ("twemoji", "noto", "noto-v1", "fluent-emoji-flat", "emojione")
SUBJECTS = (  # without the sets of logos, whose subjects nobody else draws
    *EMOJI, "fluent-emoji", "fxemoji", "streamline-emojis", "circle-flags", "cif", "flag", "flagpack",
    "flat-color-icons", "flat-ui", "fluent-color", "glyphs-poly",
    "icon-park", "marketeq", "meteocons", "streamline-color", "streamline-cyber-color", "streamline-flex-color",
    "streamline-freehand-color", "streamline-kameleon-color", "streamline-plump-color", "streamline-sharp-color",
    "streamline-stickies-color", "streamline-ultimate-color",
)  # fmt: skip
PICTURES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Smileys & Emotion")

PARTS = ("network", "augmentation")  # settings that have settings of their own


@dataclass(frozen=True)
class TrainConfig:
    """`steps` of `batch` pictures; the rate warms up, stays, and falls to zero over the last `decay` steps, so a run
    may be continued with more steps. `filters` go to data.load_packed. `start` is a bundled checkpoint, or a path,
    whose weights the run begins with. `label_drop` is how often a picture goes without any label, `word_drop` how often
    each of its labels is left out besides. `early` is the step whose weights are kept for AutoGuidance. `mae` weighs
    the reconstruction of masked patches in training by masking."""

    network: DiTConfig | MaskDiTConfig
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
    start: str = ""
    label_drop: float = 0.1
    word_drop: float = 0.0
    augmentation: Augmentation = Augmentation()
    mae: float = 0.0
    held_out: int = 256
    early: int = 2_000
    precision: str = "no"
    compile: bool = False
    seed: int = 0


ICONS_64 = TrainConfig(
    network=DiTConfig(input_size=64, patch_size=8, in_channels=3, width=256, depth=11, heads=4),
    sparsity=Sparsity((Route(1, -2, 0.5),)),
    filters={"sets": SUBJECTS, "min_count": 6},
    title="Icons 64 px, token-routed DiT",
    time_scale=1000.0,
    noise_mean=0.5,
    rate=2e-3,
    warmup=300,
    weight_decay=0.1,
    word_drop=0.1,
    augmentation=Augmentation(mirror=0.5, scale=0.2, shift=0.1, hue=0.1, saturation=0.1),
    batch=2048,
    steps=8_300,
    decay=3_700,
    ema=0.998,
    early=0,
    held_out=800,
    precision="bf16",
    compile=True,
)

CONFIGS: dict[str, TrainConfig] = {
    # 16 tokens and 3.8 M parameters: what two CPU cores train in two hours, without bfloat16 units
    "icons-32": TrainConfig(
        network=DiTConfig(input_size=32, patch_size=8, in_channels=3, width=128, depth=12, heads=4),
        sparsity=Sparsity((Route(1, -2, 0.5),)),
        filters={"sets": EMOJI, "categories": PICTURES, "min_sets": 4, "min_count": 4},
        title="Icons 32 px, token-routed DiT",
        time_scale=1000.0,
        noise_mean=0.3,
        rate=2e-3,
    ),
    # 64 tokens and 8 M parameters on more pictures: what one core with bfloat16 units trains in 90 minutes
    "icons-32-patch4": TrainConfig(
        network=DiTConfig(input_size=32, patch_size=4, in_channels=3, width=192, depth=12, heads=3),
        sparsity=Sparsity((Route(1, -2, 0.5),)),
        filters={"sets": EMOJI, "categories": PICTURES, "min_sets": 3, "min_count": 4},
        title="Icons 32 px, 64 tokens, token-routed DiT",
        time_scale=1000.0,
        noise_mean=0.3,
        rate=2e-3,
        steps=6_400,
        decay=2_500,
        early=1_200,
        precision="bf16",
        compile=True,
    ),
    # the pictures of icons-32 for a network that is masked instead of routed (MaskDiT's loss)
    "icons-32-masked": TrainConfig(
        network=MaskDiTConfig(
            32, 8, 3, width=128, depth=10, heads=4, decoder_width=128, decoder_depth=2, decoder_heads=4
        ),
        sparsity=Sparsity(mask=0.5),
        filters={"sets": EMOJI, "categories": PICTURES, "min_sets": 4, "min_count": 4},
        title="Icons 32 px, masked MaskDiT",
        time_scale=1000.0,
        noise_mean=0.3,
        rate=2e-3,
        mae=0.1,
    ),
    # 64 pixels, every set that draws subjects: for a GPU with bfloat16
    "icons-64": ICONS_64,
    # the weak model of AutoGuidance: smaller, and a short run (arXiv 2406.02507)
    "icons-64-early": replace(
        ICONS_64,
        network=replace(ICONS_64.network, width=128, depth=10, heads=2),
        title="Icons 64 px, small and early",
        batch=512,
        steps=1_000,
        decay=300,
        ema=0.99,
    ),
}


def changed(name: str, assignments: list[str]) -> TrainConfig:
    """A ready configuration with `key=value` changes, values in JSON: steps=9000, network.width=256,
    augmentation.hue=0."""
    if name not in CONFIGS:
        raise ValueError(f"there is no configuration '{name}'; ready ones: {', '.join(CONFIGS)}.")
    config = CONFIGS[name]
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        owner, _, inner = key.rpartition(".")
        target = getattr(config, owner) if owner in PARTS else config
        if owner not in ("", *PARTS) or inner not in {field.name for field in fields(target)}:
            raise ValueError(f"'{key}' is not a setting; use one of {', '.join(f.name for f in fields(TrainConfig))}.")
        value = parsed(key, text, getattr(target, inner))
        config = (
            replace(config, **{owner: replace(target, **{inner: value})}) if owner else replace(config, **{key: value})
        )
    check(config)
    return config
