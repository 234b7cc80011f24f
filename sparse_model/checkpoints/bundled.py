"""The checkpoints that come with this repository."""

from pathlib import Path

BUNDLED = Path(__file__).parents[2] / "models"
DEFAULT = BUNDLED / "icons-64.safetensors"
DEFAULT_LABELS = "twemoji, fox"
"""What the default draws unless somebody says otherwise."""
HELPER = "-early"
"""How the name of a checkpoint ends that is only the weak model of another one."""


def earlier(checkpoint: Path) -> Path | None:
    """The weaker checkpoint of the same training for AG rules, if it lies beside it: NAME-early.safetensors."""
    path = checkpoint.with_name(f"{checkpoint.stem}{HELPER}.safetensors")
    return path if path.is_file() else None


def best_first(names: list[str]) -> list[str]:
    """A list of checkpoint names with the default in front and helpers, by themselves not meant to draw, at the end."""
    return sorted(names, key=lambda name: (name != DEFAULT.name, Path(name).stem.endswith(HELPER)))
