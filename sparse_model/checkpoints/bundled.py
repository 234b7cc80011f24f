"""The checkpoints that come with this repository."""

from pathlib import Path

BUNDLED = Path(__file__).parents[2] / "models"
DEFAULT = BUNDLED / "icons-32-patch4.safetensors"


def earlier(checkpoint: Path) -> Path | None:
    """The weaker checkpoint of the same training for AG rules, if it lies beside it: NAME-early.safetensors."""
    path = checkpoint.with_name(f"{checkpoint.stem}-early.safetensors")
    return path if path.is_file() else None
