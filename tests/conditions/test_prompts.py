"""Prompts come out as the published pipelines clean them."""

import time

import pytest
from diffusers.pipelines.prx.pipeline_prx import TextPreprocessor
from hypothesis import given
from hypothesis import strategies as st

from sparse_model.conditions import prompts

PROMPTS = [
    "",
    "A front-facing portrait of a lion in the golden savanna at sunset.",
    "  A *digital* painting (rusty, vintage) of a tram @night https://example.com/a%20b and www.tram.ru/x ",
    "\u201cCurly\u201d \u2018quotes\u2019 \u2014 dashes \u2013 and \u00ab guillemets \u00bb "
    "&quot;x&quot; &amp;amp; &lt;b&gt;",
    "this-is-my_cute-cat-picture.png 1920x1080 page 12 10.0.0.1 #12 #123456 1234567",
    "free shipping worldwide free shipping, download free; click on this: jpg image JPEG images",
    "a \u732b in the rain\u3000 ~ \u00ae \u2122 [x] {y} |z| \\ / #1 \u00bd \\n and\nnew lines...   . end ,",
    "'quoted'",
    "_start and end_",
    "ab123 6640vc231 jc6640vc a1b2c3 <person> holds 3:45 ",
    "one,two;three.four/five : six",
    "a" * 300,
    "100%25 caf%C3%A9 + tea",
    "sch\u00f6n mojibake: sch\u00c3\u00b6n",
]
PIECES = st.lists(
    st.sampled_from([*"abxyzABC019 .,:;'\"-_@#&%/\\()[]{}|*~+\n\t",
                     "\u2013", "\u201d", "\u2019", "\u00e9", "\u732b", "http://", ".com", "jpg",
                     "&amp", "&quot;", "click on ", "page 3", "12x34", "free ", "<person>", "......",
                     ".png", ".jpeg", " .  ", "   ", "1.5", "x2.25", ".co", "www.", "@b"]),
    max_size=30,
)  # fmt: skip


@pytest.fixture(scope="module")
def published():
    return TextPreprocessor()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_published_cleaning(published, prompt):
    assert prompts.thorough(prompt) == published.clean_text(prompt)
    assert prompts.light(prompt) == published.basic_clean(prompt)


@given(PIECES)
def test_published_cleaning_of_anything(pieces):
    prompt, published = "".join(pieces), TextPreprocessor()
    assert prompts.thorough(prompt) == published.clean_text(prompt)
    assert prompts.light(prompt) == published.basic_clean(prompt)


CAPTIONS = {  # what the pipeline of Nitro-T 0.6B makes of prompts
    "A  <person> LION in the #12 golden savanna, at sunset! ": "a person lion in the golden savanna, at sunset!",
    "A <b>bold</b> fox &amp; a hen &lt;3": "a bold fox a hen <3",
    "x < y, a photo of jc6640vc from www.example.com/a?b=c": "x < y, a photo of from ?b=c",
    "\u201cquoted\u201d\u2014dash\u2026 (paren) [x]": '"quoted"-dash\u2026 paren x',
    "a &amp;lt;b&amp;gt; c": "a lt;b gt; c",
    "Portrait, 35mm f/1.4 lens:8k": "portrait, 35mm f 1.4 lens:8k",
    "@nick says hello ... ok . yes": "says hello ok yes",
    "<unclosed tag a cat": "<unclosed tag a cat",
    "": "",
}


@pytest.mark.parametrize("prompt", CAPTIONS)
def test_captions_without_tags(prompt):
    assert prompts.twice(prompt) == CAPTIONS[prompt]


LONG = [
    "a", ".", "www.", "a.b", "1.1", "1", "1a", "a1", "1x", "@", "a.com@", "a.com-", " ", "0:00 ", " . ", '"', "&amp;",
    "#1", "http://", "free ", "lion, ", "<", "<a ", "-",
]  # fmt: skip


@pytest.mark.parametrize("piece", LONG)
def test_a_hundred_thousand_letters_take_no_minute(piece):
    """With the rules for addresses, file names and sizes tried from every letter on, the time grows with the square of
    the length."""
    prompt = (piece * 100_000)[:100_000] + "x"
    started = time.process_time()
    prompts.twice(prompt)
    assert time.process_time() - started < 10


def test_a_long_article_number_takes_no_minute():
    prompt = "a1a" + "1" * 60_000 + "_x"
    started = time.process_time()
    assert prompts.thorough(prompt) == prompt
    assert time.process_time() - started < 10
