"""From typed labels to label weights."""

from pathlib import Path

import pytest
import torch

from sparse_model.checkpoints.bundled import DEFAULT
from sparse_model.checkpoints.checkpoint import open_checkpoint
from sparse_model.conditions.labels import class_names, label_weights

PAGE = Path(__file__).parents[2] / "web" / "docs" / "SparseClassCondition.md"
LABELS = ("twemoji", "rocket", "red apple", "fox", "1: odd")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", [0, 0, 0, 0, 0]),
        ("rocket", [0, 1, 0, 0, 0]),
        ("twemoji, Rocket", [1, 1, 0, 0, 0]),
        (" fox ,, ", [0, 0, 0, 1, 0]),
        ("fox:0.5, rocket:2", [0, 2, 0, 0.5, 0]),
        ("3", [0, 0, 0, 1, 0]),
        ("1: odd", [0, 0, 0, 0, 1]),
        ("1: odd:0.25", [0, 0, 0, 0, 0.25]),
        ("(rocket:1.3)", [0, 1.3, 0, 0, 0]),
        ("( red apple : 1.3 ), (fox)", [0, 0, 1.3, 1, 0]),
        ("(1: odd:0.25)", [0, 0, 0, 0, 0.25]),
        ("(1: odd)", [0, 0, 0, 0, 1]),
        ("rocket:-1, fox:1e2", [0, -1, 0, 100, 0]),
        ("twemoji\n(red apple:0.5),\n\nfox\r\n", [1, 0, 0.5, 1, 0]),
        ("rocket\n: 2, fox:\n3", [0, 2, 0, 3, 0]),
        ("twemoji\uff0cfox:0.5\u3001 rocket", [1, 1, 0, 0.5, 0]),
    ],
)
def test_weights(text, expected):
    assert torch.equal(label_weights(text, LABELS), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize(
    "text, message",
    [
        ("rockett", "'rockett' is not a label of this model; did you mean rocket"),
        ("apple", "did you mean red apple"),
        ("zzz", "it knows twemoji"),
        ("5", "class id 5 is past the end: the model has 5 classes, 0 to 4"),
        ("fox:x", "no number after the colon"),
        ("fox:", "'fox:' has no number after the colon"),
        ("(fox:1.3", r"'\(fox' is not a label of this model; did you mean fox"),
        ("rocket:nan", "'rocket:nan' has no number after the colon"),
        ("rocket:inf", "'rocket:inf' weighs too much; write a weight from -100 to 100"),
        ("(rocket:-inf)", r"'\(rocket:-inf\)' weighs too much"),
        ("rocket:1e38", "'rocket:1e38' weighs too much"),
        ("\u00b2", "'\u00b2' is not a label"),
        ("9" * 5000, "class id 9+\u2026 is past the end"),
        (":1", "':1' has no label before the colon"),
        ("fox, :", "':' has no label before the colon"),
        ("twemoji fox", "'twemoji fox' is not a label of this model; write commas between: twemoji, fox$"),
        ("Twemoji; red apple:0.5 3", "write commas between: Twemoji, red apple:0.5, 3$"),
        ("twemoji\uff1bfox", "write commas between: twemoji, fox$"),
        ("twemoji\nrocket foxx", "'rocket foxx' is not a label of this model; did you mean rocket"),
    ],
)
def test_unknown(text, message):
    with pytest.raises(ValueError, match=message):
        label_weights(text, LABELS)


def test_a_number_is_a_class_id_unless_a_label_has_that_name():
    """As the help page says of this very file."""
    with open_checkpoint(DEFAULT) as checkpoint:
        labels = checkpoint.spec.labels
    assert label_weights("5, 17", labels).nonzero().flatten().tolist() == [17, labels.index("5")]
    assert "in *icons-64* `5` is the label 5, `17` is class 17." in PAGE.read_text(encoding="utf-8")


def test_brackets_that_belong_to_a_label():
    assert torch.equal(label_weights("(x), a (b):0.5", ("(x)", "a (b)")), torch.tensor([1, 0.5]))


@pytest.mark.parametrize(
    "text", ["x" * 100_000, ":" * 100_000, "(" * 100_000, "no:" * 30_000, "a b " * 25_000, "fox " * 70, "\0" * 9]
)
def test_an_error_quotes_no_megabyte(text):
    with pytest.raises(ValueError) as caught:
        label_weights(text, [*LABELS, "y" * 100_000])
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_names_of_imagenet_are_unambiguous():
    names = class_names(1000)
    assert len(names) == 1000
    for number, name in enumerate(names):
        assert label_weights(name, names).nonzero().tolist() == [[number]]
    assert label_weights("207", names).argmax() == 207
    assert class_names(3) == ("0", "1", "2")
