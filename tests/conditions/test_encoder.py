"""Prompts are encoded as the published pipelines encode them."""

import json
import os
import sys

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXPixelPipeline, PRXTransformer2DModel
from encoders import WORDS, write_clip, write_llama, write_qwen, write_t5gemma
from safetensors.torch import save_file

from sparse_model.conditions.encoder import encodable, kind_of, load_encoder
from sparse_model.files import model_folders

KINDS = {"t5gemma": (write_t5gemma, PRXPipeline), "qwen": (write_qwen, PRXPixelPipeline)}
PROMPT = "A  <person> LION in the #12 golden savanna, at sunset! " + "lion " * 300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", ["text_encoder", "whole"])
@pytest.mark.parametrize("prompt", ["", "a lion", "A LION at  sunset #1", PROMPT])
def test_embeddings_and_mask_of_the_pipeline(tmp_path, kind, prompt, folder):
    write, pipeline_class = KINDS[kind]
    model = write(tmp_path)
    encoder = load_encoder(tmp_path / folder, torch.float32)
    transformer = PRXTransformer2DModel(hidden_size=8, num_heads=1, depth=1, axes_dim=[4, 4], context_in_dim=12)
    rest = {} if kind == "qwen" else {"vae": None}
    pipeline = pipeline_class(transformer, FlowMatchEulerDiscreteScheduler(), model, encoder.tokenizer, **rest)
    embeddings, mask, *_ = pipeline.encode_prompt([prompt], "cpu", do_classifier_free_guidance=False)
    text = encoder.encode(*encoder.tokens([prompt]))
    assert text.embeddings.shape == (1, 256, 12) and torch.equal(text.mask, mask)
    shown = mask[..., None]
    torch.testing.assert_close(text.embeddings * shown, embeddings * shown, rtol=1e-5, atol=1e-6)
    assert mask.sum() == 256 if prompt is PROMPT else mask.sum() < 10


@pytest.mark.parametrize("prompt", ["", "a lion at dawn", "lion " * 100])
def test_clip_reads_padding_like_the_prompt(tmp_path, prompt):
    """As open_clip does: token 0 behind the prompt, nothing masked, the last layer's output after its norm."""
    model = write_clip(tmp_path)
    encoder = load_encoder(tmp_path, torch.float32)
    ids, mask = encoder.tokens([prompt])
    words = [WORDS.index(word) if word in WORDS else 3 for word in prompt.split()][:77]
    assert ids.tolist() == [words + [0] * (77 - len(words))]
    assert mask.all()
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(encoder.encode(ids, mask).embeddings, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("folder", ["text_encoder", "whole"])
@pytest.mark.parametrize("prompt", ["", "a lion", "lion " * 300])
def test_llama_reads_as_both_pipelines_of_nitro_do(tmp_path, prompt, folder):
    """256 tokens, padded with the token that ends a text, the last hidden state behind its norm. The larger model's
    pipeline masks nothing; the smaller one's masks the padding, which its network then does not see."""
    model = write_llama(tmp_path)
    encoder = load_encoder(tmp_path / folder, torch.float32)
    ids, mask = encoder.tokens([prompt])
    words = [2, *(WORDS.index(word) for word in prompt.split())][:256]
    assert ids.tolist() == [words + [1] * (256 - len(words))] and mask.sum() == len(words)
    text = encoder.encode(ids, mask)
    with torch.no_grad():
        larger = model(ids, output_hidden_states=True).hidden_states[-1]
        smaller = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(text.mask, mask)
    torch.testing.assert_close(text.embeddings, larger, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(text.embeddings[mask], smaller[mask], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [(["pipeline", "NitroDiTPipeline"], "a lion"), ("NitroMMDiTPipeline", "A <b>lion"), (3, "A <b>lion")],
)
def test_prompts_are_cleaned_as_the_pipeline_around_an_encoder_does(tmp_path, pipeline, words):
    write_llama(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    encoder = load_encoder(tmp_path / "text_encoder", torch.float32)
    expected = encoder.tokenizer([words], padding="max_length", max_length=256)["input_ids"]
    assert encoder.tokens(["A <b>lion"])[0].tolist() == expected


def test_folders_are_found_by_what_they_hold(tmp_path):
    write_t5gemma(tmp_path / "prx-512-t2i")
    write_qwen(tmp_path / "more" / "prxpixel")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert model_folders(tmp_path, kind_of) == [
        f"{name}/{part}" for name in ("more/prxpixel", "prx-512-t2i") for part in ("text_encoder", "whole")
    ]


def test_the_tokenizer_may_lie_in_the_same_folder(tmp_path):
    write_t5gemma(tmp_path)
    for file in (tmp_path / "tokenizer").iterdir():
        file.rename(tmp_path / "text_encoder" / file.name)
    assert load_encoder(tmp_path / "text_encoder", torch.float32).tokens(["a lion"])[1].sum() == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: [file.unlink() for file in folder.parent.glob("tokenizer/*")], "lacks its tokenizer"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "no text encoder of a known"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded .*model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"), "cannot be loaded"),
        (lambda folder: save_file({"a": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"}), "it lacks 2"),
    ],
)
def test_a_bad_folder_is_one_sentence(tmp_path, damage, message):
    write_t5gemma(tmp_path)
    damage(tmp_path / "text_encoder")
    with pytest.raises(ValueError, match=message) as error:
        load_encoder(tmp_path / "text_encoder", torch.float32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[", "3", "[]", '{"model_type": []}', "[" * 100_000, '{"a":' * 100_000, "\udcff"])
def test_no_config_keeps_the_others_from_being_listed(tmp_path, text):
    write_t5gemma(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert model_folders(tmp_path, kind_of) == ["good/text_encoder", "good/whole"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX's")
def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "bad").mkdir()
    os.mkfifo(tmp_path / "bad" / "config.json")
    assert model_folders(tmp_path, kind_of) == []


def test_without_transformers(tmp_path, monkeypatch):
    write_t5gemma(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="needs the package transformers 4.57"):
        load_encoder(tmp_path / "text_encoder", torch.float32)


def test_halves_of_characters_are_question_marks():
    assert encodable("a \ud800 fox \U0001f98a") == "a ? fox \U0001f98a"
