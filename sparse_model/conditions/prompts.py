"""Prompts as published pipelines clean them before they are cut into tokens."""

import html
import re
from collections.abc import Callable
from urllib.parse import unquote_plus

try:  # mends text that was decoded wrongly
    from ftfy import fix_text
except ImportError:
    # Without it only the quotation marks are made straight, which is all that most prompts need.
    STRAIGHT = str.maketrans({**dict.fromkeys(map(chr, range(0x2018, 0x201C)), "'"), 0x201C: '"', 0x201D: '"'})

    def fix_text(text: str) -> str:
        return text.translate(STRAIGHT)


EXTENSIONS = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
DASHES = (
    "\\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32\ufe58"
    "\ufe63\uff0d"
)

# (pattern, replacement), applied in this order: what captions of the training data were rid of. Each takes time linear
# in the text: a look behind where any place in a long word would be tried, and names of hosts of DNS's 253 characters.
ADDRESSES = (
    (r"<person>", "person"),
    (
        r"\b(?:(?:https?|www):(?:/{1,3}|[a-z0-9%])|[a-z0-9.-]{1,253}\.(?:com?|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@))",
        "",
    ),
)
MARKUP = (
    (r"@\w+\b", ""),  # nicknames
    (r"[\u31c0-\u9fff]+", ""),  # CJK
    (f"[{DASHES}]+", "-"),
    (r"[`\u00b4\u00ab\u00bb\u00a8]", '"'),
    (r"&quot;?|&amp", ""),
    (r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # IP addresses
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"(?<!\S)\S+\.(?:{EXTENSIONS})", ""),  # file names
    (r"[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~()\[\]{}|\\/*]+", " "),
    (r"(?<!\s)\s+\.\s+", " "),
)
NOISE = (
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # article numbers
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{EXTENSIONS})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d[a-zA-Z\d]*\b", " "),
    (r"\b\d+(?:\.\d*)?[x\u0445\u00d7]\d+(?:\.\d*)?\b", ""),  # sizes
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"'](.+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def light(text: str) -> str:
    """Entities resolved and mis-decoded text mended: for PRXPixel."""
    return html.unescape(html.unescape(fix_text(text))).strip()


def thorough(text: str, untag: Callable[[str], str] = str) -> str:
    """Lower case, and without addresses, file names, article numbers and most punctuation: for the latent PRX."""
    text = _replaced(unquote_plus(text).strip().lower(), ADDRESSES)
    text = _replaced(untag(text), MARKUP)
    if len(re.findall("[-_]", text)) > 3:  # this-is-my-cute-cat
        text = re.sub("[-_]", " ", text)
    return _replaced(light(text), NOISE).strip()


def twice(text: str) -> str:
    """The same twice over, and without tags of HTML: for the 0.6B of Nitro-T."""
    return thorough(thorough(text, untagged), untagged)


def plain(text: str) -> str:
    """As it is, but for brackets that are escaped for nodes that read weights in them: for HDM."""
    return text.replace(r"\(", "(").replace(r"\)", ")")


def untagged(text: str) -> str:
    """The text of HTML, its entities resolved."""
    return html.unescape(re.sub(r"<[a-z/!?][^<>]*>", "", text))


CLEANING: dict[str, Callable[[str], str]] = {
    "none": str,
    "light": light,
    "thorough": thorough,
    "twice": twice,
    "plain": plain,
}


def _replaced(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text
