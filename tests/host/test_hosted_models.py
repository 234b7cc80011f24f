"""Token routes through the host's own transformers, built small with random weights in the host's Python."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hosts import REPOSITORY, Checkout, version_key

pytestmark = pytest.mark.slow
NEW = {
    *(
        "FLUX.2",
        "LTX-2",
        "MiniMax-H3",
        "Z-Image",
        "Anima",
        "Krea 2",
        "ERNIE-Image",
        "Kandinsky 5",
        "Boogu-Image",
        "PixelDiT",
        "Lens",
        "Ideogram 4",
    ),
    *("Mage-Flow", "LongCat-Image", "JoyImage", "CogVideoX", "CogVideoX 1.5", "HunyuanVideo 1.5"),
}
"""Families that 0.3.64 does not have."""
SIDE_BY_SIDE = {
    *("FLUX.1", "FLUX.2", "LongCat-Image", "Chroma", "SD3", "SD3.5 medium", "AuraFlow", "Qwen-Image", "Mage-Flow"),
    *("Lumina 2", "Z-Image", "Krea 2", "HiDream-I1", "OmniGen 2", "Boogu-Image", "Ideogram 4", "JoyImage"),
}
"""Families whose blocks run once for both branches of SG."""
POOLED = {"FLUX.1", "SD3", "SD3.5 medium", "HiDream-I1"}
"""Those of them whose blocks are modulated by the prompt too, so that they run once for each prompt."""
ONE_BY_ONE = {
    *("FLUX.1, attention mask", "Ideogram 4, padded caption", "Qwen-Image, padded caption"),
    *("Mage-Flow, padded caption", "Krea 2, reference index_timestep_zero"),
    *("Qwen-Image, edit index_timestep_zero", "FLUX.2, reference index_timestep_zero", "Z-Image, reference"),
}
"""Cases of these in which they run once for each branch: under masks, with references of another modulation."""


def run_inside(checkout: Checkout, folder: Path, *what: str) -> dict[str, Any]:
    """What hosted_models.py prints."""
    script = Path(__file__).with_name("hosted_models.py")
    command = [checkout.python, script, checkout.root, REPOSITORY, *what]
    result = subprocess.run(
        command, cwd=folder, env=checkout.environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def neighbours(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A route beside what other nodes do to the same model."""
    return run_inside(checkout, tmp_path_factory.mktemp("neighbours"), "neighbours")


@pytest.fixture(scope="session")
def families(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Case -> what hosted_models.py found out about it."""
    cases = run_inside(checkout, tmp_path_factory.mktemp("hosted"))
    failed = {name: case["error"] for name, case in cases.items() if case and "error" in case}
    assert not failed, "\n".join(f"{name}: {error}" for name, error in failed.items())
    missing = {name for name, case in cases.items() if case is None and "," not in name}
    assert missing == (NEW if version_key(checkout.version) < (0, 4) else set())
    return {name: case for name, case in cases.items() if case is not None}


def wrong(cases: dict[str, dict[str, Any]], what: str) -> list[str]:
    return [name for name, case in cases.items() if not case[what]]


def test_nothing_dropped_is_the_host_bit_for_bit(families: dict[str, dict[str, Any]]) -> None:
    assert len(families) > 30
    assert wrong(families, "gamma 0") == []


def test_a_model_samples_the_same_without_the_node_again(families: dict[str, dict[str, Any]]) -> None:
    assert wrong(families, "removed") == []


def test_names_of_weights_stay(families: dict[str, dict[str, Any]]) -> None:
    assert wrong(families, "keys") == []


def test_dropped_tokens_are_as_if_hidden_and_put_back(families: dict[str, dict[str, Any]]) -> None:
    """Strong, weak, dense beside sparse, another condition, the whole path dropped, a batch of one, tokens that
    a mask keeps."""
    assert wrong(families, "finite") == []
    assert [name for name, case in families.items() if case["effect"] < 0.05] == [], "dropping changes nothing"
    assert {name: case["errors"] for name, case in families.items() if max(case["errors"].values()) > 1e-5} == {}


def test_half_precision(families: dict[str, dict[str, Any]]) -> None:
    """bf16 and fp16: bit for bit at gamma 0, and as close to float32 with a route as without."""
    assert wrong(families, "half precision") == []


def test_the_cost_is_what_runs(families: dict[str, dict[str, Any]]) -> None:
    """Counted from the sizes of layers, against hooks on every layer and attention in a guided step: of branches of one
    prompt and of two, dense and sparse."""
    shares = {(name, plan): share for name, case in families.items() for plan, share in case["cost"].items()}
    assert {case: share for case, share in shares.items() if abs(share - 1) > 1e-9} == {}
    assert len({plan for _, plan in shares}) == 5


def test_branches_of_one_prompt_run_a_block_once(families: dict[str, dict[str, Any]]) -> None:
    once = {name for name, case in families.items() if case["runs"] == 1}
    assert once == {name for name in families if name.partition(",")[0] in SIDE_BY_SIDE} - ONE_BY_ONE


def test_branches_of_two_prompts_run_a_block_once_where_time_alone_modulates_it(
    families: dict[str, dict[str, Any]],
) -> None:
    """A dense branch beside a sparse one of another prompt; both equal the reference as above."""
    once = {name for name, case in families.items() if case["runs of two prompts"] == 1}
    assert once == {name for name in families if name.partition(",")[0] in SIDE_BY_SIDE - POOLED} - ONE_BY_ONE


def test_replaced_blocks_compose(neighbours: dict[str, Any]) -> None:
    """A block replacement sees all tokens; a patch of a block's code stays, in front of ours as behind it."""
    assert neighbours["replaced"]
    assert neighbours["patched before"]
    assert neighbours["patched behind"]
    assert neighbours["skipped"]


def test_samples_of_a_batch_run_one_by_one(neighbours: dict[str, Any], checkout: Checkout) -> None:
    """Where a network takes one row: each with its own tokens."""
    errors = neighbours["two videos, a row each"]
    assert errors is None if version_key(checkout.version) < (0, 4) else max(errors) < 1e-4


def test_of_two_routes_the_last_one_counts(neighbours: dict[str, Any]) -> None:
    assert neighbours["stacked"]
    assert "This replaces the route" in neighbours["stacked text"]
    assert "blocks 1 to 3 (double_blocks 1 to single_blocks 1)" in neighbours["stacked text"]
    assert "20 image tokens" in neighbours["stacked text"]


def test_a_route_may_scale_the_rates(neighbours: dict[str, Any]) -> None:
    assert neighbours["factor"] and neighbours["order"]


def test_split_batches_keep_the_same_tokens(neighbours: dict[str, Any]) -> None:
    assert neighbours["calls"] == [4, 2, 2]
    assert neighbours["split"] < 1e-6


def test_regions_are_routed_like_pictures_of_their_size(neighbours: dict[str, Any]) -> None:
    assert neighbours["regions"] < 1e-5


def test_nothing_is_compiled_anew_from_step_to_step(neighbours: dict[str, Any]) -> None:
    errors, graphs = zip(*neighbours["compiled"], strict=True)
    assert max(errors) < 1e-6
    assert 0 < graphs[0] == graphs[-1]


def test_a_second_device_routes_its_own_blocks(neighbours: dict[str, Any]) -> None:
    assert neighbours["other device"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unet", "UNetModel, a U-Net; it works with FLUX.1, FLUX.2, Chroma"),
        ("past the end", "route 2 -> 9 leaves the network"),
        ("no route", "put Token Route in front of this node"),
        ("weak model", "The weak model has no token route"),
        ("factor over 1", "multiplies gamma_weak 0.75 by its gamma_factor 1.5, which is 1.125"),
        ("mask of everything", "The mask keeps 20 of 20 tokens, so the strong and the weak branch leave out the same"),
        ("class labels", "needs a class-conditional model"),
    ],
)
def test_one_sentence(neighbours: dict[str, Any], case: str, words: str) -> None:
    assert words in neighbours[case]
    assert "\n" not in neighbours[case]
