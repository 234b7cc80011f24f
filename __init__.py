"""Sparse Guidance for ComfyUI: token-sparse diffusion models, guided by their own sparsity."""

from pathlib import Path

WEB_DIRECTORY = "./web"
__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """What the host calls once: names the nodes, adds the bundled models to its lists, and answers the web scripts."""
    import folder_paths

    from .nodes import SparseGuidanceExtension
    from .nodes.editor import add_routes
    from .nodes.host.own.folders import BUNDLED

    add_routes()
    folder_paths.add_model_folder_path(BUNDLED, str(Path(__file__).parent / "models"))
    return SparseGuidanceExtension()
