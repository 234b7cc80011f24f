"""What the settings of a training run may be; one sentence for whatever is not."""

import json
import math
from typing import Any

LIMITS = {  # least and most, both included
    "steps": (1, math.inf), "batch": (1, math.inf), "warmup": (0, math.inf), "decay": (0, math.inf),
    "held_out": (1, math.inf), "early": (0, math.inf), "seed": (0, 2**32), "time_scale": (1e-6, 1e6), "rate": (0, 10),
    "weight_decay": (0, 10), "ema": (0, 1), "noise_mean": (-10, 10), "noise_spread": (1e-3, 10), "label_drop": (0, 1),
    "word_drop": (0, 1), "mae": (0, math.inf), "input_size": (1, 4096), "patch_size": (1, 4096),
    "in_channels": (1, 4096), "width": (4, 65536), "depth": (1, 1024), "heads": (1, 1024), "mlp_ratio": (0.1, 64),
    "num_classes": (1, 10**6), "decoder_width": (4, 65536), "decoder_depth": (1, 1024), "decoder_heads": (1, 1024),
}  # fmt: skip
FILTERS = {"sets": list, "categories": list, "min_sets": int, "min_count": int}  # of data.load_packed
CHOICES = {
    "output": ("data", "velocity"),
    "precision": ("no", "bf16"),  # not fp16: accelerate would unscale the gradients once for each of two optimizers
}


def parsed(key: str, text: str, now: Any) -> Any:
    """The value of KEY=TEXT, JSON or plain text, for a setting that is `now`; ValueError if it is of another kind."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if isinstance(now, bool):
        fits, kind = isinstance(value, bool), "true or false"
    elif isinstance(now, int):
        fits, kind = type(value) is int, "a whole number"
    elif isinstance(now, float):
        fits, kind = type(value) in (int, float) and math.isfinite(value), "a number"
    elif isinstance(now, str):
        value, fits, kind = value if isinstance(value, str) else text, True, "text"
    elif isinstance(now, dict):
        fits, kind = isinstance(value, dict), 'a JSON object such as {"sets": ["noto"]}'
    else:
        raise ValueError(f"'{key}' cannot be set as a whole.")
    if not fits:
        raise ValueError(f"'{key}={text}' does not fit: {key} is {kind}, such as {json.dumps(now)}.")
    return value


def check(config: Any) -> None:
    """ValueError that names the first setting of a TrainConfig, or of its network, that is outside its limits."""
    for prefix, part in (("", config), ("network.", config.network)):
        for name, value in vars(part).items():
            least, most = LIMITS.get(name, (-math.inf, math.inf))
            if name in LIMITS and not least <= value <= most:
                bounds = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                raise ValueError(f"'{prefix}{name}={value}' does not fit: it must be {bounds}.")
            if name in CHOICES and value not in CHOICES[name]:
                raise ValueError(f"'{prefix}{name}={value}' does not fit: use one of {', '.join(CHOICES[name])}.")
    _check_filters(config.filters)
    network = config.network
    multiples = [("input_size", "patch_size"), ("width", "heads"), ("width", 4)]
    if hasattr(network, "decoder_width"):
        multiples += [("decoder_width", "decoder_heads"), ("decoder_width", 4)]
    for name, divisor in multiples:
        value, by = getattr(network, name), divisor if isinstance(divisor, int) else getattr(network, divisor)
        if value % by:
            which = "" if isinstance(divisor, int) else f" (network.{divisor})"
            raise ValueError(f"'network.{name}={value}' does not fit: it must be a multiple of {by}{which}.")


def _check_filters(filters: dict[str, Any]) -> None:
    for name, value in filters.items():
        if name not in FILTERS:
            raise ValueError(f"'filters' knows no '{name}'; use {', '.join(FILTERS)}.")
        words = isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)
        if not (words if FILTERS[name] is list else type(value) is int):
            kind = 'a list of names such as ["noto"]' if FILTERS[name] is list else "a whole number"
            raise ValueError(f"'filters' does not fit: {name} is {kind}.")
