"""Giving any transformer of the host a token route."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..sparse_model.checkpoints.recorded import recorded_route
from ..sparse_model.method.sparsity import Route, Sparsity
from .host.adapters import Adapter, adapter_of
from .host.guide.sampling import fitting
from .sockets import CATEGORY, found_by

FAMILY, CUSTOM, TRAINERS, SHORT = "family default", "custom", "trainer's route", "short route"
NO_LORA = "none"
JSON = "trainer's JSON"
NUMBERS = ("start_layer", "end_layer", "ratio")
"""What only the route `custom` uses."""
NAMED = {
    FAMILY: "Blocks 2 to -2 for families that are trained with TREAD, two blocks a third of the way in for others.",
    TRAINERS: "Blocks 2 to -2: the third to the last but one.",
    SHORT: "Two blocks a third of the way in.",
}
KEPT = "A model whose file records a route keeps that."


class TokenRoute(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TokenRoute",
            display_name="Token Route",
            category=CATEGORY,
            **found_by("TREAD", "token dropping", "skip layer", "SimpleTuner route"),
            description="Says which blocks of a model leave out part of the image's tokens, so that Sparse Guidance "
            "can guide it: FLUX, SD3, Wan, Qwen-Image, Z-Image, Krea 2, Kandinsky 5 and most others. Meant for models "
            "and LoRAs trained with TREAD routes; a densely trained model wants a short route and gamma_strong 0.",
            inputs=[
                io.Model.Input("model", tooltip="Any transformer; LoRAs may come before or after this node."),
                io.Combo.Input(
                    "route",
                    options=[FAMILY, CUSTOM, TRAINERS, SHORT, JSON],
                    default=SHORT,
                    tooltip="short route: two blocks a third of the way in, for a model that nobody trained with "
                    "routes. trainer's route: blocks 2 to -2, for models and LoRAs trained with TREAD. family default: "
                    "the trainer's for families that are trained so, the short one for the others. custom: the blocks "
                    "named below. trainer's JSON: the text below. A checkpoint that records its route keeps it, but "
                    "for the last two.",
                ),
                io.Int.Input(
                    "start_layer",
                    default=2,
                    min=-1000,
                    max=1000,
                    tooltip="First block that drops tokens, counted from 0; negative numbers count from the last. "
                    "Double blocks come first, single blocks go on counting (route custom).",
                ),
                io.Int.Input(
                    "end_layer",
                    default=-2,
                    min=-1000,
                    max=1000,
                    tooltip="Last block that drops tokens, counted like start_layer: -2 is the last but one (route "
                    "custom).",
                ),
                io.Float.Input(
                    "ratio",
                    default=0.5,
                    min=0.0,
                    max=0.99,
                    step=0.05,
                    round=0.001,
                    tooltip="Fraction of tokens that was left out in training, kept as a record: what sampling leaves "
                    "out is decided by Sparsity Scheduler, which also chooses how tokens are selected (route custom).",
                ),
                io.String.Input(
                    "json",
                    default="",
                    multiline=True,
                    optional=True,
                    placeholder='{"routes": [{"start_layer_idx": 2, "end_layer_idx": -2, "selection_ratio": 0.5}]}',
                    tooltip="The trainer's JSON, pasted as it is: a route, SimpleTuner's tread_config, its option "
                    "--tread_config=..., or a whole configuration that holds one. Any text here replaces everything "
                    "above.",
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="Only for the text: at which size its tokens are counted."
                ),
                io.Combo.Input(
                    "lora",
                    options=[NO_LORA, *folder_paths.get_filename_list("loras")],
                    default=NO_LORA,
                    optional=True,
                    tooltip="The LoRA on the model, so that the route that its file records is taken, if it records "
                    "one. It is not applied here. Route custom and the JSON come first.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with its route, for Sparse Guidance."),
                io.String.Output(display_name="about", tooltip="What is routed: family, blocks, tokens."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        route: str,
        start_layer: int,
        end_layer: int,
        ratio: float,
        json: str = "",
        latent: dict | None = None,
        lora: str = NO_LORA,
    ) -> io.NodeOutput:
        adapter = adapter_of(model)
        recorded = None if lora == NO_LORA else recorded_route(Path(folder_paths.get_full_path_or_raise("loras", lora)))
        sparsity = given(route, start_layer, end_layer, ratio, json) or recorded
        if sparsity is None:
            named = {FAMILY: "default_route", TRAINERS: "trainers_route", SHORT: "short_route"}
            sparsity = getattr(adapter, named[route])
        about = description(adapter, sparsity, None if latent is None else tuple(fitting(model, latent).shape))
        if lora != NO_LORA:
            about += f"\n{lora} {'records no route' if recorded is None else 'records ' + recorded.to_json()}."
        return io.NodeOutput(adapter.routed(sparsity), about, ui=ui.PreviewText(about))


def given(route: str, start_layer: int, end_layer: int, ratio: float, json: str) -> Sparsity | None:
    """The route of the widgets' numbers or text, or None for one that depends on the model; ValueError if there is none
    in the text."""
    if json.strip():
        sparsity = Sparsity.from_trainer(json)
        if not sparsity.routes:
            raise ValueError("There is no route in this: give at least one start and end layer.")
        return sparsity
    if route == JSON:
        raise ValueError("There is no JSON: paste the trainer's into 'json', or choose another route.")
    return Sparsity((Route(start_layer, end_layer, ratio),)) if route == CUSTOM else None


def used_widgets(route: str, json: str) -> list[str]:
    """The names of the widgets that decide something: one way to give a route at a time."""
    if json.strip() or route == JSON:
        return ["route", "json"]
    return ["route", *(NUMBERS if route == CUSTOM else ("lora",))]


def foreseen(route: str, start_layer: int, end_layer: int, ratio: float, json: str) -> str:
    """Some lines for people about a route whose model is not loaded yet; ValueError as `given`."""
    sparsity = given(route, start_layer, end_layer, ratio, json)
    if sparsity is None:
        return f"{NAMED[route]} {KEPT}"
    lines = [f"Blocks {each.start} to {each.end}, trained at ratio {each.ratio:g}." for each in sparsity.routes]
    if any(each.end < 0 or each.start < 0 for each in sparsity.routes):
        lines.append("Negative numbers count from the last block, -1.")
    if json.strip() and route != JSON:
        lines.append(f"The JSON replaces the route '{route}'.")
    return "\n".join(lines)


def description(adapter: Adapter, sparsity: Sparsity, shape: tuple[int, ...] | None = None) -> str:
    """Some lines for people: family, routed blocks, tokens of a latent [B, C, ...]; ValueError if a route does not fit.

    `adapter` is that of the model that gets the route.
    """
    depth, names = adapter.depth, adapter.layer_names
    stretches = [layers for layers, route in sparsity.stretches(depth) if route is not None]
    lines = [f"{adapter.name}, {depth} blocks."]
    for layers, route in zip(stretches, sorted(sparsity.routes, key=lambda r: r.layers(depth).start), strict=True):
        trained = f"trained at ratio {route.ratio:g}" if route.ratio else "not trained so"
        lines.append(
            f"Routed: blocks {layers.start} to {layers.stop - 1} ({names[layers.start]} to {names[layers.stop - 1]}), "
            f"{trained}."
        )
    if shape is not None:
        lines.append(
            f"{adapter.tokens(shape)} image tokens at this size; text tokens and reference images are never dropped."
        )
    if adapter.sparsity.routes == sparsity.routes:
        lines.append("The model came with this route.")
    elif adapter.sparsity:
        came = "route" if adapter.sparsity.routes else "mask"
        lines.append(f"This replaces the {came} that the model came with.")
    return "\n".join(lines)
