"""Merges by the host's nodes (ModelMergeSimple and its kin), which say nothing of weights that have no counterpart."""

from comfy.model_patcher import ModelPatcher


def about_merge(model: ModelPatcher) -> str | None:
    """What is worth a word of a model that was merged with another network: how many of its weights the other one has.
    None where that is all of them in their own shape, and where nothing was merged or at no strength."""
    merged, counts = {}, False
    for name, patches in model.patches.items():
        for strength, value, *_ in patches:
            if isinstance(value, list):  # the other model's weight and its own patches; those of a LoRA are no list
                merged[name] = value[0][0].shape
                counts |= strength != 0
    if not counts:
        return None
    own = {
        f"diffusion_model.{name}": parameter.shape
        for name, parameter in model.get_model_object("diffusion_model").named_parameters()
        if name.rpartition(".")[2] in ("weight", "bias")  # scales of stored precision are none of the network's
    }
    fitting = sum(merged.get(name) == shape for name, shape in own.items())
    if fitting == len(own):
        return None
    return (
        f"Only {fitting} of {len(own)} weights of this model were merged: the other one has no more of the same name "
        "and shape. Two different networks make noise; merge checkpoints of one."
    )
