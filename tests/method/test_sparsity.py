"""Routes and masks: where they lie in a network, and the JSON that records them."""

import json
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sparsity import LAYERS, Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig

ratios = st.floats(0, 1, exclude_max=True)
layers = st.integers(-LAYERS, LAYERS)
ends = st.tuples(st.integers(-40, 40), st.integers(-40, 40))


@pytest.mark.parametrize(("route", "depth", "layers"), [
    (Route(2, 24), 28, range(2, 25)),  # the paper's r_{2->24}: 23 of 28 layers
    (Route(2, -2), 12, range(2, 11)),
    (Route(-3, -1), 12, range(9, 12)),
    (Route(0, -1), 1, range(0, 1)),
    (Route(4, 4), 12, range(4, 5)),
])  # fmt: skip
def test_both_ends_are_inside_and_negative_ends_count_from_the_end(route, depth, layers):
    assert route.layers(depth) == layers


@given(ends, st.integers(1, 40))
def test_a_route_fits_or_says_why(pair, depth):
    start, end = pair
    inside = all(-depth <= layer < depth for layer in pair)
    if not inside:
        with pytest.raises(
            ValueError, match=f"route {start} -> {end} leaves the network: it has layers 0 to {depth - 1}"
        ):
            Route(start, end).layers(depth)
    elif start % depth > end % depth:
        with pytest.raises(ValueError, match=f"route {start} -> {end} is reversed"):
            Route(start, end).layers(depth)
    else:
        assert list(Route(start, end).layers(depth)) == list(range(depth))[start % depth : end % depth + 1]


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_ratios_are_fractions(ratio):
    with pytest.raises(ValueError, match=r"route ratio .* is outside"):
        Route(0, 1, ratio)
    with pytest.raises(ValueError, match=r"mask ratio .* is outside"):
        Sparsity(mask=ratio)


def test_a_network_is_routed_or_masked():
    with pytest.raises(ValueError, match="either routed or masked"):
        Sparsity((Route(0, 1),), mask=0.5)


def test_only_an_empty_sparsity_is_false():
    assert not Sparsity()
    assert Sparsity((Route(0, 1),))
    assert Sparsity(mask=0.0) and Sparsity(mask=0.5)


@given(st.sets(st.integers(0, 30), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_stretches_cover_every_layer_once_and_in_order(cuts, random):
    cuts = sorted(cuts)
    depth = cuts[-1] + 1
    routes = [Route(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    shuffled = random.sample(routes, len(routes))
    stretches = list(Sparsity(tuple(shuffled)).stretches(depth))
    assert [layer for stretch, _ in stretches for layer in stretch] == list(range(depth))
    routed = [(stretch, number) for stretch, number in stretches if number is not None]
    assert routed == [(route.layers(depth), number) for number, route in enumerate(routes)]


def test_neighbouring_routes_touch_but_never_overlap():
    touching = list(Sparsity((Route(1, 3), Route(4, 5))).stretches(6))
    assert [stretch for stretch, number in touching if number is not None] == [range(1, 4), range(4, 6)]
    for second in (Route(3, 5), Route(2, 2), Route(-3, -1)):
        with pytest.raises(ValueError, match="two routes overlap at layer"):
            list(Sparsity((Route(1, 3), second)).stretches(6))


def test_a_route_outside_is_found_by_the_network():
    with pytest.raises(ValueError, match="leaves the network"):
        list(Sparsity((Route(1, 6),)).stretches(6))


def test_json_has_the_trainers_keys():
    text = Sparsity((Route(2, -2, 0.5),)).to_json()
    assert json.loads(text) == {"routes": [{"start_layer_idx": 2, "end_layer_idx": -2, "selection_ratio": 0.5}]}
    assert Sparsity.from_json(text.replace("}]}", ', "note": "extra keys of a trainer"}]}')) == Sparsity(
        (Route(2, -2),)
    )


@given(st.one_of(
    st.builds(Sparsity, st.lists(st.builds(Route, layers, layers, ratios), max_size=4).map(tuple)),
    st.builds(Sparsity, mask=ratios),
))  # fmt: skip
def test_json_round_trip(sparsity):
    assert Sparsity.from_json(sparsity.to_json()) == sparsity


@pytest.mark.parametrize("text", [
    "", "not json", "[]", "3", "null", '"mask_ratio"', "{}", '{"routes": 3}', '{"routes": [{"start_layer_idx": 1}]}',
    '{"routes": [{"start_layer_idx": "a", "end_layer_idx": 2, "selection_ratio": 0.5}]}',
    '{"routes": [{"start_layer_idx": 2.5, "end_layer_idx": 9, "selection_ratio": 0.5}]}',
    '{"routes": [{"start_layer_idx": Infinity, "end_layer_idx": 2, "selection_ratio": 0.5}]}',
    '{"mask_ratio": "half"}', "[" * 100_000,
])  # fmt: skip
def test_anything_else_is_not_a_route(text):
    with pytest.raises(ValueError, match=r"not a route: .*expected JSON such as \{\"routes\""):
        Sparsity.from_json(text)


def test_a_bad_ratio_in_json_is_named():
    with pytest.raises(ValueError, match=r"route ratio 1\.0 is outside"):
        Sparsity.from_json('{"routes": [{"start_layer_idx": 1, "end_layer_idx": 2, "selection_ratio": 1}]}')


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["routes", "mask_ratio", "start_layer_idx", "end_layer_idx"]), inner),
).map(json.dumps))  # fmt: skip
def test_any_json_is_read_or_refused(text):
    try:
        Sparsity.from_json(text)
    except ValueError as error:
        assert str(error)


TREAD = '{"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}'


@pytest.mark.parametrize(
    "text",
    [
        TREAD,
        f'{{"seed": 42, "tread_config": {TREAD}, "use_ema": false}}',
        f'"tread_config": {TREAD},',
        f'{{"--tread_config": "{TREAD}"}}'.replace('"{', "'{").replace('}"', "}'"),
        f"--tread_config={TREAD}",
        f"--tread_config='{TREAD}' \\\n",
        f"--tread_config {TREAD}",
        f"'--tread_config={TREAD}'",
        f'"--tread_config={TREAD}"',
        '--tread_config="{}"'.format(TREAD.replace('"', '\\"')),
        '--tread_config="{}"'.format(TREAD.replace('"', "'")),
        TREAD.replace('"', "'"),
    ],
    ids=[
        *("route", "whole configuration", "one line of it", "as text", "option", "quoted value", "value apart"),
        *("quoted option", "option in double quotes", "escaped", "Python in quotes", "Python"),
    ],
)
def test_a_trainers_configuration_is_taken_as_it_is(text):
    assert Sparsity.from_trainer(text) == Sparsity((Route(2, -2, 0.5),))


@pytest.mark.parametrize(
    "text", ["hello", "--tread_config=hello", "[1]", "{}", '{"tread_config": 3}', '{"tread_config": null}', "{" * 5000]
)
def test_what_is_no_route_is_refused(text):
    with pytest.raises(ValueError, match="not a route"):
        Sparsity.from_trainer(text)


@pytest.mark.parametrize("text", ["--tread_config=a{}b", "--tread_config=a{}\\", "'--tread_config={}"])
def test_a_long_text_is_refused_at_once(text):
    """The editor asks about it when a file is opened, and nothing else runs meanwhile."""
    began = time.process_time()
    with pytest.raises(ValueError, match="not a route"):
        Sparsity.from_trainer(text.format(" " * 60_000))
    assert time.process_time() - began < 2


def test_a_text_longer_than_any_configuration_is_not_read():
    with pytest.raises(ValueError, match="not a route: this text has 200,000 characters"):
        Sparsity.from_trainer("1," * 100_000)


FIVE = [(1, 5, 0.1), (6, 12, 0.25), (13, 20, 0.4), (21, 26, 0.25), (27, 28, 0.1)]


def test_numbers_of_layers_are_bounded():
    """The error does not quote four thousand digits."""
    with pytest.raises(ValueError, match="not a route") as error:
        Sparsity.from_trainer(
            '{"routes": [{"start_layer_idx": ' + "9" * 4000 + ', "end_layer_idx": 1, "selection_ratio": 0}]}'
        )
    assert len(str(error.value)) < 300


def test_factors_are_a_key_of_their_own_beside_the_trainers():
    plain = Sparsity((Route(2, -2, 0.5),))
    assert plain.to_dict() == {"routes": [{"start_layer_idx": 2, "end_layer_idx": -2, "selection_ratio": 0.5}]}
    assert plain.factors(30) == ()
    five = Sparsity(tuple(Route(*values, factor=values[2] / 0.4) for values in FIVE))
    assert five.factors(30) == pytest.approx((0.25, 0.625, 1, 0.625, 0.25))
    assert Sparsity.from_json(five.to_json()) == five
    assert "gamma_factor" not in five.to_dict()["routes"][2]


@pytest.mark.parametrize("first", [8, -2])
def test_a_factor_belongs_to_its_route_in_whatever_order_they_are_written(first):
    """Layers 8 and 9 of ten see more tokens than 2 and 3, also where nothing but the depth tells their order."""
    routes = Route(first, -1, factor=0.5), Route(2, 3, factor=1.0)
    for written in (routes, routes[::-1]):
        sparsity = Sparsity(written)
        placed = [layers for layers, number in sparsity.stretches(10) if number is not None]
        assert dict(zip(placed, sparsity.factors(10), strict=True)) == {range(2, 4): 1.0, range(8, 10): 0.5}
        network = DiT(DiTConfig(16, 2, 4, 16, 10, 2, num_classes=3), sparsity)
        kept = Evaluation((Branch(0.5),)).prepare(network, torch.zeros(1, 4, 16, 16)).kept
        assert [index.shape[1] for (index,) in kept] == [32, 48]


@pytest.mark.parametrize("factor", ["-1", "NaN", "Infinity"])
def test_a_factor_is_a_number_from_zero(factor):
    route = f'{{"start_layer_idx": 2, "end_layer_idx": 4, "selection_ratio": 0.5, "gamma_factor": {factor}}}'
    with pytest.raises(ValueError, match="gamma_factor"):
        Sparsity.from_json(f'{{"routes": [{route}]}}')


def test_rates_over_one_are_named():
    five = Sparsity(tuple(Route(*values, factor=values[2] / 0.25) for values in FIVE))
    five.check_rates(0.5, 0.6)
    with pytest.raises(ValueError, match=r"13 -> 20 multiplies gamma_weak 0.9 by its gamma_factor 1.6, which is 1.44"):
        five.check_rates(0.5, 0.9)
    with pytest.raises(ValueError, match="gamma_strong 0.7"):
        five.check_rates(0.7, 0.5)
