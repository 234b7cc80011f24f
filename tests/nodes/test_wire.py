"""Whose the rows of a batch are, and what stands in a model while others have patched it."""

import uuid
from types import SimpleNamespace

import pytest
import torch
from hostless import hostless

wire, plain = hostless("nodes.host.wire"), hostless("nodes.host.plain").plain
Branch, Evaluation = (getattr(hostless("sparse_model.method.branches"), name) for name in ("Branch", "Evaluation"))

ONE = uuid.uuid4()
SPARSE = Evaluation((Branch(0.25, 0, "positive"), Branch(0.75, 1, "positive")))


def options(evaluation: Evaluation = SPARSE, labels=(0, 1), size: int = 2) -> dict:
    uuids = [ONE, wire.BranchId(ONE, 1)][: len(labels)]
    sigmas = torch.ones(size)
    return {wire.KEY: evaluation, "cond_or_uncond": list(labels), "uuids": uuids, "sigmas": sigmas}


def parts(count: int, size: int = 2) -> torch.Tensor:
    """[count, size, 3] of `count` parts of a picture."""
    return torch.randn(count, size, 3)


def joined(pictures: torch.Tensor, order: str) -> torch.Tensor:
    """Two chunks of every part: part behind part, or chunk behind chunk."""
    both = torch.stack([pictures, pictures], dim=1 if order == "parts" else 0)
    return both.flatten(0, 2)


def test_the_hosts_own_batch():
    found = wire.evaluation_of(options(), joined(parts(1), "parts"), torch.ones(4))
    assert [branch.gamma for branch in found.branches] == [0.25, 0.75]
    assert found.sources == (0, 0)  # ids of their own, and one input all the same


def test_nothing_is_read_of_a_batch():
    """A meta tensor has no values to read."""
    x, times = torch.empty(4, 3, device="meta"), torch.empty(4, device="meta")
    assert wire.evaluation_of(options(), x, times).sources == (0, 0)


def test_whose_wrappers_may_have_touched_a_batch():
    def theirs():
        pass

    def of(module):
        function = type(theirs)(theirs.__code__, {})
        function.__module__ = module
        return {wire.DIRECT: True, "wrappers": {"diffusion_model": {"key": [function]}}}

    host, ours = ("comfy_extras.nodes_easycache", "comfy.ldm.wan.model_multitalk"), f"{wire.__package__}.routes.route"
    assert not any(wire.touched(of(module)) for module in (*host, ours))
    assert all(wire.touched(of(module)) for module in ("comfyui_other.nodes", "/custom_nodes/other.nodes", None))


def test_a_batch_behind_another_nodes_function_is_not_direct():
    def direct(**more):
        return wire.with_entry(more, SPARSE, direct=True)["transformer_options"][wire.DIRECT]

    assert direct() and not direct(model_function_wrapper=print)


@pytest.mark.parametrize(("order", "gammas", "sources"), [
    ("parts", [0.25, 0.75] * 3, (0, 0, 1, 1, 2, 2)), ("chunks", [0.25] * 3 + [0.75] * 3, (0, 1, 2, 0, 1, 2)),
])  # fmt: skip
def test_several_parts_in_a_batch(order, gammas, sources):
    found = wire.evaluation_of(options(), joined(parts(3), order), torch.ones(12))
    assert [branch.gamma for branch in found.branches] == gammas
    assert found.sources == sources


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 8])
def test_rows_that_could_be_anybodys_are_refused(rows):
    with pytest.raises(ValueError, match=f"which of {rows} rows belong to which of its 2 predictions"):
        wire.evaluation_of(options(), torch.randn(rows, 3), torch.ones(rows))


def test_a_dense_evaluation_does_not_mind():
    dense = Evaluation((Branch(0.0, 0, "positive"), Branch(0.0, 1, "null")))
    assert not wire.evaluation_of(options(dense), torch.randn(3, 3), torch.ones(3)).sparse


def test_one_noise_level_for_several_rows():
    """Some samplers give one for the whole batch: that is one chunk, and not a part for every row."""
    found = wire.evaluation_of(options(labels=(0,), size=1), torch.randn(4, 3), torch.ones(1))
    assert len(found.branches) == 1


def test_branches_of_one_condition_have_ids_that_last():
    first, second = wire.BranchId(ONE, 1), wire.BranchId(ONE, 2)
    assert first == wire.BranchId(ONE, 1)
    assert len({ONE, first, second}) == 3
    assert first.condition == second.condition == ONE


def test_what_stands_there_is_found_whatever_is_loaded():
    block, network = SimpleNamespace(name="block"), SimpleNamespace()
    network.blocks = SimpleNamespace(first=block)
    replaced = {"network": network, "network.blocks.first": block}
    around = SimpleNamespace(inner=network)  # it has no blocks
    model = SimpleNamespace(network=around)
    assert plain(model, replaced, "network.blocks.first.name") == "block"
    network.blocks.first = SimpleNamespace(name="another graph's")
    assert plain(model, replaced, "network.blocks.first.name") == "block"
    compiled = SimpleNamespace(_orig_mod=network)
    assert plain(SimpleNamespace(network=compiled), {}, "network") is network


def test_the_picture_in_a_packed_latent():
    """With a sound it is packed; alone it may be a tile of the whole."""
    video, sound = (2, 16, 3, 6, 8), (2, 8, 7, 16)
    packed, tile = torch.zeros(2, 1, 16 * 3 * 48 + 8 * 112), torch.zeros(2, 16, 3, 6, 4)
    assert wire.picture_shape(packed, [video, sound]) == video
    assert wire.picture_shape(tile, [video]) == wire.picture_shape(tile, None) == (2, 16, 3, 6, 4)
