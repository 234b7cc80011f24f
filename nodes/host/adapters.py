"""One way to ask a MODEL about its tokens, whether its network is this pack's or the host's own."""

from typing import Protocol

from comfy.model_patcher import ModelPatcher

from ...sparse_model.cost import Count
from ...sparse_model.method.sparsity import Sparsity
from ...sparse_model.method.token_mask import TokenMask
from ...sparse_model.method.tokens import Staying
from .own.adapter import OwnModel
from .own.model import spec_of
from .routes.adapter import HostModel


class Adapter(Protocol):
    """What the nodes ask of a MODEL; ValueError where its network is of no known family."""

    name: str
    """Its architecture or family."""

    @property
    def sparsity(self) -> Sparsity:
        """Where it is token-sparse: as its checkpoint or a Token Route says; falsy if it is dense."""

    @property
    def depth(self) -> int:
        """How many layers a route can count."""

    @property
    def layer_names(self) -> list[str]:
        """What people call these layers."""

    @property
    def default_route(self) -> Sparsity:
        """What to route where nobody says otherwise: the checkpoint's own route, else its family's default."""

    @property
    def trainers_route(self) -> Sparsity:
        """The checkpoint's own route, else what its family's trainers route."""

    @property
    def short_route(self) -> Sparsity:
        """The checkpoint's own route, else two layers: for a network that nobody trained with a route."""

    def tokens(self, shape: tuple[int, ...]) -> int:
        """Image tokens of a latent [B, C, ...]."""

    def text_tokens(self, positive: list | None) -> int:
        """How many text tokens a conditioning brings, or, without one, how many there can be."""

    def staying(self, mask: TokenMask, shape: tuple[int, ...]) -> Staying:
        """The image tokens of a latent [B, C, ...] that a mask over it keeps."""

    def counter(self, shape: tuple[int, ...], text: int, stay: int = 0) -> Count:
        """Counts multiply-adds over a latent [B, C, ...] with `text` text tokens, attention included, where `stay`
        image tokens are kept at any rate."""

    def routed(self, sparsity: Sparsity) -> ModelPatcher:
        """A clone that drops tokens there, in place of any earlier route; ValueError if a route does not fit."""


def adapter_of(model: ModelPatcher) -> Adapter:
    return OwnModel(model) if spec_of(model) is not None else HostModel(model)
