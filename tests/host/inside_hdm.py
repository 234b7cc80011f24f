"""HDM inside a host's Python, without a server: python inside_hdm.py CHECKOUT PACK FOLDER, prints JSON.

FOLDER holds the network of the fixture as tiny.safetensors, and in given.pt prompts, cameras, noise and a text encoder.
"""

import json
import sys
from pathlib import Path

from hosted_pack import load_pack

checkout, pack, folder = sys.argv[1:4]
part = load_pack(checkout, pack, "--preview-method", "latent2rgb", "--use-pytorch-cross-attention", "--fp32-text-enc")

import comfy.samplers  # noqa: E402
import latent_preview  # noqa: E402
import torch  # noqa: E402
from comfy_api.torch_helpers import set_torch_compile_wrapper  # noqa: E402
from torch._dynamo.testing import CompileCounter  # noqa: E402

given = torch.load(Path(folder, "given.pt"))
model = part("nodes.host.own.loading").load(str(Path(folder, "tiny.safetensors")))
constant, SparseGuider = part("sparse_model.method.schedule").constant, part("nodes.host.guide.guider").SparseGuider


def trajectory(
    gamma: float, camera: dict[str, float], model: object = model, texts: tuple[str, str] = ("prompt", "negative")
) -> list[torch.Tensor]:
    """The latents of 8 Euler steps of CFG + SG at scale 3, the last one included."""
    positive, negative = ([[given[name], dict(camera)]] for name in texts)
    guider = SparseGuider(model, constant(0.0, gamma, 3.0, "CFG + SG"), positive, negative)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 8)
    noise, sampler, latents = given["noise"], comfy.samplers.sampler_object("euler"), []
    last = guider.sample(
        noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=7,
        callback=lambda step, denoised, x, total: latents.append(x.clone()),
    )  # fmt: skip
    return [*latents, model.model.process_latent_in(last)]


def together() -> dict[str, object]:
    """Two prompts of one length in one pass and, for want of memory, in two: rows of every call, and the difference."""
    rows = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    whole = trajectory(0.5, {}, texts=("prompt", "other"))
    model.model.memory_required = lambda *_, **__: 1e30
    apart = trajectory(0.5, {}, texts=("prompt", "other"))
    del model.model.memory_required
    hook.remove()
    return {"rows": rows, "difference": float((whole[-1] - apart[-1]).abs().max() / whole[-1].abs().max())}


def compiled() -> dict[str, float]:
    """What the host's TorchCompileModel node does, with a compiler that counts: graphs of one run, of a second one from
    another camera, and the difference of the first run's latents."""
    patched, counter, graphs = model.clone(), CompileCounter(), []
    options = {"guard_filter_fn": lambda guards: ["transformer_options" not in guard.name for guard in guards]}
    set_torch_compile_wrapper(model=patched, backend=lambda graph, inputs, **_: counter(graph, inputs), options=options)
    for camera in ({}, {"zoom": 1.5}):
        latents = trajectory(0.25, camera, patched)
        graphs.append(counter.frame_count)
        errors = [float((a - b).abs().max()) for a, b in zip(latents, trajectory(0.25, camera), strict=True)]
    return {"first": graphs[0], "second": graphs[1], "difference": max(errors)}


def text() -> list[float]:
    """The largest error of embeddings against those that were given, for each prompt, and their lengths."""
    clip = part("nodes.host.own.qwen").clip_of(dict(given["text encoder"]))
    errors = []
    for prompt, expected in given["texts"].items():
        ((found, _),) = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        assert found.shape == expected.shape, (prompt, found.shape, expected.shape)
        errors.append(float((found - expected).abs().max() / expected.abs().max()))
    return errors


def colours() -> list[list[float]]:
    """Previews of latents of one value in each channel, in turn: red, green and blue from 0 to 1 of one pixel each."""
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    raw = [torch.full((1, 4, 2, 2), 0.0), *(torch.eye(4)[i].view(1, 4, 1, 1).expand(1, 4, 2, 2) * 5 for i in range(4))]
    pictures = [previewer.decode_latent_to_preview(model.model.process_latent_in(latent)) for latent in raw]
    return [[value / 255 for value in picture.convert("RGB").getpixel((0, 0))] for picture in pictures]


SDXL = comfy.latent_formats.SDXL()
latent = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
found = {f"{gamma:g}": trajectory(gamma, camera) for gamma, camera in given["cameras"].items()}
torch.save(found, Path(folder, "found.pt"))
print(
    json.dumps(
        {
            "own": part("nodes.host.own.qwen").NETWORK is not None,
            "together": together(),
            "compiled": compiled(),
            "text": text(),
            "colours": colours(),
            "sdxl": [*map(list, SDXL.latent_rgb_factors), list(SDXL.latent_rgb_factors_bias)],
            "normal": model.model.process_latent_in(latent).flatten().tolist(),
            "back": float((model.model.process_latent_out(model.model.process_latent_in(latent)) - latent).abs().max()),
        }
    )
)
