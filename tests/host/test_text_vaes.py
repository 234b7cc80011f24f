"""The autoencoders of text models on a real host: their pictures are diffusers' own."""

from dataclasses import replace

import torch
from encoders import write_clip
from graphs import Graph, latents, run, sentence
from host import Host
from published_files import FILES, write_published
from published_text import write_kl_f8_d16, write_prx_dc_ae
from safetensors.torch import save_file
from text_scene import Scene


def test_latents_of_dc_ae(host: Host) -> None:
    """From a published folder to a picture, which is that of diffusers' own autoencoder, and back to a latent."""
    name, theirs = write_prx_dc_ae(host.directory / "models", "prx-512-t2i-dc-ae")
    scene = Scene(name, "prx-512-t2i-dc-ae/text_encoder", width=160, height=96)
    graph = scene.graph
    samples = scene.sampled(scene.guided())
    latent = graph.save(samples)
    vae = graph.add("SparseVAELoader", folder="prx-512-t2i-dc-ae/vae")
    decoded = graph.add("VAEDecode", samples=samples, vae=vae)
    shown = graph.add("SaveImage", images=decoded, filename_prefix="dcae")[0]
    again = graph.save(graph.add("VAEEncode", pixels=decoded, vae=vae))
    tiled = graph.add("VAEDecodeTiled", samples=samples, vae=vae, tile_size=512, overlap=64, temporal_size=64,
                      temporal_overlap=8)  # fmt: skip
    tiles = graph.add("SaveImage", images=tiled, filename_prefix="dcae-tiled")[0]
    result = run(host, graph)
    found = latents(host, result)
    assert found[latent].shape == (1, 32, 3, 5)
    with torch.no_grad():
        picture = theirs.decode(found[latent]).sample
        encoded = theirs.encode(picture.clamp(-1, 1)).latent
    expected = ((picture + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0)
    pixels = torch.from_numpy(result.pixels(shown)[0]) / 255
    assert expected.std() > 0.01 and (pixels - expected).abs().max() < 1.5 / 255
    assert (found[again] - encoded).abs().max() / encoded.abs().max() < 1e-3
    assert result.pixels(tiles).shape == (1, 96, 160, 3)


def test_latents_of_16_channels(host: Host) -> None:
    """MicroDiT's other autoencoder: pictures are diffusers' own, of latents at its published scale."""
    models = host.directory / "models"
    theirs = write_kl_f8_d16(models / "vae" / "vae-kl-f8-d16")
    name, spec = "dit_16_channel_37M_real_and_synthetic_data.pt", FILES["dit_4_channel_37M_real_and_synthetic_data.pt"]
    write_published(models / "diffusion_models" / name, replace(spec, config=replace(spec.config, in_channels=16)))
    write_clip(models / "text_encoders" / "clip-of-microdit")
    scene = Scene(name, "clip-of-microdit", width=96, height=64)
    graph = scene.graph
    samples = scene.sampled(cfg=5.0, scheduler="karras")
    latent = graph.save(samples)
    vae = graph.add("SparseVAELoader", folder="vae-kl-f8-d16")
    decoded = graph.add("VAEDecode", samples=samples, vae=vae)
    shown = graph.add("SaveImage", images=decoded, filename_prefix="kl")[0]
    again = graph.save(graph.add("VAEEncode", pixels=decoded, vae=vae))
    result = run(host, graph)
    found = latents(host, result)
    assert found[latent].shape == (1, 16, 8, 12)
    with torch.no_grad():
        picture = theirs.decode(found[latent]).sample
        encoded = theirs.encode(picture.clamp(-1, 1)).latent_dist.mean
    expected = ((picture + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0)
    pixels = torch.from_numpy(result.pixels(shown)[0]) / 255
    assert expected.std() > 0.01 and (pixels - expected).abs().max() < 1.5 / 255
    assert found[again].shape == encoded.shape


def test_a_dc_ae_that_is_not_whole(host: Host) -> None:
    folder = host.directory / "models" / "vae" / "halved"
    _, theirs = write_prx_dc_ae(host.directory / "models", "other-dc-ae")
    theirs.save_pretrained(folder)
    state = {key: value for key, value in theirs.state_dict().items() if key.startswith("encoder.")}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    graph = Graph()
    samples = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    vae = graph.add("SparseVAELoader", folder="halved")
    graph.add("PreviewImage", images=graph.add("VAEDecode", samples=samples, vae=vae))
    text = sentence(host, graph)
    assert "'halved' is not a complete AutoencoderDC: it lacks" in text and "such as decoder." in text
