"""A token route and Sparse Guidance beside what other nodes do to a model or a sampler."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, known, run_cases

pytestmark = pytest.mark.slow
PARENTS = (
    "compiled block",
    "block in another module",
    "compiled network",
    "network in another module",
    "another list of blocks",
    "own compiled network",
    "own network in another module",
)


@pytest.fixture(scope="session")
def beside(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("beside")
    write_checkpoint(folder / "tiny.safetensors")
    return run_cases(checkout, Path(__file__).parent / "beside" / "run.py", folder)


@pytest.mark.parametrize("case", PARENTS)
def test_patches_on_what_a_routes_blocks_are_in(beside: Outcomes, case: str) -> None:
    """Before Token Route and behind it: the same route, and the same model afterwards, named whatever is loaded."""
    assert beside[case]["error"] < 1e-6
    assert beside[case]["named"]
    assert beside[case]["again"]
    assert beside[case]["stock"]


def test_nothing_stays_on_the_blocks(beside: Outcomes) -> None:
    """A pack that puts its own class over a block's is heard afterwards, and beside a route."""
    assert beside["leftovers"] == {"clean": True, "stock": 1, "routed": 2, "same": True}


@pytest.mark.parametrize("network", ["FLUX.1", "SD3"])
def test_first_block_caches(beside: Outcomes, network: str) -> None:
    assert beside[f"first block, {network}"] < 1e-6


@pytest.mark.parametrize("network", ["host", "own"])
def test_tiles_that_share_a_batch(beside: Outcomes, network: str) -> None:
    """Two tiles in a call are as one after the other; rows that could be anybody's are refused."""
    found = beside[f"tiles, {network}"]
    assert max(found["two at a time"], found["chunk by chunk"], found["with a negative"]) < 1e-5
    assert "which of 8 rows belong to which of its 2 predictions" in found["mixed"]
    assert "which of 2 rows belong to which of its 2 predictions" in found["half the rows"]


@pytest.mark.parametrize("rule", ["SG", "ICG", "CFG + SG"])
def test_branches_are_cached_apart(beside: Outcomes, rule: str) -> None:
    """Every second step comes from the cache, and is guided as the others are."""
    found = beside["cached by uuid"][rule]
    assert found["skipped"] == 3
    assert found["ids"] == 2
    assert len(found["gaps"]) == 6
    assert min(found["gaps"]) > 0.1 * max(found["gaps"])


def test_what_another_node_does_to_its_latent_stays_there(beside: Outcomes) -> None:
    assert beside["in place"] == 0


def test_the_hosts_easycache(beside: Outcomes) -> None:
    found = known(beside["EasyCache"])
    assert found["calls"] < 8
    assert found["error"] == 0


def test_easycache_goes_by_the_strong_branch(beside: Outcomes) -> None:
    """Which is evaluated when guidance is over, too: steps are left out there as they are before."""
    assert known(beside["EasyCache"])["until half"] == known(beside["EasyCache"])["calls"]


def test_wrappers_see_what_the_network_predicts(beside: Outcomes) -> None:
    """EasyCache keeps the difference of that from the latent; of a network that predicts pictures it is no velocity."""
    found = beside["seen by wrappers"]
    assert found["to the prediction"] < 1e-6
    assert found["to the run without it"] < 1e-6


def test_data_per_token_is_cut_along(beside: Outcomes) -> None:
    found = known(beside["per token"])
    assert found["error"] < 5e-6
    assert "the data of patches.Film, of shape (1, 7, 32), belongs to 20 tokens" in found["unknown"]


def test_what_cannot_be_cut_is_named(beside: Outcomes) -> None:
    assert "by_grid cannot work inside a block that drops tokens (grid_sizes" in known(beside["grid"])


def test_what_fails_on_kept_tokens_is_named(beside: Outcomes) -> None:
    assert "by_frames cannot work inside a block that drops tokens" in known(beside["attention by frames"])
    assert "regional cannot work inside a block that drops tokens" in known(beside["failing patch"])


def test_attention_replaced_inside_a_route_is_used(beside: Outcomes) -> None:
    """Whoever replaces it, while the network is called or for single blocks: as if it had been so from the start."""
    found = known(beside["attention replaced inside"])
    assert found["called"] < 1e-6
    assert found["blocks"] < 1e-6
    assert found["effect"] > 0.1


def test_attention_of_another_node_runs_for_each_branch(beside: Outcomes) -> None:
    """Blocks run once for both, but in the first evaluation, which looks at what it does to tokens in another order: of
    20 tokens 15 and 5 are kept."""
    found = known(beside["attention of another node"])
    assert found["error"] < 1e-6 < 0.1 < found["effect"]
    assert sorted(found["runs"][:3]) == [5, 5, 15]
    assert found["runs"][3:] == [20, 20]


def test_of_three_branches_two_run_side_by_side(beside: Outcomes) -> None:
    """Those with the prompt, of whose 20 tokens 15 and 5 are kept, in a single block with 5 of text each; the one
    without it keeps all. In Chroma, which the prompt does not modulate, all three do."""
    found = beside["three branches"]
    assert max(case["error"] for case in found.values()) < 1e-6
    assert {name: sorted(case["runs"]) for name, case in found.items()} == {
        "FLUX.1": [20, 20], "SD3": [20, 20], "Chroma": [55, 55],
    }  # fmt: skip
    assert {name: case["steps"] for name, case in found.items()} == {"FLUX.1": 8, "SD3": 8, "Chroma": 4}


def test_a_step_waits_for_nothing(beside: Outcomes) -> None:
    """Nothing is read back from the device where no other node is about, with two branches or three."""
    found = beside["reads"]
    assert {name: count for name, rules in found.items() for count in rules.values() if count} == {}
    assert beside["reads of a guider"] == 0
    assert beside["foreign reads"] > 0, "what another node may have changed is compared"


def check_one_by_one(found: dict[str, dict[str, float]], within: float) -> None:
    """Each case equals that of branches on their own but for rounding, and is another one without the node."""
    assert {name: case for name, case in found.items() if not case["error"] < within < 0.01 < case["effect"]} == {}


@pytest.mark.parametrize(("network", "within"), [("host", 1e-6), ("own", 5e-6)])
def test_what_one_chunk_alone_is_given(beside: Outcomes, network: str, within: float) -> None:
    """By a wrapper around the network, around the model, or by a block in front of the route: it is not lost, although
    chunks of one condition share blocks."""
    found = beside[f"inputs, {network}"]
    assert len(found) > 5
    check_one_by_one(found, within)


@pytest.mark.parametrize("network", ["FLUX.1", "Wan 2.1"])
def test_what_goes_by_labels_inside_blocks(beside: Outcomes, network: str) -> None:
    """Patches and attention in blocks in front of the route, blocks and parts of them put in others' places, and a
    ControlNet between them."""
    check_one_by_one(beside[f"labels, {network}"], within=5e-6)


def test_attention_that_goes_by_no_labels_runs_once_in_front_of_the_route(beside: Outcomes) -> None:
    assert known(beside["kernel"]) == [2]


def test_branches_of_two_prompts(beside: Outcomes) -> None:
    """They run a block once where all but tokens is the same to it, which is found out anew in every run: FLUX.1 has a
    pooled prompt in its modulation, and a guidance of its own makes another."""
    found = beside["prompts"]
    assert max(case["error"] for case in found.values()) < 2e-6
    for name, case in found.items():
        assert case["runs"] == (2 if name.startswith("FLUX.1") or "guidance" in name else 1), name
    assert beside["another run"]["error"] < 2e-6


def test_attention_that_does_not_ask(beside: Outcomes) -> None:
    """Attention in the place of the host's function: branches run one by one, and that is found out once in a run. Of
    20 tokens 15 and 5 are kept."""
    found = beside["attention that does not ask"]
    assert found["error"] < 1e-6
    assert found["runs"] == [20, *[5, 15] * 3]
    assert found["again"] == [20] * 3


def test_blocks_without_options(beside: Outcomes) -> None:
    assert known(beside["no options"]) < 1e-6


def test_a_dropped_route_leaves_the_others_side_by_side(beside: Outcomes) -> None:
    assert beside["dropped route"] == [30]  # 15 and 5 of 20 tokens, 5 of text in front of each


@pytest.mark.parametrize("case", ["rows apart", "parts, host", "parts, own"])
def test_a_part_of_the_rows_is_refused(beside: Outcomes, case: str) -> None:
    """By a block's replacement, or around the network; a place beyond those rows would be the end of the process on a
    GPU."""
    assert "needs the 4 rows of its 2 predictions in one pass of the network, but another node runs 2" in beside[case]


def test_errors_in_attention_reach_the_host(beside: Outcomes) -> None:
    """At once, as they are, and nothing stays on the blocks."""
    assert beside["failing attention"] == {
        "calls": ["out of memory", "another"], "raised": [True, True], "left": [],
    }  # fmt: skip


def test_guide_frames_of_less_than_full_strength(beside: Outcomes) -> None:
    assert known(beside["guide frames"]) < 5e-6


@pytest.mark.parametrize("network", ["host", "own"])
def test_the_unconditional_prediction_at_cfg_1(beside: Outcomes, network: str) -> None:
    """Who asks for it gets it, at gamma 0 as from the unpatched model."""
    assert beside[f"unconditional, {network}"] == {
        "gamma 0": True, "CFG + SG": True, "guider": True, "asked": True, "guided": True,
    }  # fmt: skip


def test_normalized_attention_guidance(beside: Outcomes) -> None:
    found = known(beside["attention guidance"])
    assert found["same"]
    assert found["effect"] > 0.05


def test_cfg_may_change_while_sampling(beside: Outcomes) -> None:
    found = beside["overridden"]
    assert found["from the start"]
    assert found["early"] > 0.01
    assert found["list"]
    assert found.get("node", True)


def test_cfg_1_is_said_once(beside: Outcomes) -> None:
    (said,) = beside["unguided"]["SG, 1"]
    assert "the sampler's cfg is 1" in said
    assert beside["unguided"]["SG, 2"] == beside["unguided"]["beside, 1"] == []


def test_two_scales_with_one_condition_guide_by_the_second(beside: Outcomes) -> None:
    """BasicGuider has no CFG: it is said once, and SG guides as it does alone."""
    (said,) = beside["one condition"]["said"]
    assert said.endswith("there is no CFG here (cfg 1, or no negative); SG guides on its own.")
    assert beside["one condition"]["error"] < 1e-5 < beside["one condition"]["guided"]


def test_a_network_that_cannot_be_counted_keeps_its_picture(beside: Outcomes) -> None:
    (said,) = [text for text in beside["uncounted"] if "s per step" in text]
    assert "of CFG" not in said


@pytest.mark.parametrize("node", ["FreeU", "FreeU_V2"])
def test_nodes_for_u_nets(beside: Outcomes, node: str) -> None:
    assert "model channels of a U-Net" in beside["U-Net nodes"][node]


def test_what_networks_of_the_pack_do_not_read_is_said(beside: Outcomes) -> None:
    """Once a run, and the picture is as without the node; one that cannot do without is refused."""
    found = beside["for other networks"]
    titles = {"ControlNet": "Apply ControlNet"}
    assert "needs the attention of a U-Net" in found.pop("SelfAttentionGuidance")["error"]
    assert {"SkipLayerGuidanceDiT", "PerturbedAttentionGuidance", "HyperTile", "TomePatchModel"} <= found.keys()
    for name, outcome in found.items():
        assert outcome["same"], name
        (said,) = outcome["said"]
        assert said.startswith(f"Sparse Guidance: {titles.get(name, name)} has no effect on this model"), said


def test_another_nodes_attention_is_used(beside: Outcomes) -> None:
    """In all four layers of both branches, which share a batch here, and in four steps."""
    assert beside["attention kernel"] == {"calls": 16, "changed": True, "same": True}


def test_a_size_far_from_the_trained_one_is_said(beside: Outcomes) -> None:
    (said,) = beside["sizes"]["64"]
    assert "64 x 64 pixels are 256 tokens; this model was trained at 16 x 16 (16 tokens)" in said
    assert beside["sizes"]["16"] == []
    for name, words in {"of a video": "3 channels in 5 dimensions", "of 4 channels": "4 channels in 4"}.items():
        (said,) = beside["sizes"][name]
        assert f"The latent has {words}" in said, "its tokens are nobody's concern"


def test_no_number_is_no_preset(beside: Outcomes) -> None:
    assert beside["scale"] == "omega nan is no guidance scale; use a number such as 2."


def test_a_step_can_be_stopped_between_two_blocks(beside: Outcomes) -> None:
    assert len(beside["interrupted"]) == 2  # the second is stopped in its attention


def test_checkpoints_are_spelled_alike_everywhere(beside: Outcomes) -> None:
    names = ["PRX/model.safetensors", "other.safetensors"]
    assert beside["Windows"]["listed"] == names
    assert beside["Windows"]["found"] == [names[0], *names]
    assert "There is no checkpoint 'else.safetensors'" in beside["Windows"]["not there"]
