"""Settings of a training run that are refused, each in one sentence."""

import pytest

from sparse_model.training.config import CONFIGS, changed


@pytest.mark.parametrize(("assignment", "message"), [
    ("batch=0", "'batch=0' does not fit: it must be at least 1."),
    ("steps=-3", "'steps=-3' does not fit: it must be at least 1."),
    ("steps=abc", "'steps=abc' does not fit: steps is a whole number, such as 10000."),
    ("steps=1.5", "'steps=1.5' does not fit: steps is a whole number"),
    ("steps=true", "'steps=true' does not fit: steps is a whole number"),
    ("steps=", "'steps=' does not fit: steps is a whole number"),
    ("rate=NaN", "'rate=NaN' does not fit: rate is a number"),
    ("rate=Infinity", "'rate=Infinity' does not fit: rate is a number"),
    ("output=foo", "'output=foo' does not fit: use one of data, velocity."),
    ("precision=fp16", "'precision=fp16' does not fit: use one of no, bf16."),
    ("label_drop=2", "'label_drop=2' does not fit: it must be from 0 to 1."),
    ("held_out=0", "'held_out=0' does not fit: it must be at least 1."),
    ("compile=1", "'compile=1' does not fit: compile is true or false"),
    ("filters=[1]", "'filters=[1]' does not fit: filters is a JSON object"),
    ('filters={"set": ["noto"]}', "'filters' knows no 'set'; use sets, categories, min_sets, min_count."),
    ('filters={"sets": "noto"}', "'filters' does not fit: sets is a list of names such as [\"noto\"]."),
    ('filters={"categories": [1]}', "'filters' does not fit: categories is a list of names"),
    ('filters={"min_count": "4"}', "'filters' does not fit: min_count is a whole number."),
    ("sparsity=0.5", "'sparsity' cannot be set as a whole."),
    ("network.width=130", "'network.width=130' does not fit: it must be a multiple of 4 (network.heads)."),
    ("network.heads=0", "'network.heads=0' does not fit: it must be from 1 to 1024."),
    ("network.patch_size=5", "'network.input_size=32' does not fit: it must be a multiple of 5 (network.patch_size)."),
    ("network.depth=x", "'network.depth=x' does not fit: network.depth is a whole number, such as 12."),
    ("steps=" + "[" * 100_000, "does not fit: steps is a whole number"),
])  # fmt: skip
def test_a_setting_that_does_not_fit(assignment, message):
    with pytest.raises(ValueError) as caught:
        changed("icons-32", [assignment])
    assert message in str(caught.value)


def test_settings_that_fit():
    given = ["steps=9000", "rate=1", "title=2024", "compile=true", "network.width=256", 'filters={"sets": ["noto"]}']
    config = changed("icons-32", given)
    assert (config.steps, config.rate, config.title, config.compile) == (9000, 1, "2024", True)
    assert config.network.width == 256 and config.filters == {"sets": ["noto"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_ready_configurations_fit(name):
    assert changed(name, []) == CONFIGS[name]
