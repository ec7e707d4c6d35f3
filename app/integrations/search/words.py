"""The words of a text, as an index and a query have them."""

import re
import threading
import unicodedata
from functools import cache, lru_cache
from typing import Any

STOP_WORDS = frozenset(
    """
    a able about after all also am an and any anything are aren as at be because
    been before being both but by can cannot could couldn did didn do does doesn
    doing don each every everything few first for from further get gets getting give
    given gives go going got had happen happens has hasn have haven having he hello
    her here hers hey hi him his how however i if in into is isn it its itself just
    kind know let like ll lot made make makes many may me mean means might more most
    much must my need needs no not now of off on once one only onto or other our
    ours out over own per please possible put really s same say says see shall she
    should shouldn since so some something still such sure take tell than thank
    thanks that the their theirs them then there these they thing things this those
    though through thus till to too tried try trying under until up upon us use used
    uses using ve very via want wants was wasn way we well were weren what when
    where whether which while who whom whose why will with within without won work
    working works would wouldn yes yet you your yours
    """.split()  # noqa: SIM905 - a list literal of these would fill two screens
)

UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Chinese and Japanese put no spaces between words: there a character is a word."""

_WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019]\w+")
_PARTS = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TWO_WORDS = re.compile(
    r"\b(?:(log|sign)(?:g?ing|g?ed)?[ -](in|out|up|off)"
    r"|(set|back|start)(?:t?ing|ed)?[ -](up)"
    r"|(shut)(?:ting)?[ -](down))\b",
    re.IGNORECASE,
)
_SAME = {
    "signin": "login",
    "signoff": "logout",
    "signout": "logout",
    "signup": "register",
    "logoff": "logout",
}


def terms(text: str) -> list[str]:
    """The searchable words of a text: lower case, stemmed, without stop words.

    Lone Latin letters and digits count as stop words. An identifier counts as one word
    and as its parts: AWS_REGION, getUserName. A verb in two words is one: "log in" is
    login.
    """
    if not text.isascii():  # PDFs have letters that are joined, or of double width
        text = unicodedata.normalize("NFKC", text)
    text = _TWO_WORDS.sub(lambda m: "".join(filter(None, m.groups())), text)
    found: list[str] = []
    for word in _WORD.findall(_APOSTROPHE.sub("", text)):
        parts = [part for part in _PARTS.split(word) if part]
        for token in [word, *parts] if len(parts) > 1 else parts:
            lower = token.lower()
            letter = len(lower) == 1 and lower.isascii()
            if not letter and lower not in STOP_WORDS:
                found.append(_stem(_SAME.get(lower, lower)))
    return found


_stemming = threading.Lock()


@cache
def _stemmer() -> Any:
    import snowballstemmer  # noqa: PLC0415 - 3 MB that an idle server does without

    return snowballstemmer.stemmer("english")


@lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    """The English stem, of Porter's second algorithm."""
    with _stemming:  # a stemmer holds the word it works on
        stem: str = _stemmer().stemWord(word)
    return stem
