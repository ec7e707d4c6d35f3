import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.integrations.llm.base import Citation, Source
from app.services.chat.quotes import Quotes, folded

HANDBOOK = Source(
    "Handbook.pdf",
    "Travel is booked by the office.\nWhoever travels keeps all receipts; claims "
    "are made within\n30 days. It’s “final” after that — no exceptions.\n\n"  # noqa: RUF001 - as PDFs have it
    "A second page: 4.2 million euros.",
    pages=(0, 139),
    id="one",
)
NOTES = Source(
    "notes.md", "We meet on **Monday** at nine. 会議は月曜日の九時に始まります。"
)


def cited(reply: str, *sources: Source, cut: int = 7) -> list[Citation]:
    """Of a reply that comes in pieces."""
    quotes = Quotes(sources or (HANDBOOK, NOTES), text="", known=())
    pieces = [reply[n : n + cut] for n in range(0, len(reply), cut)]
    return [c for piece in pieces for c in quotes.read(piece)] + list(quotes.rest())


def holds(citation: Citation, *sources: Source) -> bool:
    return any(
        citation.source == s.name
        and s.text[citation.start - s.start : citation.end - s.start] == citation.quote
        for s in sources
    )


@pytest.mark.parametrize(
    ("reply", "quote"),
    [
        ('It says "Travel is booked by the office" [Handbook.pdf].', None),
        ('"keeps all receipts" (handbook.PDF)', "keeps all receipts"),
        ("Es heißt „booked by the office“.", "booked by the office"),
        ("«Whoever travels keeps all receipts»", None),
        ("> Travel is booked by the office.\n\nSo it is.", None),
        ("> Travel is booked by the office. [Handbook.pdf]", None),
        ('"claims are made within 30 days"', "claims are made within\n30 days"),
        ('"It\'s "final" after that - no exceptions"', "after that — no exceptions"),
        ('"all receipts; claims are made," it says', "all receipts; claims are made"),
        ('"keeps **all** receipts; claims"', "keeps all receipts; claims"),
        ('"We meet on **Monday** at nine" [notes.md]', None),
        ("「会議は月曜日の九時に始まります。」", None),
        ('a 5" pipe, "booked by the office" and 3" more', "booked by the office"),
        ('only "30 days" [Handbook.pdf]', "30 days"),
        ("> It's 'final' after that -- no exceptions.", "“final” after that — no"),
        ('"after that — no exceptions.\n\nA second page" [Handbook.pdf]', "\n\nA"),
        ("“no exceptions.\n\nA second page: 4.2 million”", "\n\nA second"),
        ('a 5" pipe\n\nand more of "no exceptions.\n\nA second page:"', "\n\nA"),
    ],
)
def test_what_is_quoted_is_cited_in_the_sources_own_characters(
    reply: str, quote: str | None
) -> None:
    found = cited(reply)

    assert len(found) == 1
    assert holds(found[0], HANDBOOK, NOTES)
    if quote is not None:
        assert quote in found[0].quote


@pytest.mark.parametrize(
    "reply",
    [
        'It says "Travel is booked by everybody" [Handbook.pdf].',
        'It says "Travel is paid by the office".',
        "Travel is booked by the office.",
        'a "30 days" of nothing',
        '"" and "   " and "..." and "—" [Handbook.pdf]',
        "> \n> \n",
        '"ravel" [Handbook.pdf]',
        '[Handbook.pdf] "',
    ],
)
def test_what_does_not_stand_there_is_no_citation(reply: str) -> None:
    assert cited(reply) == []


def test_a_quote_across_paragraphs_does_not_depend_on_how_it_came() -> None:
    reply = '5" wide\n\n"no exceptions.\n\nA second page"\n\nand "keeps all receipts"'

    found = [cited(reply, cut=cut) for cut in range(1, len(reply))]

    assert [c.quote for c in found[0]] == [
        "no exceptions.\n\nA second page", "keeps all receipts",
    ]  # fmt: skip
    assert all(one == found[0] for one in found)


def test_a_reply_that_goes_on_in_the_midst_of_a_quote_is_cited() -> None:
    quotes = Quotes([HANDBOOK], text='It says "no exceptions.\n\nA second ', known=())

    found = [*quotes.read('page: 4.2" [Handbook.pdf]'), *quotes.rest()]

    assert [c.quote for c in found] == ["no exceptions.\n\nA second page: 4.2"]


def test_what_is_left_out_in_a_quote_parts_it() -> None:
    reply = '"Travel is booked by … keeps all receipts [...] claims are made"'

    assert [c.quote for c in cited(reply)] == [
        "Travel is booked by", "keeps all receipts", "claims are made",
    ]  # fmt: skip


def test_lines_of_a_markdown_quotation_are_cited_where_it_is_of_several_places() -> (
    None
):
    lines = ["Travel is booked by the office.", "A second page: 4.2 million euros."]

    found = cited(f"> {lines[0]}\n> {lines[1]}")

    assert [citation.quote for citation in found] == lines


def test_what_stands_in_a_markdown_quotation_is_no_citation_of_its_own() -> None:
    said = 'The note says "we meet at nine today".\nSo we do.'

    found = cited("> " + said.replace("\n", "\n> "), Source("a.md", said))

    assert [citation.quote for citation in found] == [said]


def test_it_tells_the_page_and_the_place_in_the_document() -> None:
    [found] = cited('"4.2 million euros" [Handbook.pdf]')

    assert (found.page, found.source_id) == (2, "one")
    passage = Source("Handbook.pdf", HANDBOOK.text[32:90], start=32, page=7)
    [found] = cited('"keeps all receipts"', passage)
    assert found.page == 7
    assert HANDBOOK.text[found.start : found.end] == "keeps all receipts"


def test_the_named_source_is_looked_at_first() -> None:
    other = Source("other.md", HANDBOOK.text, id="two")

    [found] = cited('"Travel is booked by the office" [other.md]', HANDBOOK, other)

    assert found.source == "other.md"


def test_the_same_place_is_cited_once() -> None:
    reply = '"keeps all receipts; claims"\n\n> keeps all receipts; claims\n\nand more'

    assert len(cited(reply)) == 1


def test_a_citation_comes_with_the_end_of_its_paragraph() -> None:
    quotes = Quotes([HANDBOOK], text="", known=())

    assert list(quotes.read('"keeps all receipts"\n')) == []
    assert len(list(quotes.read("\nAnd then"))) == 1
    assert list(quotes.rest()) == []


def test_a_reply_that_goes_on_has_what_it_quoted_before() -> None:
    [known] = cited('"keeps all receipts"')
    told = {"source": known.source, "start": known.start, "end": known.end}
    text = '"keeps all receipts"\n\nAnd "booked by'

    quotes = Quotes([HANDBOOK], text=text, known=[told])

    found = [*quotes.read(' the office" and "keeps all receipts"'), *quotes.rest()]
    assert [c.quote for c in found] == ["booked by the office"]


def test_a_providers_own_citation_is_checked() -> None:
    quotes = Quotes([HANDBOOK], text="", known=())

    assert quotes.check(Citation("Handbook.pdf", "Travel", 0, 6)) == Citation(
        "Handbook.pdf", "Travel", 0, 6, page=1, source_id="one"
    )
    assert quotes.check(Citation("Handbook.pdf", "Travels", 0, 7)) is None
    assert quotes.check(Citation("else", "Travel", 0, 6)) is None


def test_a_reply_of_nothing_but_quotes_is_looked_up_only_so_often() -> None:
    long = Source("long", "word " * 100_000)

    found = cited('"no such words here" ' * 20_000, long, cut=100_000)

    assert found == []


@given(st.randoms(use_true_random=False), st.text(min_size=1, max_size=300))
def test_every_citation_is_true(chance: random.Random, text: str) -> None:
    """Whatever the source says and the reply makes of it."""
    start = chance.randrange(len(text))
    part = text[start : start + chance.randint(1, 80)]
    mark = chance.choice(['"{}"', "“{}”", "> {}", '"{}" [it]', "x{}y"])
    source = Source("it", text, start=chance.randint(0, 9))

    found = cited(mark.format(part) + chance.choice(["", "\n\nmore"]), source)

    assert all(holds(citation, source) for citation in found)


@given(
    st.lists(st.text("abcdefäöü0123", min_size=1, max_size=9), min_size=4, max_size=40),
    st.data(),
)
def test_any_words_of_a_source_are_found(words: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(words) - 3))
    last = data.draw(st.integers(first + 3, len(words)))
    source = Source("it", "\n".join(words))

    [found] = cited(f'As it says, "{" ".join(words[first:last])}" [it].', source)

    assert found.quote == "\n".join(words[first:last])


_LIKE = {
    " ": [" ", "\n", "\n\n", "\u00a0", " \t "],
    "-": ["-", "—", "--", "‑"],  # noqa: RUF001 - what looks alike is the point
    "'": ["'", "’", "“", "»"],  # noqa: RUF001 - the same
    "f": ["ff", "ﬀ"],
    "fi": ["fi", "ﬁ"],
    "xy": ["x\u00ad\ny", "x\ufffey", "xy"],
}
"""What stands for the same, in sources and in replies."""


@given(
    st.lists(st.sampled_from(["abé", "b", "xy", "f", "fi", " ", "'", "-"])),
    st.data(),
)
def test_a_quote_that_differs_in_spaces_marks_and_ligatures_is_found_where_it_stands(
    signs: list[str], data: st.DataObject
) -> None:
    """Each place says, folded, what the quote does."""

    def said(some: list[str]) -> str:
        return "".join(data.draw(st.sampled_from(_LIKE.get(s, [s]))) for s in some)

    first = data.draw(st.integers(0, len(signs)))
    middle = ["word", *signs[first:], "ab", " ", "ab", " ", "end"]
    before, after = said([*signs[:first], " "]), said([" ", *signs[:first]])
    source = Source("it", before + said(middle) + after)
    # Neither mark of this pair is folded, or in what is quoted.
    reply = f"「{said(middle)}」 [it]"

    [found] = cited(reply, source)

    assert folded(found.quote) == folded(reply[1:-6])
    assert holds(found, source)
