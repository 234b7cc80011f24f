"""DiT against two other implementations: diffusers' DiTTransformer2DModel, and outputs of CompVis/tread's DiT.

fixtures/tread.npz was made once with CompVis/tread: its DiT of width 48, 5 layers and 4 heads for a 4 x 8 x 8 latent
and 5 classes, weights by `formula`. `dense` has the classes 1 and 3, `null` no class, and `routed` the classes again
with the route 1 -> 3 and the kept tokens `index`. `denoised` and `denoised_null` are what its EDM wrapper makes of the
same input at sigma 0.3 and 1.7, with the classes and without.
"""

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import Timesteps
from formula import FIXTURES, Chosen, fill, formula, relative_error

from sparse_model.checkpoints.checkpoint import read
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import EDM
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig
from sparse_model.networks.layers import TORCH
from sparse_model.networks.positions import sincos_positions

X = 4 * formula("x", (2, 4, 8, 8))


@pytest.fixture(scope="module")
def tread():
    config = DiTConfig(8, 2, 4, 48, 5, 4, num_classes=5)
    with np.load(FIXTURES / "tread.npz") as file:
        expected = {name: torch.from_numpy(file[name]) for name in file}
    return fill(DiT(config, Sparsity((Route(1, 3),))), {"pos_embed": sincos_positions(48, 4, 4, 4)}), expected


def test_tread_dense(tread):
    network, expected = tread
    time, labels = torch.tensor([0.3, 0.9]), torch.eye(5)[[1, 3]]
    assert relative_error(network(X, time, labels), expected["dense"]) < 1e-5
    assert relative_error(network(X, time, 0 * labels), expected["null"]) < 1e-5


def test_tread_routed(tread):
    network, expected = tread
    evaluation = Evaluation((Branch(0.5),), Chosen(expected["index"]))
    output = network(X, torch.tensor([0.3, 0.9]), torch.eye(5)[[1, 3]], evaluation)
    assert relative_error(output, expected["routed"]) < 1e-5


def test_what_its_training_saves_is_denoised_as_in_training(tread, tmp_path):
    network, expected = tread
    wrapped = {f"model.{key}": value for key, value in network.state_dict().items()}
    trained = {key: 0 * value for key, value in wrapped.items()}
    saved = {"model_state_dict": trained, "ema_state_dict": wrapped, "optimizer_state_dict": {"state": {}}, "step": 3}
    torch.save(saved, tmp_path / "latest.pt")
    spec, state = read(tmp_path / "latest.pt")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert spec.prediction == EDM(sigma_data=0.5)
    sigma, labels = torch.tensor([0.3, 1.7]), torch.eye(5)[[1, 3]]
    assert relative_error(spec.prediction.denoise(network, X, sigma, labels), expected["denoised"]) < 1e-5
    assert relative_error(spec.prediction.denoise(network, X, sigma, 0 * labels), expected["denoised_null"]) < 1e-5


def from_diffusers(theirs: DiTTransformer2DModel, depth: int) -> dict[str, torch.Tensor]:
    """Their weights under the keys of facebookresearch/DiT. Each of their blocks carries its own embedders."""
    state = {}

    def layer(key, *modules):
        state[f"{key}.weight"] = torch.cat([module.weight for module in modules])
        state[f"{key}.bias"] = torch.cat([module.bias for module in modules])

    embedders = theirs.transformer_blocks[0].norm1.emb
    layer("x_embedder.proj", theirs.pos_embed.proj)
    layer("t_embedder.mlp.0", embedders.timestep_embedder.linear_1)
    layer("t_embedder.mlp.2", embedders.timestep_embedder.linear_2)
    state["y_embedder.embedding_table.weight"] = embedders.class_embedder.embedding_table.weight
    state["pos_embed"] = theirs.pos_embed.pos_embed
    for i in range(depth):
        block = theirs.transformer_blocks[i]
        layer(f"blocks.{i}.adaLN_modulation.1", block.norm1.linear)
        layer(f"blocks.{i}.attn.qkv", block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)
        layer(f"blocks.{i}.attn.proj", block.attn1.to_out[0])
        layer(f"blocks.{i}.mlp.fc1", block.ff.net[0].proj)
        layer(f"blocks.{i}.mlp.fc2", block.ff.net[2])
    layer("final_layer.adaLN_modulation.1", theirs.proj_out_1)
    layer("final_layer.linear", theirs.proj_out_2)
    return {key: value.detach() for key, value in state.items()}


@pytest.mark.parametrize(("patch", "size", "learn_sigma"), [(2, 8, True), (4, 16, False), (1, 6, False)])
def test_diffusers(patch, size, learn_sigma):
    heads, head_width, depth, classes = 4, 12, 3, 7
    width = heads * head_width
    theirs = DiTTransformer2DModel(
        heads, head_width, 4, 8 if learn_sigma else 4, depth, attention_bias=True, sample_size=size, patch_size=patch,
        num_embeds_ada_norm=classes, norm_eps=1e-6,
    ).eval()  # fmt: skip
    weights = {
        name: value if name.startswith("pos_embed.pos_embed") else formula(name.split("norm1.emb.")[-1], value.shape)
        for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(weights)
    for block in theirs.transformer_blocks:
        # Theirs stretches the frequencies down to exactly 1 / 10000; the DiT that the weights come from does not.
        block.norm1.emb.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
    ours = DiT(DiTConfig(size, patch, 4, width, depth, heads, num_classes=classes, learn_sigma=learn_sigma)).eval()
    ours.load_state_dict(from_diffusers(theirs, depth))

    x = formula("picture", (3, 4, size, size)) * 4
    time, labels = torch.tensor([0.0, 250.0, 999.0]), torch.tensor([0, 6, classes])  # the last is the null class
    with torch.no_grad():
        expected = theirs(x, time, labels).sample[:, :4]
        output = ours(x, time, torch.eye(classes + 1)[labels][:, :classes])
    assert relative_error(output, expected) < 1e-5
    assert expected.std() > 0.1
    grid = size // patch
    torch.testing.assert_close(ours.pos_embed, sincos_positions(width, grid, grid, grid), rtol=0, atol=1e-6)


def test_norms_divide_by_the_published_epsilon():
    """At ordinary magnitudes 1e-5 would look the same."""
    x = 1e-3 * formula("faint", (2, 5, 48))
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(TORCH.norm(48)(x), expected)
