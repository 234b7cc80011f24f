"""Loading a checkpoint."""

from pathlib import Path

from comfy_api.latest import io, ui

from ..sparse_model.checkpoints.bundled import HELPER, best_first
from ..sparse_model.checkpoints.source import find
from ..sparse_model.files import FileError
from .host.own.decoder import vae_of
from .host.own.folders import model_names, model_path
from .host.own.loading import WEIGHT_TYPES, checkpoint_names, listed_name, load
from .host.own.model import spec_of
from .sockets import CATEGORY, found_by

SHOWN = 300
"""Labels of a model that its text lists."""


class SparseModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseModelLoader",
            display_name="Sparse Model Loader",
            category=CATEGORY,
            **found_by(
                "SG",
                "TREAD",
                "MaskDiT",
                "MDTv2",
                "SPRINT",
                "SR-DiT",
                "MicroDiT",
                "Nitro-T",
                "PRX",
                "DiT",
                "token sparse",
            ),
            description="Loads a token-sparse diffusion transformer (DiT, SiT, TREAD, MaskDiT, MDTv2, SPRINT, SR-DiT, "
            "MicroDiT, Nitro-T, PRX), with the token route that its file records.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=listed(),
                    tooltip="A checkpoint in models/diffusion_models; for one in several shards their index. The small "
                    "demo models of this pack are listed without copying them, the best one first. A name that ends "
                    f"in {HELPER} is a helper: the weak_model of AG and AG + SG.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_TYPES),
                    default="default",
                    tooltip="Precision of the weights in memory. default: what the file and your device suit best; "
                    "fp8 halves the memory of a large model at some loss of quality.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, with its token route."),
                io.String.Output(
                    display_name="about",
                    tooltip="Architecture, sizes, route, the names of its settings, and the labels or text it reads; "
                    "connect Preview as Text.",
                ),
                io.Vae.Output(
                    display_name="vae",
                    tooltip="For VAE Decode, of models that draw pixels. A model of latents needs Load VAE.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None) -> bool | str:
        """In place of the host's own check of the list: names that Windows has spelled are good everywhere."""
        try:
            return model_name is None or bool(listed_name(model_name, listed()))
        except ValueError as problem:
            return str(problem)

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, weight_dtype: str | None) -> tuple:
        """A file that training has written anew is loaded anew. A linked input is None here: the host itself sees when
        what comes over the link changes."""
        return model_name, weight_dtype, model_name and changed(Path(full_path(model_name)))

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        model = load(full_path(model_name), weight_dtype)
        spec = spec_of(model)
        about = description(spec)
        return io.NodeOutput(model, about, vae_of(spec), ui=ui.PreviewText(about))


def listed() -> list[str]:
    """The checkpoints to choose from."""
    return best_first(checkpoint_names(model_names()))


def changed(path: Path) -> tuple[int, ...]:
    """When the files of a checkpoint were written, its shards too; () where one is missing, which loading says."""
    try:
        return tuple(file.stat().st_mtime_ns for file in (path, *find(path).files))
    except (FileError, OSError):
        return ()


def full_path(name: str) -> str:
    """The path of a checkpoint of the list; ValueError if it is not there, FileNotFoundError if it is gone."""
    path = model_path(listed_name(name, listed()))
    if path is None:
        raise FileNotFoundError(f"There is no checkpoint '{name}' in models/diffusion_models any more; choose another.")
    return path


def description(spec) -> str:
    """Some lines for people: what the model is, its recommended settings, the labels it knows."""
    lines = [f"{spec.title or 'Untitled'}: {spec.describe()}."]
    if spec.schedule is not None:
        now = spec.schedule.at(spec.schedule.start)
        lines.append(
            f"Recommended: {spec.schedule.rule}, gamma strong {now.gamma_strong:g}, gamma weak {now.gamma_weak:g}, "
            f"omega {now.omega:g} at the start, {spec.steps} steps."
        )
    if spec.settings:
        lines += ["Settings for Sparsity Scheduler:", *(f"  {own}" for own in spec.settings)]
    if spec.note:
        lines.append(f"{spec.note}.")
    if spec.labels:
        more = f", \u2026 ({len(spec.labels):,}; the label box suggests the others)" * (len(spec.labels) > SHOWN)
        lines.append(f"Labels: {', '.join(spec.labels[:SHOWN])}{more}")
    if spec.license:
        lines.append(f"License: {spec.license}")
    return "\n".join(lines)
