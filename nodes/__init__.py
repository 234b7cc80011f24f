"""The nodes, one file per family: schemas, tooltips and a few lines that call inward."""

from comfy_api.latest import ComfyExtension, io

from .camera import SparseCameraCondition
from .checkpoint import SparseCheckpointLoader
from .guidance import SparseGuidance, SparseGuider
from .inputs import EmptySparseLatent, SparseClassCondition
from .loader import SparseModelLoader
from .lora import SparseLoRALoader
from .match import SparseGuidanceMatch
from .report import SparseGuidanceReport
from .route import TokenRoute
from .sampler import SparseKSampler
from .scheduler import SparsityScheduler
from .sheet import SparseGuidanceSheet
from .simple import SparseGuidanceSimple
from .text import SparseTextEncoder
from .vae import SparseVAELoader

NODES = [
    SparseModelLoader,
    SparseCheckpointLoader,
    SparseTextEncoder,
    SparseVAELoader,
    SparseLoRALoader,
    SparseClassCondition,
    SparseCameraCondition,
    EmptySparseLatent,
    TokenRoute,
    SparsityScheduler,
    SparseGuidance,
    SparseGuider,
    SparseKSampler,
    SparseGuidanceReport,
    SparseGuidanceSimple,
    SparseGuidanceSheet,
    SparseGuidanceMatch,
]


class SparseGuidanceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
