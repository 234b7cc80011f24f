"""Translations beside the schemas that they translate: none is missing, none is of something that is gone."""

import json
import re
from typing import Any

import pytest
from host import Host
from hosts import REPOSITORY

LANGUAGES = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]", "ko": r"[\uac00-\ud7a3]"}
"""Folder of a language, and a letter of it."""


def newer_inputs(host: Host, node: str) -> set[str]:
    """Inputs that a node has only where the host has a curve editor, of a host without one."""
    if node != "SparsityScheduler" or "CurveEditor" in host.object_info():
        return set()
    return {"gamma_strong_curve", "gamma_weak_curve", "omega_curve"}


def translated(schema: dict[str, Any]) -> dict[str, Any]:
    """What a node says to people: the keys that its translation must have."""
    inputs = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
    return {
        "display_name": None,
        "description": None,
        "inputs": {name for name, (_, *more) in inputs.items() if more and more[0].get("tooltip")},
        "outputs": {str(i) for i, tooltip in enumerate(schema.get("output_tooltips") or []) if tooltip},
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_is_translated(host: Host, language: str) -> None:
    ours = {name: schema for name, schema in host.object_info().items() if "sparse-guidance" in schema["python_module"]}
    texts = json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(texts) == set(ours)
    for name, schema in ours.items():
        wanted = translated(schema)
        assert set(texts[name]) == set(wanted), name
        for group in ("inputs", "outputs"):
            assert set(texts[name][group]) - newer_inputs(host, name) == wanted[group], (name, group)
        said = [texts[name]["display_name"], texts[name]["description"]]
        said += [entry["tooltip"] for group in ("inputs", "outputs") for entry in texts[name][group].values()]
        assert [text for text in said if not re.search(LANGUAGES[language], text)] == [], name


def test_the_host_serves_them(host: Host) -> None:
    served = host.get("/api/i18n").json()
    for language in LANGUAGES:
        assert served[language]["nodeDefs"]["SparseKSampler"]["display_name"]
        assert served[language]["nodeCategories"]["sparse guidance"]
