"""What the token route knows of the host's transformers, and what is said about it."""

import pytest
from hostless import ROOT, hostless

families = hostless("nodes.host.routes.families")
NAMES = [name for family in families.FAMILIES for name in family.name.split(", ")]


@pytest.mark.parametrize("page", ["docs/guide.md", "web/docs/TokenRoute.md"])
def test_every_family_is_named(page: str) -> None:
    text = (ROOT / page).read_text()
    assert [name for name in NAMES if name not in text] == []


def test_no_class_belongs_to_two_families() -> None:
    assert len(families.BY_CLASS) == sum(len(family.networks) for family in families.FAMILIES)


def test_a_network_that_is_unknown_is_named_with_those_that_work() -> None:
    with pytest.raises(ValueError, match=r"cannot route object, .* it works with FLUX.1, .* Motif-Video, and models"):
        families.family_of(object())
