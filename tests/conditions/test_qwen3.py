"""The text encoder of HDM: Qwen3, out of a checkpoint or as published, with no padding around a prompt."""

import pytest
import torch
from encoders import WORDS, write_tokenizer
from transformers import AutoTokenizer
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM

from sparse_model.conditions.encoder import QWEN3, PromptEncoder, load_encoder
from sparse_model.conditions.qwen3 import sizes, weights
from sparse_model.files import FileError

SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=128, rope_theta=1e6)).eval()


def test_weights_of_a_checkpoint_and_of_the_published_file(whole):
    expected = whole.model.state_dict()
    inside = {f"te.text_models.0.{key}": value for key, value in expected.items()}
    for found in (
        weights({**inside, "unet.model.a": torch.zeros(1)}, "te.text_models.0."),
        weights(whole.state_dict()),
    ):
        assert found.keys() == expected.keys()
        assert sizes(found) == SIZES
    assert weights({"unet.model.a": torch.zeros(1)}, "te.text_models.0.") == {}


@pytest.mark.parametrize("lost", ["embed_tokens.weight", "layers.0.self_attn.q_norm.weight"])
def test_a_weight_that_is_missing(whole, lost):
    with pytest.raises(FileError, match=f"lacks 1 weights of a Qwen3, such as {lost}"):
        sizes({key: value for key, value in whole.model.state_dict().items() if key != lost})


def test_prompts_keep_their_length(whole, tmp_path):
    """The shorter of two is padded, which changes nothing in front of it; an empty prompt is one token of padding."""
    write_tokenizer(tmp_path)
    encoder = PromptEncoder(QWEN3._replace(pad=0), AutoTokenizer.from_pretrained(tmp_path), whole.model)
    escaped, plain = encoder.tokens([r"the \(golden\) lion"])[0], encoder.tokens(["the (golden) lion"])[0]
    assert torch.equal(escaped, plain)
    assert encoder.tokens([""])[0].tolist() == [[0]] and encoder.tokens([""])[1].all()
    long, short = "a lion at sunset in the savanna", "a rocket"
    together = encoder.encode(*encoder.tokens([long, short]))
    alone = encoder.encode(*encoder.tokens([short]))
    assert together.mask.sum(dim=1).tolist() == [7, 2] and alone.mask.all()
    torch.testing.assert_close(together.embeddings[1:, :2], alone.embeddings)


def test_a_published_folder(whole, tmp_path):
    whole.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    encoder = load_encoder(tmp_path, torch.float32)
    assert encoder.kind is QWEN3
    ids, mask = encoder.tokens(["a lion"])
    with torch.no_grad():
        expected = whole.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(encoder.encode(ids, mask).embeddings, expected)
