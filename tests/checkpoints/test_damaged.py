"""Hundreds of damaged files: each is loaded as what it says, or refused in one sentence that names it. Never a
traceback, never Python's own words, never a wait or a heap of memory."""

import copy
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparse_model.__main__ import main
from sparse_model.checkpoints.checkpoint import CheckpointError, load
from sparse_model.checkpoints.metadata import KEY, RECORD, to_metadata
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import Text, TextSpec
from sparse_model.method.prediction import Flow
from sparse_model.method.schedule import constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig
from sparse_model.networks.prx import PRX, PRXConfig

ROOT = Path(__file__).parents[2]
CONFIG = DiTConfig(8, 2, 3, width=64, depth=2, heads=1, num_classes=3)
SPEC = ModelSpec(
    "dit", CONFIG, Flow("data", 0, 1000.0), Sparsity((Route(0, 1),)), tuple("abc"), "pixels", constant(0.5, 0.9, 1.5)
)
PROMPTED = PRXConfig(8, 2, 16, width=32, depth=2, heads=2, mlp_ratio=2.0, text_width=12)
PYTHONS_OWN = (
    "unpack", "NoneType", "object ", "literal", "index out", "not convert", "attribute", "Traceback", "Error", "codec",
)  # fmt: skip
WRONG = [None, True, -1, 0, 3.5, 1e30, 2**70, "", "x", [], [[]], [1, "a"], {}, {"a": 1}, float("nan")]


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return DiT(CONFIG).state_dict()


def paths_in(value, path=()) -> Iterator[tuple]:
    """The place of every value in a JSON record."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from paths_in(entry, (*path, name))


def records(folder: Path) -> Iterator[Path]:
    """Every value of a record, replaced by values of other types and by absurd ones; and every one left out."""
    record, tensors, pick = json.loads(to_metadata(SPEC)[KEY]), state(), random.Random(0)
    for number, path in enumerate(list(paths_in(record))[1:]):
        for choice, wrong in enumerate(["gone", *pick.sample(WRONG, 5)]):
            changed = copy.deepcopy(record)
            place = changed
            for name in path[:-1]:
                place = place[name]
            if choice:
                place[path[-1]] = wrong
            else:
                del place[path[-1]]
            file = folder / f"record-{number}-{choice}.safetensors"
            save_file(tensors, file, {KEY: json.dumps(changed)})
            yield file


def texts(folder: Path) -> Iterator[Path]:
    """Records that are not JSON objects at all."""
    for number, text in enumerate(
        ["", "{", "null", "3", "[]", "{}", '{"architecture": "dit"}', "[" * 100_000, "\ud7ff"]
    ):
        file = folder / f"text-{number}.safetensors"
        save_file(state(), file, {KEY: text})
        yield file


def keys(folder: Path) -> Iterator[Path]:
    """Without a record: each tensor missing, of other dimensions, or of whole numbers; numbers of layers that cannot
    be; strangers."""
    whole = state()
    changes: list[dict] = [{key: None} for key in list(whole)[::3]]
    for key in list(whole)[::4]:
        value = whole[key]
        changes += [{key: value.reshape(-1)}, {key: value[None]}, {key: value.new_zeros(0)}, {key: value.int()}]
    changes += [{f"blocks.{number}.x": torch.zeros(1)} for number in (7, 10**9, 10**40, "a", -1, "")]
    changes += [
        {key: torch.zeros(1)}
        for key in ("x" * 100_000, "a\nb", "\x1b[2J", "\u043a\u043b\u044e\u0447", "blocks.0.attn.qkv.scale")
    ]
    for text in (b"", b"3", b"[" * 100_000, b'{"sparse_model": 3}', b'{"sparse_model": "{}"}', b"\xff", b'{"a": "b"}'):
        changes.append({RECORD: torch.frombuffer(bytearray(text or b" "), dtype=torch.uint8)})
    changes += [{RECORD: torch.zeros(3)}, {RECORD: torch.zeros(0, dtype=torch.uint8)}]
    for number, change in enumerate(changes):
        file = folder / f"keys-{number}.safetensors"
        save_file({key: value for key, value in {**whole, **change}.items() if value is not None}, file)
        yield file


def bytes_of_safetensors(folder: Path) -> Iterator[Path]:
    """A whole file cut anywhere, with single bytes changed, and with other headers."""
    good = folder / "good.safetensors"
    save_file(state(), good, to_metadata(SPEC))
    data, pick = good.read_bytes(), random.Random(1)
    length = struct.unpack("<Q", data[:8])[0]
    versions = [data[:size] for size in (0, 1, 7, 8, 9, 100, length, length + 8, len(data) // 2, len(data) - 1)]
    for place in [*range(8), *(pick.randrange(8, length + 8) for _ in range(60))]:
        versions.append(data[:place] + bytes([pick.randrange(256)]) + data[place + 1 :])
    header = json.loads(data[8 : 8 + length])
    for entry in (
        {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}, {"dtype": "F32", "shape": [-1]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}, [], None, {"dtype": "F32"},
        {"dtype": "F32", "shape": [1], "data_offsets": [2**60, 2**60 + 4]}, {"dtype": "C64", "shape": "x"},
    ):  # fmt: skip
        text = json.dumps({**header, "pos_embed": entry}).encode()
        versions.append(struct.pack("<Q", len(text)) + text + data[8 + length :])
    for number, version in enumerate(versions):
        file = folder / f"bytes-{number}.safetensors"
        file.write_bytes(version)
        yield file


def pickles(folder: Path) -> Iterator[Path]:
    """Objects that are not weights, tensors that are not ordinary, and pickles cut and changed."""
    whole = state()
    loop: dict = {"step": 1}
    loop["model"] = loop
    deep: dict = whole
    for _ in range(50):
        deep = {"model": deep}
    table = whole["pos_embed"]
    strange = {
        "sparse": table.to_sparse(), "meta": table.to("meta"), "repeated": torch.zeros(1).expand(table.shape),
        "complex": table.to(torch.complex64), "bool": table.bool(), "scalar": torch.tensor(1.0),
        "nested": torch.nested.nested_tensor([torch.zeros(2, 2), torch.zeros(1, 2)]),
        "quantised": torch.quantize_per_tensor(table, 0.1, 0, torch.qint8), "empty": torch.zeros(1, 0, 64),
    }  # fmt: skip
    objects = [
        loop, deep, [1], None, 3, "text", {}, {"model": None}, {"model": {"state_dict": []}}, {1: torch.zeros(1)},
        {None: torch.zeros(1)}, {(1, 2): torch.zeros(1)}, torch.zeros(3), {"ema": {"ema": {"ema": loop}}},
        *({**whole, "pos_embed": value} for value in strange.values()),
    ]  # fmt: skip
    for number, data in enumerate(objects):
        file = folder / f"object-{number}.pt"
        torch.save(data, file)
        yield file
    torch.save(whole, folder / "good.pt")
    data, pick = (folder / "good.pt").read_bytes(), random.Random(2)
    versions = [data[:size] for size in (1, 4, 50, 500, len(data) // 2, len(data) - 30, len(data) - 1)]
    for _ in range(40):
        place = pick.randrange(len(data)) if pick.random() < 0.3 else pick.randrange(4000)
        versions.append(data[:place] + bytes([pick.randrange(256)]) + data[place + 1 :])
    versions += [pickle.dumps(value) for value in (1, [], {"a": 1}, os.system)] + [
        b"\x80",
        b"\x80\x02",
        b"PK",
        b"\0" * 99,
    ]
    for number, version in enumerate(versions):
        file = folder / f"pickle-{number}.pt"
        file.write_bytes(version)
        yield file


def shards(folder: Path) -> Iterator[Path]:
    """Indices that are none, or that name what they must not, and what a folder may hold in place of files."""
    for number, text in enumerate(
        ["", "{", "[]", "null", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}',
         '{"weight_map": {"a": ""}}', '{"weight_map": {"a": ".."}}', '{"weight_map": {"a": "/etc/passwd"}}',
         '{"weight_map": {"a": null, "b": "x.safetensors"}}', '{"weight_map": {"a": "x"}}', "[" * 100_000, "\udcff"]
    ):  # fmt: skip
        file = folder / f"index-{number}.safetensors.index.json"
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        yield file
    for name in ("a.safetensors", "a.pt", "a.safetensors.index.json", "a-00001-of-00002.safetensors"):
        pipe = folder / f"pipe-{name}"
        os.mkfifo(pipe)
        yield pipe
    (folder / "folder.safetensors").mkdir()
    yield folder / "folder.safetensors"
    yield folder / "nothing.safetensors"


def prompted(folder: Path) -> Iterator[Path]:
    """Models of prompts: a record without the text, with one of another width, and settings around the file."""
    network = PRX(PROMPTED)
    text = TextSpec("t5gemma-2b", 12, 4, masked=True)
    record = json.loads(to_metadata(ModelSpec("prx", PROMPTED, Flow(), latent="flux", text=text))[KEY])
    for number, change in enumerate(
        [{"text": None}, {"text": {**record["text"], "width": 13}}, {"text": {**record["text"], "length": -1}},
         {"text": []}, {"labels": ["a"]}, {"latent": "unheard of"}, {"architecture": "dit"}]
    ):  # fmt: skip
        file = folder / f"prompted-{number}.safetensors"
        save_file(network.state_dict(), file, {KEY: json.dumps({**record, **change})})
        yield file
    place = folder / "pipeline" / "transformer"
    place.mkdir(parents=True)
    (folder / "pipeline" / "scheduler").mkdir()
    save_file(network.state_dict(), place / "diffusion_pytorch_model.safetensors")
    for text in ["{", "[]", '{"shift": 1e999}', '{"shift": NaN}', '{"shift": "a"}', '{"shift": -1}', "[" * 100_000]:
        (folder / "pipeline" / "scheduler" / "scheduler_config.json").write_text(text)
        yield folder / "pipeline"


KINDS = (records, texts, keys, bytes_of_safetensors, pickles, shards, prompted)
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="pipes, and names that are not UTF-8, are POSIX's"),
    pytest.mark.filterwarnings("ignore"),
]
count = 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_is_what_it_says_or_refused_in_a_sentence(tmp_path, kind):
    global count
    for path in kind(tmp_path):
        count += 1
        start = time.process_time()
        try:
            network, spec = load(path)
        except CheckpointError as error:
            text = str(error)
            assert text.startswith(f"{path.name}: ") and text.isprintable() and len(text) < 600, (path.name, text)
            assert text[-1] in ".\u2026", (path.name, text)
            assert not any(word in text.removeprefix(path.name) for word in PYTHONS_OWN), (path.name, text)
            text.encode("utf-8")
        else:  # the damage did not matter: then it runs
            x = torch.zeros(1, spec.config.in_channels, spec.config.input_size, spec.config.input_size)
            text = spec.text and Text(torch.zeros(1, 4, spec.text.width), torch.ones(1, 4, dtype=torch.bool))
            spec.describe()
            with torch.no_grad():
                y = text or torch.zeros(1, spec.config.num_classes)
                denoised = spec.prediction.denoise(network, x, spec.prediction.sigmas(spec.steps)[:1], y)
            assert denoised.shape == x.shape, path.name
        assert time.process_time() - start < 10, path.name


def test_there_were_hundreds_of_them():
    if count:  # 0 if this test was run alone
        assert count >= 300


def test_the_command_line_ends_with_code_2(tmp_path, capsys):
    for kind in KINDS:
        path = next(path for path in kind(tmp_path) if not _loads(path))
        assert main(["inspect", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def _loads(path: Path) -> bool:
    try:
        return bool(load(path))
    except CheckpointError:
        return False


def test_names_that_are_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\x1b[2J.safetensors"))
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert str(error.value).startswith("caf? [2J.safetensors: ") and str(error.value).isprintable()
    save_file(state(), tmp_path / "good.safetensors")
    (tmp_path / "good.safetensors").rename(path)
    load(path)[1].title.encode("utf-8")


def test_compressed_weights_are_values_too(tmp_path):
    """Mapped, the bytes of a compressed archive would be taken for weights."""
    torch.save(state(), tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "deflated.pt", "w") as deflated:
        for entry in stored.infolist():
            deflated.writestr(entry.filename, stored.read(entry), zipfile.ZIP_DEFLATED)
    network, _ = load(tmp_path / "deflated.pt")
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state().items())


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_file_that_is_overwritten_takes_nothing_away(tmp_path, name):
    path, tensors = tmp_path / name, state()
    save_file(tensors, path) if name == "a.safetensors" else torch.save(tensors, path)
    network, _ = load(path)
    os.truncate(path, 0)  # mapped memory would end the process here
    assert all(torch.equal(network.state_dict()[key], value) for key, value in tensors.items())


CUT_SHORT = """
import os, shutil, sys
from pathlib import Path
import torch
from sparse_model.files import FileError
from sparse_model.tensors import opened

whole, path, cut = Path(sys.argv[1]), Path(sys.argv[1]).with_stem("copy"), lambda: os.truncate(path, 4096)
real = torch.load

def cut_at_the_start(*arguments, **options):
    cut()
    return real(*arguments, **options)

for moment in ("in the middle", "when it is open"):
    shutil.copy(whole, path)
    torch.load = cut_at_the_start if moment == "in the middle" else real
    try:
        with opened((path,)) as contents:
            cut()
            for tensor in contents.tensors.values():
                tensor.read().sum()
    except FileError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.safetensors", ["the file became shorter while it was read."] * 2),
        ("a.pt", ["not a whole PyTorch checkpoint; download or copy it again."]),
    ],
)
def test_a_file_that_is_cut_short_while_it_is_read(tmp_path, name, said):
    """In a process of its own, which mapped memory would end with a signal."""
    path = tmp_path / name
    save_file(state(), path) if name == "a.safetensors" else torch.save(state(), path)
    done = subprocess.run([sys.executable, "-c", CUT_SHORT, path], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (0, said), done.stderr[-2000:]


def rewritten(path: Path, data: bytes | None = None, more: int = 0) -> None:
    """A PyTorch archive with another pickle, or with `more` zeros that nothing refers to, deflated."""
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, data if data is not None and name.endswith("data.pkl") else content)
        if more:
            archive.writestr(f"{path.stem}/data/9", bytes(more))


class Made:
    """Pickles to a call that makes a gigabyte out of nothing, which the restricted unpickler allows."""

    def __init__(self, maker: type):
        self.maker = maker

    def __reduce__(self) -> tuple:
        return self.maker, (1 << 30 if self.maker is bytearray else 1 << 28,)


def table_that_repeats(path: Path) -> None:
    torch.save({**state(), "pos_embed": torch.zeros(1).expand(1, 1 << 22, 64)}, path)


def bytes_in_front(path: Path) -> None:
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(pickle.dumps(Made(bytearray), 2) + path.read_bytes())


LITTLE = {
    "pos_embed is stored as a view that repeats its values": table_that_repeats,
    "holds many times more than weights can be compressed": lambda path: rewritten(path, more=1 << 28),
    "holds bytes besides": lambda path: rewritten(path, pickle.dumps({"a": Made(bytearray)}, 2)),
    "holds bytes besides tensors": bytes_in_front,
    "holds tensors of more bytes than it has itself": lambda path: rewritten(
        path, pickle.dumps({"a": Made(torch.FloatTensor)}, 2)
    ),
}


@pytest.mark.parametrize("said", LITTLE)
def test_a_small_file_takes_little_memory(tmp_path, said):
    """A quarter of a gigabyte or more, in a file of at most two megabytes."""
    LITTLE[said](tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 1 << 21
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=said):
        load(tmp_path / "a.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize(
    ("name", "value"), [("depth", 10**6), ("depth", 10**9), ("width", 10**9), ("input_size", 10**6)]
)
def test_sizes_that_cannot_be_are_not_built(tmp_path, name, value):
    record = json.loads(to_metadata(SPEC)[KEY])
    record["config"][name] = value
    save_file(state(), tmp_path / "a.safetensors", {KEY: json.dumps(record)})
    start = time.process_time()
    with pytest.raises(CheckpointError, match="far more layers than it holds|which cannot be"):
        load(tmp_path / "a.safetensors")
    assert time.process_time() - start < 5


def test_the_time_grows_with_the_tensors(tmp_path):
    """Eight times the tensors take about eight times as long, not sixty-four."""
    seconds = []
    for layers in (1_000, 8_000):
        path = tmp_path / f"{layers}.safetensors"
        save_file({f"layers.{i}.weight": torch.zeros(4) for i in range(layers)}, path)
        start = time.process_time()
        with pytest.raises(CheckpointError, match="not a checkpoint of a known architecture"):
            load(path)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 5
