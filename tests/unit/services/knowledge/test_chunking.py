"""Documents cut into passages, with pages and terms."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.services.knowledge.chunking import pieces
from app.services.knowledge.terms import key_of
from tests.unit.integrations.search.test_lexical import markdown

FIRST, SECOND = UUID(int=1), UUID(int=2)


@given(
    markdown | st.text(max_size=200),
    st.sampled_from(["A note", "code.py", "notes.md"]),
    st.lists(st.integers(1, 500), max_size=5, unique=True),
)
def test_a_piece_is_a_slice_of_the_text_on_the_page_that_it_starts_on(
    text: str, title: str, breaks: list[int]
) -> None:
    pages = [0, *sorted(breaks)]

    for piece in pieces(title, text, pages):
        passage = piece.passage
        assert text[passage.start : passage.end] == passage.text
        assert piece.page is not None
        begun = [start for start in pages if start <= passage.start]
        assert piece.page == len(begun)


@given(markdown | st.text(max_size=200))
def test_every_text_has_a_piece(text: str) -> None:
    assert any(pieces("A note", text, [])) == bool(text.strip())


def test_without_pages_there_is_no_page() -> None:
    (piece,) = pieces("A note", "text", [])

    assert piece.page is None


def test_words_of_the_title_count_more_than_those_of_the_text() -> None:
    (piece,) = pieces("Zebras", "Zebras have stripes.", [])

    assert piece.terms == {"zebra": 4, "stripe": 1}


def test_in_code_a_comment_is_no_heading() -> None:
    (code,) = pieces("a.py", "# set up\n\nrun()\n", [])
    (prose,) = pieces("a.md", "# set up\n\nrun()\n", [])

    assert code.passage.text == "# set up\n\nrun()"
    assert prose.passage.text == "run()"


def test_a_term_has_another_key_in_each_project() -> None:
    assert key_of(FIRST, "zebra") == key_of(FIRST, "zebra")
    assert key_of(FIRST, "zebra") != key_of(SECOND, "zebra")
    assert key_of(FIRST, "zebra") != key_of(FIRST, "zebr")


@given(st.text())
def test_a_key_is_an_integer_of_both_databases(term: str) -> None:
    assert -(2**63) <= key_of(FIRST, term) < 2**63
