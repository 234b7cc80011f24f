"""A training run in files that are small enough to carry away, and back into a folder to go on from.

python benchmarks/carry.py pack RUN FOLDER        RUN's state, checkpoints and log -> FOLDER/training.00, .01, ...
python benchmarks/carry.py unpack FOLDER RUN      does nothing where FOLDER has none, or RUN has a state
python benchmarks/carry.py pictures FROM.npz TO.npz CONFIG     the pictures that a training by CONFIG can choose

The networks' weights are kept in float16 and the optimizers' tensors in bfloat16: the run goes on from rounded ones.
"""

import io
import lzma
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from safetensors.torch import load, load_file, save, save_file

from sparse_model.training.config import CONFIGS
from sparse_model.training.packed import read_packed

PIECE = 15 * 2**20
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 1, "lp": 1, "lc": 3, "pb": 1}]  # numbers of two bytes
OPTIMIZERS = "optimizers.safetensors"


def pieces_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("training.[0-9][0-9]"))


def rounded(path: Path) -> bytes:
    """A safetensors file of a state with its float32 tensors in half the bytes."""
    kind = torch.bfloat16 if path.name == OPTIMIZERS else torch.float16
    tensors = load_file(path)
    # a tensor without dimensions counts steps, which a rounded number would not
    small = {name: value.to(kind) for name, value in tensors.items() if value.dtype == torch.float32 and value.ndim}
    return save(tensors | small)


def pack(run: Path, folder: Path) -> list[Path]:
    """The pieces that were written."""
    buffer = io.BytesIO()
    grids = sorted(run.glob("grid-*.png"))[-1:]
    whole = [path for path in (run / "early.safetensors", run / "log.jsonl", run / "config.json") if path.is_file()]
    with lzma.open(buffer, "wb", filters=FILTERS) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted((run / "state").glob("*")):
            data = rounded(path) if path.suffix == ".safetensors" else path.read_bytes()
            entry = tarfile.TarInfo(f"state/{path.name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for path in (*whole, *grids):
            archive.add(path, path.name)
    for piece in pieces_in(folder):
        piece.unlink()
    data, pieces = buffer.getvalue(), []
    for number, start in enumerate(range(0, len(data), PIECE)):
        pieces.append(folder / f"training.{number:02}")
        pieces[-1].write_bytes(data[start : start + PIECE])
    return pieces


def unpack(folder: Path, run: Path) -> bool:
    """Whether there was anything to put into `run`."""
    pieces = pieces_in(folder)
    if not pieces or (run / "state").is_dir():
        return False
    run.mkdir(parents=True, exist_ok=True)
    data = lzma.decompress(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(run, filter="data")
    for path in (run / "state").glob("*.safetensors"):
        tensors = load(path.read_bytes())
        halves = (torch.float16, torch.bfloat16)
        save_file(tensors | {name: value.float() for name, value in tensors.items() if value.dtype in halves}, path)
    return True


def pictures(whole: Path, small: Path, name: str) -> int:
    """Writes the pictures of the sets and categories of a configuration, which a training by it chooses from as it does
    from the whole file -> how many there are."""
    data, filters = read_packed(whole), CONFIGS[name].filters
    sets, categories = filters.get("sets", ()), filters.get("categories", ())
    sources = np.array([name.partition(":")[0] for name in data["names"]])
    keep = np.isin(sources, sets) if sets else np.ones(len(sources), dtype=bool)
    if categories:
        keep &= np.isin(data["categories"], categories)
    chosen, offsets = np.flatnonzero(keep), data["label_offsets"]
    rows = [data["labels"][offsets[i] : offsets[i + 1]] for i in chosen]
    arrays = {name: data[name][chosen] for name in ("images", "names", "categories")}
    arrays |= {"label_names": data["label_names"], "labels": np.concatenate(rows)}
    np.savez_compressed(small, label_offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64), **arrays)
    return len(chosen)


def main() -> None:
    what, first, second = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if what == "pictures":
        count = pictures(first, second, sys.argv[4])
        print(f"{second}: {count} pictures, {second.stat().st_size / 2**20:.1f} MiB")
    elif what == "pack":
        for piece in pack(first, second):
            print(f"{piece}: {piece.stat().st_size / 2**20:.1f} MiB")
    elif unpack(first, second):
        print(f"{second}: goes on from what {first} holds")


if __name__ == "__main__":
    main()
