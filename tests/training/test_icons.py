"""The icon dataset, on a made-up folder of icon sets."""

import json
import tarfile

import numpy as np
import pytest

from sparse_model.training import icons

RED = '<path fill="red" d="M0 0h16v16H0z"/>'
INFO = {"palette": True, "license": {"spdx": "MIT"}, "author": {"name": "Somebody", "url": "https://example.org"}}


@pytest.fixture
def source(tmp_path):
    """Two emoji sets, one of them without categories, a set of flags, and four sets nobody may use."""
    infos = {
        "faces": {**INFO, "category": "Emoji"},
        "other-emoji": INFO,
        "flag": {**INFO, "category": "Flags / Maps", "license": {"spdx": "CC-BY-4.0"}},
        "brands": {**INFO, "category": "Logos"},
        "alike": {**INFO, "license": {"spdx": "CC-BY-SA-4.0"}},
        "outlines": {**INFO, "palette": False},
        "unsaid": {**INFO, "license": {"title": "Ask us"}},
    }
    names = {
        "faces": ["cat-face", "cook", "cook-light-skin-tone", "traffic-light"],
        "other-emoji": ["cat-face", "cook", "cook-medium", "cook-medium-dark-light", "traffic-light"],
        "flag": ["to-1x1", "to-4x3"],
    }
    folder = tmp_path / "package"
    (folder / "json").mkdir(parents=True)
    infos = {prefix: {**info, "name": prefix.title()} for prefix, info in infos.items()}
    (folder / "collections.json").write_text(json.dumps(infos), encoding="utf-8")
    for prefix in infos:
        icon_set = {"prefix": prefix, "icons": {name: {"body": RED} for name in names.get(prefix, ["cat"])}}
        if prefix == "faces":
            icon_set["icons"] |= {
                "old": {"body": RED, "hidden": True},
                "broken": {"body": "<path"},
                "empty": {"body": ""},
            }
            icon_set["aliases"] = {"kitten": {"parent": "cat-face"}}
            icon_set["categories"] = {"Nature": ["cat-face"]}
        (folder / "json" / f"{prefix}.json").write_text(json.dumps(icon_set), encoding="utf-8")
    return folder


def labels_of(data, name):
    """The label names of one picture, read as a user of the file would."""
    i = list(data["names"]).index(name)
    return list(data["label_names"][data["labels"][data["label_offsets"][i] : data["label_offsets"][i + 1]]])


def test_select_sets_excludes_logos_share_alike_outlines_and_unknown_licences(source):
    infos = json.loads((source / "collections.json").read_text(encoding="utf-8"))
    assert list(icons.select_sets(infos)) == ["faces", "other-emoji", "flag"]


@pytest.mark.parametrize(
    ("name", "prefix", "words"),
    [
        ("cat-face-with-tears-of-joy", "noto", ["cat", "face", "tears", "joy"]),
        ("cloud-2", "streamline-color", ["cloud"]),
        ("add-layer-2-flat", "streamline-color", ["add", "layer", "flat"]),
        ("hundred-100-points", "noto", ["hundred", "100", "points"]),
        ("keycap-10", "noto", ["keycap", "10"]),
        ("boat-boat", "noto", ["boat"]),
        ("blacktelephone", "fxemoji", ["blacktelephone"]),
        ("to-4x3", "flag", ["flag", "to"]),
        ("gb-eng", "cif", ["flag", "gb", "eng"]),
        ("flag-germany", "twemoji", ["flag", "germany"]),
    ],
)
def test_words_of(name, prefix, words):
    assert icons.words_of(name, prefix) == words


def test_svg_of_centres_and_keeps_to_its_view_box():
    body = '<path fill="blue" d="M-50-50h200v200h-200z"/>'
    wide = icons.rasterise(icons.svg_of({"body": body, "width": 32}, {"height": 16, "left": 4}), 16)
    assert (wide[4:12] == (0, 0, 255)).all()
    assert (wide[:4] == 255).all()
    assert (wide[12:] == 255).all()


def test_current_colour_is_black():
    picture = icons.rasterise(icons.svg_of({"body": '<path fill="currentColor" d="M0 0h16v16H0z"/>'}, {}), 8)
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert (picture == 0).all()


def test_invisible_start_of_an_animation_is_shown():
    drop = '<path d="M0 0h16v16H0z" opacity="0"><animate attributeName="opacity" values="0;1"/></path>'
    assert icons.rasterise(icons.svg_of({"body": drop}, {}), 8) is not None
    assert icons.rasterise(icons.svg_of({"body": '<path d="M0 0h16v16H0z" opacity="0"/>'}, {}), 8) is None


def test_file(source, tmp_path, capsys):
    out = tmp_path / "icons.npz"
    icons.main(["--source", str(source), "--out", str(out), "--size", "8", "--min-count", "2"])
    with np.load(out, allow_pickle=False) as file:
        data = dict(file)
    assert list(data["names"]) == [
        "faces:cat-face",
        "faces:cook",
        "faces:traffic-light",
        "other-emoji:cat-face",
        "other-emoji:cook",
        "other-emoji:traffic-light",
        "flag:to-1x1",
        "flag:to-4x3",
    ]
    assert data["images"].shape == (8, 8, 8, 3)
    assert data["images"].dtype == np.uint8
    assert (data["images"] == (255, 0, 0)).all()
    assert list(data["label_names"]) == [
        "faces",
        "other-emoji",
        "flag-set",
        "cat",
        "cook",
        "face",
        "flag",
        "light",
        "to",
        "traffic",
    ]
    assert data["labels"].dtype == np.int32
    assert data["label_offsets"].dtype == np.int64
    assert list(data["label_offsets"]) == [0, 3, 5, 8, 11, 13, 16, 19, 22]
    assert labels_of(data, "faces:cat-face") == ["faces", "cat", "face"]
    assert labels_of(data, "flag:to-4x3") == ["flag-set", "flag", "to"]
    assert list(data["categories"]) == ["Animals & Nature", "", "", "Animals & Nature", "", "", "", ""]
    licences = json.loads(data["licences"].item())
    assert list(licences) == ["faces", "other-emoji", "flag"]
    assert licences["flag"] == {"name": "Flag", "author": "Somebody", "spdx": "CC-BY-4.0", "url": "https://example.org"}
    assert "8 pictures of 3 sets, 10 labels; 2 icons" in capsys.readouterr().out


def test_rare_words_are_dropped_but_sets_stay(source):
    data, _ = icons.build(source, 8, min_count=3)
    assert list(data["label_names"]) == ["faces", "other-emoji", "flag"]
    assert list(data["labels"]) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_frequent_words_come_first():
    drawn = [icons.Icon("faces", name, "", "") for name in ("sea", "sea-cat", "ant-cat", "sea-ant")]
    data = icons.pack(drawn, np.zeros((4, 2, 2, 3), np.uint8), {"faces": {**INFO, "name": "Faces"}}, min_count=1)
    assert list(data["label_names"]) == ["faces", "sea", "ant", "cat"]


def test_a_tgz_is_a_source_too(source, tmp_path):
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as tar:
        tar.add(source, "package")
    packed, _ = icons.build(tmp_path / "package.tgz", 8, min_count=2)
    plain, _ = icons.build(source, 8, min_count=2)
    assert packed.keys() == plain.keys()
    assert all(np.array_equal(packed[key], plain[key]) for key in plain)


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    out = tmp_path / "icons.npz"
    icons.save(out, {"images": np.zeros(1)})
    before = out.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        icons.save(out, {"images": np.ones(1)})
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_without_npm_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(icons.shutil, "which", lambda command: None)
    with pytest.raises(SystemExit, match="npm is not installed.*--source"):
        icons.download(tmp_path / "cache")


def test_a_downloaded_package_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(icons.shutil, "which", lambda command: None)
    monkeypatch.setattr(icons, "PACKAGE", "@iconify/json@1.2.3")
    (tmp_path / "iconify-json-1.2.2.tgz").touch()
    with pytest.raises(SystemExit):
        icons.download(tmp_path)
    (tmp_path / "iconify-json-1.2.3.tgz").touch()
    assert icons.download(tmp_path) == tmp_path / "iconify-json-1.2.3.tgz"


def test_only_the_sets_that_are_asked_for(source):
    packed, _ = icons.build(source, 8, min_count=1, only=["faces"])
    assert {str(name).split(":")[0] for name in packed["names"]} == {"faces"}
    with pytest.raises(SystemExit, match="no coloured, permissively licensed icon set 'absent'"):
        icons.build(source, 8, min_count=1, only=["absent"])
