"""Text of several lengths as one batch."""

import torch

from sparse_model.conditions.text import Text, TextSpec, concatenate


def text(count, mask=None, value=1.0):
    return Text(torch.full((1, count, 4), value), mask)


def test_prompts_that_are_not_padded_stay_as_they_are():
    spec = TextSpec("qwen3-0.6b", 4, 256, padded=False)
    given = Text(torch.randn(1, 7, 4), torch.tensor([[True] * 5 + [False] * 2]))
    assert torch.equal(spec.fit(given).embeddings, given.embeddings)
    assert spec.fit(given).mask is None
    assert spec.describe() == "prompts of any length from Qwen/Qwen3-0.6B (4 channels)"


def test_the_shorter_prompt_is_padded():
    joined = concatenate([text(3), text(5, value=2.0), text(4, torch.tensor([[True, True, True, False]]))])
    assert joined.embeddings.shape == (3, 5, 4)
    assert joined.mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5, [True] * 3 + [False] * 2]
    assert joined.embeddings[0, :, 0].tolist() == [1, 1, 1, 0, 0]


def test_prompts_of_one_length_need_no_mask():
    assert concatenate([text(3), text(3)]).mask is None
