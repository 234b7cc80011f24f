"""A dataset of permissively licensed, coloured icons and emoji: Iconify's sets, rasterised on white, with words.

    python -m sparse_model.training.icons --out icons-32.npz --size 32

The file holds arrays only (`np.load(path, allow_pickle=False)`), N pictures and L labels in all:

    images         [N, S, S, 3] uint8
    names          [N] "set:icon-name"
    categories     [N] such as "Food & Drink"; "" where nobody says
    labels         [L] int32, label_offsets [N + 1] int64: picture i has labels[label_offsets[i]:label_offsets[i + 1]]
    label_names    the sets first, then words, the most frequent first
    licences       JSON of {set: {name, author, spdx, url}}, in the order of the set labels
"""

import argparse
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..writing import whole_file

PACKAGE = "@iconify/json@2.2.535"  # pinned: the same pictures and label ids for everyone
LICENCES = frozenset({"MIT", "Apache-2.0", "CC0-1.0", "ISC", "CC-BY-3.0", "CC-BY-4.0"})  # no share-alike
STOPWORDS = frozenset({"with", "of", "and", "in", "the", "for", "on", "at", "to", "a"})
FLAG_SETS = frozenset({"circle-flags", "flag", "flagpack", "cif"})  # icons are named by country code
EMOJI_CATEGORIES = {  # what some emoji sets call the Unicode groups
    "Activity": "Activities",
    "Animals Nature": "Animals & Nature",
    "Nature": "Animals & Nature",
    "Food": "Food & Drink",
    "Food Drink": "Food & Drink",
    "People": "People & Body",
    "Smiley People": "Smileys & People",
    "Travel": "Travel & Places",
    "Travel Places": "Travel & Places",
    "Places": "Travel & Places",
}
SUPERSAMPLING = 4  # box-averaged: thin strokes keep their weight, which the renderer's own antialiasing loses at 32 px
BLANK = 16  # a picture nowhere darker than 255 - BLANK shows nothing on white


class Icon(NamedTuple):
    """One picture to draw: its set, its name there, its category and a complete square SVG."""

    prefix: str
    name: str
    category: str
    svg: str


def select_sets(collections: dict[str, dict]) -> dict[str, dict]:
    """The coloured sets under a permissive licence; no logos, which are trademarks whatever their drawing's licence."""
    return {
        prefix: info
        for prefix, info in collections.items()
        if info.get("palette") and info["license"].get("spdx") in LICENCES and info.get("category") != "Logos"
    }


def is_emoji(prefix: str, info: dict) -> bool:
    return info.get("category") == "Emoji" or "emoji" in prefix


def words_of(name: str, prefix: str = "") -> list[str]:
    """The words of an icon's name, each once: no stopwords, aspects ("4x3"), sizes or variant numbers ("cloud-2")."""
    words = [word for word in name.lower().split("-") if word and not re.fullmatch(r"\d+x\d+", word)]
    if prefix in FLAG_SETS:
        return list(dict.fromkeys(["flag", *words]))  # "in" and "to" are countries here
    if words[:1] != ["keycap"]:
        words = [word for word in words if not re.fullmatch(r"\d\d?", word)]
    return list(dict.fromkeys(word for word in words if word not in STOPWORDS))


def is_skin_tone(name: str, names: dict) -> bool:
    """Whether an emoji is a recoloured person: "*-skin-tone*", or "artist-dark" where "artist-medium" exists too."""
    stem = re.sub(r"(-(medium-light|medium-dark|light|medium|dark))+$", "", name)
    return "skin-tone" in name or (stem != name and f"{stem}-medium" in names)


def svg_of(icon: dict, icon_set: dict) -> str:
    """A square SVG with the icon in the middle; sizes an icon does not give are its set's, or 16."""
    left, top, width, height = (
        icon.get(key, icon_set.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    side, body = max(width, height), icon["body"]
    if "<animate" in body:  # drops and sparks of an animation start invisible; a still picture shows them
        body = body.replace(' opacity="0"', "")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {side} {side}"'
        f' width="{side}" height="{side}" color="black"><svg x="{(side - width) / 2}" y="{(side - height) / 2}"'
        f' width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{body}</svg></svg>'
    )


def icons_of(sets: dict[str, dict], infos: dict[str, dict]) -> list[Icon]:
    """Every icon to draw. An emoji set without categories takes those of the same name in other sets."""
    categories = {
        prefix: {name: category for category, names in icon_set.get("categories", {}).items() for name in names}
        for prefix, icon_set in sets.items()
    }
    shared: dict[str, str] = {}
    for prefix in filter(lambda prefix: is_emoji(prefix, infos[prefix]), sets):
        categories[prefix] = {
            name: EMOJI_CATEGORIES.get(category, category) for name, category in categories[prefix].items()
        }
        shared = categories[prefix] | shared
    icons = []
    for prefix, icon_set in sets.items():
        emoji, named = is_emoji(prefix, infos[prefix]), categories[prefix]
        known = shared if emoji and not named else named
        icons += [
            Icon(prefix, name, known.get(name, ""), svg_of(icon, icon_set))
            for name, icon in icon_set["icons"].items()
            if not icon.get("hidden") and not (emoji and is_skin_tone(name, icon_set["icons"]))
        ]
    return icons


def rasterise(svg: str, size: int) -> np.ndarray | None:
    """svg -> [size, size, 3] uint8 on white, or None where the SVG is broken or shows nothing."""
    import resvg_py
    from PIL import Image

    side = size * SUPERSAMPLING
    try:  # without system fonts: the same pictures on every machine
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=side, height=side, background="#ffffff", skip_system_fonts=True
        )
    except ValueError:
        return None
    picture = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB").reduce(SUPERSAMPLING))
    return picture if picture.min() < 255 - BLANK else None


def rasterise_all(icons: list[Icon], size: int, workers: int | None = None) -> list[np.ndarray | None]:
    """`rasterise` of every icon, in order, on all cores."""
    from tqdm import tqdm

    with ProcessPoolExecutor(workers) as pool:
        drawn = pool.map(rasterise, (icon.svg for icon in icons), [size] * len(icons), chunksize=32)
        return list(tqdm(drawn, total=len(icons), unit="icon"))


def pack(icons: list[Icon], images: np.ndarray, infos: dict[str, dict], min_count: int) -> dict[str, np.ndarray]:
    """icons [N], images [N, S, S, 3] -> the arrays of the file; words of fewer than `min_count` pictures drop out."""
    words = [words_of(icon.name, icon.prefix) for icon in icons]
    counts = Counter(word for own in words for word in own)
    kept = sorted(
        (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
    )
    used = {icon.prefix for icon in icons}
    prefixes = [prefix for prefix in infos if prefix in used]
    set_id = {prefix: i for i, prefix in enumerate(prefixes)}
    word_id = {word: len(prefixes) + i for i, word in enumerate(kept)}
    labels = [
        [set_id[icon.prefix], *(word_id[word] for word in own if word in word_id)]
        for icon, own in zip(icons, words, strict=True)
    ]
    licences = {
        prefix: {
            "name": infos[prefix]["name"],
            "author": infos[prefix]["author"]["name"],
            "spdx": infos[prefix]["license"]["spdx"],
            "url": infos[prefix]["author"].get("url", ""),
        }
        for prefix in prefixes
    }
    return {
        "images": images,
        "names": np.array([f"{icon.prefix}:{icon.name}" for icon in icons], dtype=np.str_),
        "categories": np.array([icon.category for icon in icons], dtype=np.str_),
        "labels": np.array([label for own in labels for label in own], dtype=np.int32),
        "label_offsets": np.cumsum([0, *map(len, labels)], dtype=np.int64),
        # a label has one name: the set called "flag" gives way to the word
        "label_names": np.array(
            [f"{prefix}-set" if prefix in word_id else prefix for prefix in prefixes] + kept, dtype=np.str_
        ),
        "licences": np.array(json.dumps(licences, ensure_ascii=False)),
    }


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz that is either whole or not there; OSError in one sentence if it cannot be written."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def download(cache: Path) -> Path:
    """The package's .tgz, fetched once into `cache` by npm. Raises SystemExit where npm is missing or fails."""
    tgz = cache / f"iconify-json-{PACKAGE.rpartition('@')[2]}.tgz"
    if tgz.exists():
        return tgz
    if not (npm := shutil.which("npm")):
        raise SystemExit(f"npm is not installed: install Node.js, or download {PACKAGE} and name it with --source.")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as part:  # an interrupted download is not taken for the package
        command = [npm, "pack", "--loglevel=error", PACKAGE, "--pack-destination", part]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise SystemExit(f"npm could not download {PACKAGE}.")
        return Path(part, tgz.name).replace(tgz)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The folder with collections.json and json/, of a folder or of an npm .tgz."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as folder, tarfile.open(source) as tar:
        tar.extractall(
            folder, (m for m in tar if re.match(r"package/(collections\.json|json/)", m.name)), filter="data"
        )
        yield Path(folder) / "package"


def build(
    source: Path, size: int, min_count: int, workers: int | None = None, only: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of the file, and how many icons could not be drawn. `only` names the sets to take, all if empty."""
    with unpacked(source) as folder:
        infos = select_sets(json.loads((folder / "collections.json").read_text(encoding="utf-8")))
        if unknown := [prefix for prefix in only if prefix not in infos]:
            raise SystemExit(f"there is no coloured, permissively licensed icon set '{unknown[0]}' in {source}.")
        infos = {prefix: info for prefix, info in infos.items() if not only or prefix in only}
        sets = {
            prefix: json.loads((folder / "json" / f"{prefix}.json").read_text(encoding="utf-8")) for prefix in infos
        }
    icons = icons_of(sets, infos)
    drawn = [
        (icon, image)
        for icon, image in zip(icons, rasterise_all(icons, size, workers), strict=True)
        if image is not None
    ]
    if not drawn:
        raise SystemExit(f"{source} has no icon that can be drawn.")
    return pack([icon for icon, _ in drawn], np.stack([image for _, image in drawn]), infos, min_count), len(
        icons
    ) - len(drawn)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sparse_model.training.icons", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="the .npz to write")
    parser.add_argument("--size", type=int, default=32, help="pixels per side (%(default)s)")
    parser.add_argument(
        "--source", type=Path, help=f"a folder or .tgz of {PACKAGE.rpartition('@')[0]}; downloaded by npm if not given"
    )
    parser.add_argument("--min-count", type=int, default=4, help="keep words found in this many pictures (%(default)s)")
    parser.add_argument("--sets", nargs="*", default=(), help="take these icon sets only, such as twemoji noto")
    args = parser.parse_args(argv)
    source = args.source or download(Path(tempfile.gettempdir()) / "iconify-json")
    arrays, skipped = build(source, args.size, args.min_count, only=args.sets)
    save(args.out, arrays)
    sets = len(json.loads(arrays["licences"].item()))
    print(
        f"{args.out}: {len(arrays['images'])} pictures of {sets} sets, {len(arrays['label_names'])} labels; "
        f"{skipped} icons could not be drawn or are blank"
    )


if __name__ == "__main__":
    main()
