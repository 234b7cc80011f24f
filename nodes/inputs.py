"""What a class-conditional model starts from: labels and an empty latent."""

import torch
from comfy_api.latest import io, ui

from ..sparse_model.checkpoints.bundled import DEFAULT_LABELS
from ..sparse_model.checkpoints.spec import ModelSpec
from ..sparse_model.conditions.labels import class_names, label_weights
from .host.own.model import spec_of
from .sockets import CATEGORY, found_by


def needed_spec(model: object) -> ModelSpec:
    """The spec of a model of this pack; ValueError for the host's own models."""
    spec = spec_of(model)
    if spec is None:
        raise ValueError("This model was not loaded with Sparse Model Loader, so its labels and sizes are unknown.")
    return spec


class SparseClassCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseClassCondition",
            display_name="Sparse Class Condition",
            category=CATEGORY,
            **found_by("labels", "class label", "ImageNet label"),
            description="Says what a class-conditional model should draw, by the names or numbers of its labels.",
            inputs=[
                io.Model.Input("model", tooltip="The model whose labels are meant."),
                io.String.Input(
                    "labels",
                    default=DEFAULT_LABELS,
                    multiline=True,
                    placeholder="no label: the null condition",
                    tooltip="Labels, separated by commas or line breaks; a number after a colon weighs one: "
                    "rocket:0.5. A number is a class id, unless a label of that name exists. Nothing at all is the "
                    "null condition. Typing suggests the model's labels; the loader's second output lists them.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="The labels, as positive conditioning."),
                io.Conditioning.Output(
                    display_name="null", tooltip="No label at all: the negative conditioning of CFG and CFG + SG."
                ),
            ],
        )

    @classmethod
    def execute(cls, model: object, labels: str) -> io.NodeOutput:
        spec = needed_spec(model)
        if spec.text is not None:
            raise ValueError("This model knows no labels; it reads text: encode a prompt with CLIP Text Encode.")
        names = spec.labels or class_names(spec.config.num_classes)
        weights = label_weights(labels, names).reshape(1, 1, -1)  # [1, 1, classes]
        chosen = [f"{names[i]} ({weights[0, 0, i]:g})" for i in weights[0, 0].nonzero().flatten().tolist()]
        text = ", ".join(chosen) if chosen else "null condition"
        return io.NodeOutput([[weights, {}]], [[torch.zeros_like(weights), {}]], ui=ui.PreviewText(text))


class EmptySparseLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptySparseLatent",
            display_name="Empty Sparse Latent",
            category=CATEGORY,
            **found_by("empty latent", "sparse latent"),
            description="An empty latent of the model's own channels and size.",
            inputs=[
                io.Model.Input("model", tooltip="The model that decides channels, size and patch."),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many images to make at once."),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    optional=True,
                    tooltip="Width in pixels; 0 is the size the model was trained at, which looks best.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    optional=True,
                    tooltip="Height in pixels; 0 is the size the model was trained at, which looks best.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Zeros, for a sampler to fill.")],
        )

    @classmethod
    def execute(cls, model: object, batch_size: int, width: int = 0, height: int = 0) -> io.NodeOutput:
        spec = needed_spec(model)
        ratio = spec.ratio
        unit = spec.config.patch_size * ratio
        for name, value in (("width", width), ("height", height)):
            if value % unit:
                nearest = max(round(value / unit), 1) * unit
                raise ValueError(f"A {name} of {value} pixels does not divide into patches of {unit}; use {nearest}.")
        sizes = [value // ratio or spec.config.input_size for value in (height, width)]
        samples = torch.zeros(batch_size, spec.config.in_channels, *sizes)
        return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": ratio})
