"""What a checkpoint says about itself, to metadata and back."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_model.checkpoints.metadata import KEY, from_metadata, to_metadata
from sparse_model.checkpoints.spec import ModelSpec, Setting
from sparse_model.method.prediction import EDM, Epsilon, Flow
from sparse_model.method.schedule import INTERPOLATIONS, PRESETS, Curve, Schedule, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiTConfig
from sparse_model.networks.maskdit import MaskDiTConfig
from sparse_model.networks.microdit import MicroDiTConfig
from sparse_model.networks.nitro_mmdit import NitroMMDiTConfig
from sparse_model.networks.sprint import SprintConfig

sizes = st.integers(1, 2048)
rates = st.floats(0, 1, exclude_max=True)
predictions = st.one_of(
    st.builds(Flow, st.sampled_from(["velocity", "data"]), st.sampled_from([0, 1]), st.floats(0.1, 1000)),
    st.builds(Epsilon),
    st.builds(EDM, st.floats(0.1, 2)),
)
curves = st.builds(
    lambda pairs, kind: Curve(tuple(sorted(pairs.items())), kind),
    st.dictionaries(rates, rates, min_size=1, max_size=4), st.sampled_from(list(INTERPOLATIONS)),
)  # fmt: skip
schedules = st.builds(
    Schedule, curves, curves, curves, st.sampled_from(["CFG + SG", "AG + SG", "ICG"]),
    st.floats(0, 0.5), st.floats(0.5, 1), st.sampled_from(["exact", "bernoulli", "structured"]),
)  # fmt: skip
models = st.one_of(
    st.tuples(st.just("dit"), st.builds(DiTConfig, sizes, sizes, sizes, sizes, sizes, sizes, st.floats(1, 8), sizes)),
    st.tuples(st.just("sprint"), st.builds(SprintConfig, *[sizes] * 6, st.floats(1, 8), *[sizes] * 3, st.booleans())),
    st.tuples(st.just("maskdit"), st.builds(MaskDiTConfig, sizes, sizes, sizes, sizes, sizes, sizes, sizes, sizes)),
)
several = st.lists(sizes, max_size=3).map(tuple)
micro = dict.fromkeys(("attention", "hidden", "experts"), several) | dict.fromkeys(
    ("input_size", "width", "depth", "mixer_width", "mixer_depth", "text_width", "text_hidden", "head_width"), sizes
)
models |= st.tuples(st.just("microdit"), st.builds(MicroDiTConfig, **micro))
models |= st.tuples(st.just("nitro-mmdit"), st.builds(NitroMMDiTConfig, input_size=sizes, depth=sizes, dual=sizes))
sparsities = st.one_of(
    st.builds(Sparsity, st.lists(st.builds(Route, st.integers(-9, 9), st.integers(-9, 9), rates)).map(tuple)),
    st.builds(Sparsity, mask=rates),
)
specs = st.builds(
    lambda model, *rest, **named: ModelSpec(*model, *rest, **named),
    models, predictions, sparsities, labels=st.lists(st.text()).map(tuple), latent=st.sampled_from(["pixels", "sd"]),
    schedule=st.none() | schedules, steps=st.integers(1, 500), title=st.text(min_size=1), license=st.text(),
    settings=st.lists(st.builds(Setting, st.text(), schedules, st.integers(1, 500)), max_size=2).map(tuple),
)  # fmt: skip


@given(specs)
@settings(max_examples=50)
def test_metadata_round_trip(spec):
    metadata = to_metadata(spec)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items())
    assert from_metadata(metadata) == spec


@pytest.mark.parametrize("schedule", PRESETS.values(), ids=PRESETS)
def test_recommended_schedules_survive(schedule):
    spec = ModelSpec("dit", DiTConfig(), Flow(), schedule=schedule, title="demo")
    assert from_metadata(to_metadata(spec)).schedule == schedule


def test_a_setting_is_found_by_its_name():
    names = {"half": 20, "Half": 21, "SG, 0.5 of CFG": 22, "half (20 steps)": 23}
    settings = tuple(Setting(name, PRESETS["SG_FLOPS"], steps) for name, steps in names.items())
    spec = ModelSpec("dit", DiTConfig(), Flow(), settings=settings)
    assert {setting.name: spec.setting(setting.name).steps for setting in spec.settings} == names
    assert spec.setting("HALF").steps == 20
    for written in ("sg, 0.5 OF cfg", "SG, 0.5 of CFG (22 steps)", "'SG, 0.5 of CFG'", str(settings[2])):
        assert spec.setting(written).steps == 22, written
    spec = replace(spec, settings=settings[:1])
    with pytest.raises(ValueError, match=r"^This model's file has no settings 'fast'; it offers 'half'\.$"):
        spec.setting("fast")
    with pytest.raises(ValueError) as caught:
        replace(spec, settings=(Setting("y" * 100_000, PRESETS["SG_FLOPS"], 20),)).setting("x" * 100_000)
    assert len(str(caught.value)) < 500
    with pytest.raises(ValueError, match=r"'fast'; it names none, so leave this empty\.$"):
        replace(spec, settings=()).setting("fast")


def test_metadata_follows_modelspec():
    spec = ModelSpec("maskdit", MaskDiTConfig(), EDM(), Sparsity(mask=0.5), ("cat",), title="T", license="MIT")
    metadata = to_metadata(spec)
    assert metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert metadata["modelspec.architecture"] == "sparse-maskdit"
    assert (metadata["modelspec.title"], metadata["modelspec.license"]) == ("T", "MIT")
    assert metadata["modelspec.resolution"] == "256x256"  # a latent of 32, 8 pixels each
    record = json.loads(metadata[KEY])
    assert record["architecture"] == "maskdit" and record["sparsity"] == {"mask_ratio": 0.5}
    assert record["labels"] == ["cat"] and record["prediction"]["kind"] == "edm"
    pixels = to_metadata(ModelSpec("dit", DiTConfig(input_size=64), Epsilon(), latent="pixels"))
    assert pixels["modelspec.resolution"] == "64x64" and pixels["modelspec.prediction_type"] == "epsilon"


@pytest.fixture
def record():
    spec = ModelSpec("dit", DiTConfig(), Flow(), Sparsity((Route(2, -2),)), ("cat",), schedule=constant(0.5, 0.9, 1.5))
    return json.loads(to_metadata(spec)[KEY])


def read(record):
    return from_metadata({KEY: json.dumps(record)})


def test_older_and_newer_files(record):
    """Keys that a version does not know are left out, and fields it added have defaults."""
    record["config"]["invented_later"] = 3
    record["invented_later"] = {}
    for name in ("labels", "latent", "schedule", "steps"):
        del record[name]
    del record["config"]["learn_sigma"]
    spec = read(record)
    assert spec.config == DiTConfig() and spec.schedule is None and spec.steps == 40


@pytest.mark.parametrize(("path", "value", "message"), [
    (("architecture",), "unet", r"architecture 'unet' is unknown here; known: dit, maskdit"),
    (("sparsity", "routes"), [{"start_layer_idx": 1}], "not a route"),
    (("sparsity",), None, "not a route"),
    (("schedule", "rule"), "magic", "rule 'magic' is unknown"),
    (("schedule", "gamma_weak", "keyframes"), [[0, 0.1]], "weak branch must be sparser"),
    (("schedule", "gamma_weak"), 3, "metadata is damaged"),
    (("prediction", "kind"), "guess", "metadata is damaged"),
    (("prediction",), [], "metadata is damaged"),
    (("config",), None, "metadata is damaged"),
    (("labels",), 5, "metadata is damaged"),
    (("steps",), float("inf"), "metadata is damaged"),
])  # fmt: skip
def test_damaged_metadata_says_so(record, path, value, message):
    *parents, last = path
    target = record
    for name in parents:
        target = target[name]
    target[last] = value
    with pytest.raises(ValueError, match=message):
        read(record)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", "[" * 100_000])
def test_metadata_that_is_no_record(text):
    with pytest.raises(ValueError, match=f"'{KEY}' metadata is damaged"):
        from_metadata({KEY: text})


def test_published_sizes():
    assert ModelSpec.published("SiT-XL/2") == ModelSpec("dit", DiTConfig(32, 2, 4, 1152, 28, 16), Flow())
    routed = ModelSpec.published("DiT-B/4", Sparsity((Route(2, 8),)))
    assert routed.config == DiTConfig(32, 4, 4, 768, 12, 12) and routed.prediction == Epsilon()
    for name in ("XL/2", "UNet-XL/2", "SiT-XXL/2", "SiT-XL", "SiT-XL/x", "SiT-XL/0", ""):
        with pytest.raises(ValueError, match=r"is unknown|is not a published size"):
            ModelSpec.published(name)
    for name in ("XXL/2", "XL"):
        with pytest.raises(ValueError, match="is not a published size; write S, B, L, XL, H"):
            MaskDiTConfig.named(name)


def test_a_spec_describes_itself():
    text = ModelSpec("dit", DiTConfig(), Flow(), Sparsity((Route(2, 24, 0.5),))).describe()
    for part in (
        "dit",
        "28 layers of width 1152",
        "256 tokens",
        "layers 2 to 24 routed at ratio 0.5",
        "flow",
        "1000 labels",
    ):
        assert part in text
    assert "masked at ratio 0.5" in ModelSpec("maskdit", MaskDiTConfig(), EDM(), Sparsity(mask=0.5)).describe()
    assert "no token route" in ModelSpec("dit", DiTConfig(), Epsilon()).describe()
    assert "\n" not in text


def test_specs_can_be_compared_and_hashed(record):
    assert hash(read(record)) == hash(read(record))
    assert torch.is_tensor(read(record).prediction.sigmas(3))
