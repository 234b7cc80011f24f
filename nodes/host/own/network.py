"""A network of `sparse_model` as the host calls it: forward(x, t, context, transformer_options)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ....sparse_model.checkpoints.families import ARCHITECTURES
from ....sparse_model.checkpoints.spec import ModelSpec
from ....sparse_model.conditions.text import Text
from ....sparse_model.method.prediction import Flow
from ....sparse_model.method.sparsity import Sparsity
from ....sparse_model.networks.layers import Backend
from .batch import Batch


class Attention:
    """The host's choice of attention kernel over [B, T, heads * d]; `bias` [B, 1, S] is added to the logits. Nodes may
    put another one in its place by the `transformer_options` of a call. A run can be stopped here: a step of very many
    tokens takes long."""

    def __init__(self):
        self.transformer_options: dict[str, Any] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
        if not torch.compiler.is_compiling():
            throw_exception_if_processing_interrupted()
        return optimized_attention(q, k, v, heads, mask=bias, transformer_options=self.transformer_options)


@cache
def hosted(architecture: str) -> type[nn.Module]:
    """The class of an architecture's network with the host's forward in front of its own.

    A subclass instead of a wrapper module, so that parameter names are those of the checkpoint and LoRA keys fit.
    """
    network = ARCHITECTURES[architecture].network
    return type(f"Hosted{network.__name__}", (HostForward, network), {})


class HostForward:
    """The host's calling convention on top of a network's own forward(x, t, y, evaluation)."""

    def __init__(self, spec: ModelSpec, dtype: torch.dtype | None = None, device: Any = None, operations: Any = nn):
        attention = Attention()
        super().__init__(spec.config, spec.sparsity, Backend(operations, attention, device, dtype))
        self.spec, self.dtype, self.attention = spec, dtype, attention
        self.in_channels = spec.config.in_channels  # other nodes read it off the host's networks (RenormCFG)

    @property
    def predicts_data(self) -> bool:
        return getattr(self.spec.prediction, "output", None) == "data"

    @contextmanager
    def called(self, sparsity: Sparsity, transformer_options: dict[str, Any]) -> Iterator[None]:
        """The network drops its tokens there and attends as the options say, until the context ends."""
        before = self.sparsity, self.attention.transformer_options
        self.sparsity, self.attention.transformer_options = sparsity, transformer_options
        try:
            yield
        finally:
            self.sparsity, self.attention.transformer_options = before

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},  # noqa: B006, the host's own signature
        *,
        batch: Batch,
        **kwargs: Any,
    ) -> Tensor:
        """x [N, C, H, W], context [N, n, classes], or [N, M, D] of text with its attention_mask [N, M] -> what the
        host's model sampling expects, [N, C, H, W].

        `batch` is made outside, because a compiled model begins here. Other nodes' wrappers see what the network itself
        predicts: the clean picture where that is its output, not the velocity that the host is given.
        """
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        given = x.clone() if wrappers else x  # EasyCache adds to it, and in float32 it is the sampler's own latent
        executor = WrapperExecutor.new_class_executor(self.predict, self, wrappers)
        output = executor.execute(given, timesteps, context, control, transformer_options, batch=batch, **kwargs)
        if not self.predicts_data:
            return output
        return self.spec.prediction.velocity(output, x.float(), batch.hosts_levels(x))

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None,
        control: Any,
        transformer_options: dict[str, Any],
        batch: Batch,
        attention_mask: Tensor | None = None,
        camera: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        sigma, prediction = batch.levels(timesteps, len(x)), self.spec.prediction
        evaluation = batch.evaluation_for(x, sigma, context, attention_mask, camera)
        condition = self._labels(context, x) if self.spec.text is None else Text(context, attention_mask)
        further = {} if camera is None else {"camera": camera}
        output = super().forward(x, prediction.time(sigma), condition, evaluation, **further).float()
        if self.predicts_data or not isinstance(prediction, Flow):
            return output
        return prediction.velocity(output, x.float(), sigma)

    def _labels(self, context: Tensor | None, x: Tensor) -> Tensor:
        """[N, n, classes] -> [N, classes]. The one of n that is farthest from 0: the host repeats shorter conditions
        along that axis, and weights may be negative."""
        if context is None:
            return x.new_zeros(len(x), self.spec.config.num_classes)
        least, most = context.aminmax(dim=1)
        return torch.where(most >= -least, most, least)
