"""Help pages: one for every node in every language, about its inputs and no others, with pictures that are served."""

import io
import re

import pytest
from host import PACK, Host
from hosts import REPOSITORY
from PIL import Image
from test_locales import LANGUAGES, newer_inputs

NAME = re.compile(r"\*\*([a-z_]+)\*\*")
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
SECTION, ROW = re.compile("^## ", re.MULTILINE), re.compile(r"^\|", re.MULTILINE)
NOTES = {
    "SparseGuidanceReport": ("*Preview as Text*", "*positive*", "*weak_model*", "256"),
    "SparseClassCondition": ("`207`", "`17`", "`\uff0c`", "`\u3001`", "Tab"),
    "SparseGuidanceSheet": ("*dpm_adaptive*",),
    "SparseGuidance": ("*ModelMergeSimple*", "`step 0:0, 0.2:1, 0.7:0`", "STG"),
}
"""Words that are the same in every language, of sentences that the translations once lacked."""
MOST_BYTES = 600_000
"""Of all pictures together: they are downloaded with the pack."""


@pytest.mark.parametrize("language", [None, *LANGUAGES])
def test_every_node_is_explained(host: Host, language: str | None) -> None:
    """Where both frontends look: docs/NODE/LANGUAGE.md, else docs/NODE.md; pictures from docs."""
    docs = f"/extensions/{PACK}/docs"
    ours = {name: node for name, node in host.object_info().items() if "sparse-guidance" in node["python_module"]}
    assert ours
    for name, schema in ours.items():
        page = host.get(f"{docs}/{name}/{language}.md" if language else f"{docs}/{name}.md").content.decode()
        inputs = {*schema["input"].get("required", {}), *schema["input"].get("optional", {})} | newer_inputs(host, name)
        named = set(NAME.findall(page))
        assert inputs <= named, (name, inputs - named)
        assert named <= inputs | (set() if language else set(schema["output_name"])), (name, named - inputs)
        assert language is None or re.search(LANGUAGES[language], page)
        pictures = PICTURE.findall(page)
        assert pictures, name
        for picture in pictures:
            assert Image.open(io.BytesIO(host.get(f"{docs}/{picture}").content)).width >= 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_have_what_the_english_page_has(language: str) -> None:
    """Every section, besides those of inputs and outputs, and every row of a table, and the sentences that they once
    lacked."""
    docs = REPOSITORY / "web" / "docs"
    for page in docs.glob("*.md"):
        english = page.read_text(encoding="utf-8")
        translated = (docs / page.stem / f"{language}.md").read_text(encoding="utf-8")
        assert len(SECTION.findall(translated)) - 2 == len(SECTION.findall(english)), page.stem
        assert len(ROW.findall(translated)) == len(ROW.findall(english)), page.stem
    for name, words in NOTES.items():
        page = (docs / name / f"{language}.md").read_text(encoding="utf-8")
        assert [word for word in words if word not in page] == [], name


def test_no_page_and_no_picture_is_left_over(host: Host) -> None:
    docs = REPOSITORY / "web" / "docs"
    ours = {name for name, node in host.object_info().items() if "sparse-guidance" in node["python_module"]}
    assert {path.stem for path in docs.glob("*.md")} == ours
    assert {path.name for path in docs.iterdir() if path.is_dir()} == {*ours, "pictures"}
    for name in ours:
        assert {path.name for path in (docs / name).iterdir()} == {f"{language}.md" for language in LANGUAGES}
    shown = {picture for page in docs.rglob("*.md") for picture in PICTURE.findall(page.read_text(encoding="utf-8"))}
    stored = list((docs / "pictures").iterdir())
    assert {f"pictures/{path.name}" for path in stored} == shown
    assert sum(path.stat().st_size for path in stored) < MOST_BYTES
