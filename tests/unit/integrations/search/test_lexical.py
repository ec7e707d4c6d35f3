"""Passages that can be cited, their words, and their ranking."""

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.integrations.search.lexical import Frequency, Hit, Texts, weighted_terms
from app.integrations.search.passages import (
    LONGEST_CHARS,
    PASSAGE_CHARS,
    ROWS_CHARS,
    TABLE_CHARS,
    Document,
    Passage,
    passages,
    slug,
)
from app.integrations.search.words import terms


def cut(text: str) -> list[Passage]:
    return list(passages(Document("a.md", text)))


def texts(**given: str) -> Texts:
    return Texts(Document(f"{name}.md", text) for name, text in given.items())


def find(found: Texts, query: str, *, limit: int = 10) -> list[Hit]:
    return found.search(query, limit, beside=Frequency(0, {}))


def sources(found: Texts, query: str) -> list[str]:
    return [hit.passage.source for hit in find(found, query)]


# Passages ---------------------------------------------------------------------------

_line = st.one_of(
    st.sampled_from(
        [
            "",
            "  ",
            "# Title",
            "## Part: two ##",
            "#",
            "####### no heading",
            "```",
            "```python",
            "   ```",
            "~~~~",
            "- an item",
            "  indented",
            "1. first",
            "| a | b |",
            "| - | - |",
            "a paragraph that introduces:",
            "a word\r",
            "# Title\r",
            "    # code",
        ]
    ),
    st.text(max_size=30).map(lambda text: text.replace("\n", " ")),
)
markdown = st.lists(_line, max_size=40).map("\n".join)


@given(markdown)
@example("# a\r\n\r\n```\r\n# no heading\r\n```\r\ntext\r\n")
@example("```\nnever closed\n\n")
@example("\x0b\x1c\u2028# no heading\u2029| no table")
def test_every_passage_is_a_slice_of_its_document(text: str) -> None:
    for passage in cut(text):
        assert text[passage.start : passage.end] == passage.text
        assert passage.text.strip()


@given(markdown)
def test_passages_hold_every_line_but_headings_once_and_in_order(text: str) -> None:
    found = cut(text)
    ends = [0, *(passage.end for passage in found)]
    starts = [*(passage.start for passage in found), len(text)]
    for end, start in zip(ends, starts, strict=True):
        assert end <= start
        for line in text[end:start].split("\n"):
            assert not line.strip() or line.lstrip().startswith(("#", "|"))


_paragraph = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(["word ", "The end. ", " ", "x" * 900, "it says:\n", "\n\n"]),
        st.just("  " * 1500),
    ),
    max_size=60,
).map(lambda parts: "".join(part * 9 for part in parts))


@given(_paragraph, st.booleans())
@example("\n- " + "x" * 9000, True)
@example("| a |\n| - |\n" + "| b |\n" * 300 + "| " + "long " * 2000, True)
@example("```\n" + "code()\n" * 2000, True)
def test_no_passage_is_too_long_and_nothing_is_lost(
    text: str,
    markdown: bool,  # noqa: FBT001 - an argument of the test's own
) -> None:
    found = list(passages(Document("a.md", text, markdown=markdown)))

    for passage in found:
        assert text[passage.start : passage.end] == passage.text
        assert 0 < len(passage.text) <= LONGEST_CHARS
    if not markdown:
        kept = "".join(passage.text for passage in found)
        assert "".join(kept.split()) == "".join(text.split())


def test_a_long_paragraph_is_cut_behind_sentences() -> None:
    found = cut("This is one sentence of the many. " * 200)

    assert len(found) > 1
    assert all(p.text.endswith("many.") for p in found)
    assert all(len(p.text) > PASSAGE_CHARS / 2 for p in found[:-1])


def test_signs_of_markdown_are_text_where_there_is_none() -> None:
    text = "import os\n\n# not a heading\n\nprint(1)"

    (passage,) = passages(Document("a.py", text, markdown=False))

    assert passage.text == text


@given(markdown)
def test_the_same_text_gives_the_same_passages(text: str) -> None:
    assert cut(text) == cut(text)


def test_a_passage_knows_the_titles_above_it_and_its_anchor() -> None:
    found = cut("top\n# One `x`\na\n## Two [b](c.md)\nb\n### Three\nc\n## Four\nd\n")

    assert [(p.text, p.headings, p.anchor) for p in found] == [
        ("top", (), ""),
        ("a", ("One x",), "one-x"),
        ("b", ("One x", "Two b"), "two-b"),
        ("c", ("One x", "Two b", "Three"), "three"),
        ("d", ("One x", "Four"), "four"),
    ]


def test_a_repeated_heading_gets_a_numbered_anchor() -> None:
    found = cut("# A\n## Use\na\n## Use\nb\n## Use\nc\n")

    assert [p.anchor for p in found] == ["use", "use-1", "use-2"]


def test_an_anchor_is_made_as_github_makes_it() -> None:
    assert slug("How do I use EC2, ECS or `kill -9`?") == (
        "how-do-i-use-ec2-ecs-or-kill--9"
    )


def test_a_section_is_one_passage_without_its_heading() -> None:
    text = "# A\n\nFirst.\n\n- one\n\n  more\n- two\n\n```sh\n# code\n\nls\n```\n"

    (passage,) = cut(text)

    assert passage.text == text.removeprefix("# A\n\n").rstrip()


def test_a_long_section_is_cut_between_blocks_and_never_in_code() -> None:
    prose = "word " * 150
    code = "```python\n" + "x = 1\n\n# not a heading\n" * 120 + "```"
    found = cut(f"# A\n\n{prose}\n\n{prose}\n\n{prose}\n\nRun this:\n\n{code}\n\nDone.")

    assert [p.text[:4] for p in found] == ["word", "word", "Done"]
    assert found[1].text.endswith(f"Run this:\n\n{code}")


def test_each_row_of_a_long_table_is_a_passage_with_the_tables_head() -> None:
    rows = [f"| `code_{n}` | {'meaning ' * 20}{n} |" for n in range(20)]
    table = "\n".join(["| code | meaning |", "| --- | --- |", *rows])
    assert len(table) > TABLE_CHARS

    found = cut(f"# Codes\n\nThese:\n\n{table}\n\nAfter.\n")

    assert [p.text for p in found] == ["These:", *rows, "After."]
    assert {p.lead for p in found[1:-1]} == {"| code | meaning |\n| --- | --- |"}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a.xlsx", "# Stock\n\nItem | Count\n{}\n"),
        ("a.csv", "Item | Count\n{}\n"),
    ],
)
def test_rows_of_a_sheet_are_found_beside_its_head(source: str, text: str) -> None:
    """No rule stands below the head; rows that are short stay together."""
    rows = [f"Part {n} | {n} |  | left" for n in range(100)]
    text = text.format("\n".join(rows))
    is_csv = source.endswith(".csv")

    found = list(passages(Document(source, text, markdown=not is_csv, table=is_csv)))

    assert "\n".join(p.text for p in found) == "\n".join(rows)
    assert {p.lead for p in found} == {"Item | Count"}
    assert all(ROWS_CHARS / 2 < len(p.text) <= ROWS_CHARS for p in found[:-1])
    assert all(weighted_terms(p)["count"] == 1 for p in found)


def test_a_head_that_is_longer_than_a_table_is_a_row() -> None:
    rows = [f"{'name,' * 300}{n}" for n in range(3)]

    found = list(passages(Document("a.csv", "\n".join(rows), table=True)))

    assert [p.text for p in found] == rows
    assert {p.lead for p in found} == {""}


def test_a_long_list_is_cut_between_items() -> None:
    items = [f"- item {n}\n  {'word ' * 100}" for n in range(10)]

    found = cut("\n".join(items))

    assert len(found) > 1
    assert all(p.text.startswith("- item") for p in found)


# Words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AWS_REGION", ["aws_region", "aw", "region"]),
        ("getUserName", ["getusernam", "user", "name"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("`/api/v1/chats`", ["api", "v1", "chat"]),
        ("connected Connecting connection", ["connect", "connect", "connect"]),
        ("What is the user's café?", ["user", "café"]),
        ("I don't know it", []),
        ("kill -9, 字 x", ["kill", "字"]),
        ("log in, logged in, logging in, sign in", ["login"] * 4),
        ("sign up", ["regist"]),
        ("Backing up", ["backup"]),
        ("___ --- ...", []),
    ],
)
def test_words_are_folded_split_and_stemmed(text: str, expected: list[str]) -> None:
    assert expected == terms(text)


# Ranking ----------------------------------------------------------------------------


def test_the_passage_with_more_of_the_querys_words_comes_first() -> None:
    found = texts(
        a="# X\nThe region of the model.", b="# Y\nThe region of the bucket in AWS."
    )

    assert sources(found, "AWS region") == ["b.md", "a.md"]


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    found = texts(
        a="# X\nserver server", b="# Y\nserver lease", c="# Z\nserver", d="# W\nserver"
    )

    assert sources(found, "server lease")[0] == "b.md"


def test_a_word_of_the_nearest_heading_counts_more_than_one_of_the_text() -> None:
    found = texts(
        a="# Guide\n## Other\nBackups of the data, every night, by a job.",
        b="# Guide\n## Backups\nCopy the data, every night, by a job.",
    )

    assert sources(found, "backup") == ["b.md", "a.md"]


def test_where_a_link_leads_is_not_searched() -> None:
    found = texts(a="# X\nsee [there](policy.md#policy)", b="# Y\na policy")

    assert sources(found, "policy") == ["b.md"]


def test_equal_passages_come_in_the_documents_order() -> None:
    found = texts(b="same words", a="same words", c="same words")

    assert sources(found, "words") == ["b.md", "a.md", "c.md"]


def test_words_that_are_nowhere_lower_the_score() -> None:
    found = texts(a="The capital letters.", b="Something else.")

    (known,) = find(found, "letters")
    (partly,) = find(found, "letters of the alphabet in Greece")

    assert partly.score < known.score / 2


@given(st.lists(markdown, max_size=4), st.text(max_size=60))
def test_scores_lie_between_0_and_1_and_fall(given: list[str], query: str) -> None:
    found = Texts(Document(f"{n}.md", text) for n, text in enumerate(given))

    hits = find(found, query, limit=5)

    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    assert hits == find(found, query, limit=5)


@pytest.mark.parametrize("query", ["", "the", "?!", "nowhere"])
def test_a_query_that_matches_nothing_finds_nothing(query: str) -> None:
    assert find(texts(a="# A\nwords"), query) == []
    assert find(Texts([]), query) == []


def test_no_more_hits_come_than_asked_for() -> None:
    assert len(find(texts(a="word", b="word", c="word"), "word", limit=2)) == 2


def test_what_is_rare_is_told_by_the_index_beside() -> None:
    found = texts(a="# X\nserver", b="# Y\nlease")

    common = found.search(
        "server lease", 5, beside=Frequency(100, {"server": 100, "leas": 1})
    )

    assert [hit.passage.source for hit in common] == ["b.md", "a.md"]
    assert common[1].score < common[0].score / 10


def test_importing_the_module_does_not_load_the_stemmers() -> None:
    check = (
        "import sys, app.integrations.search.lexical, app.integrations.llm.guide;"
        "sys.exit('snowballstemmer' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
