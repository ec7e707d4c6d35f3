"""The guide against our own manual: right passages, exact quotes, honest silence."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from app.core.config import ROOT
from app.core.database import Database
from app.integrations.llm.base import (
    ChatMessage,
    ChatRequest,
    Citation,
    Provider,
    ProviderEvent,
    ProviderRejectedError,
    Source,
    Stop,
    TextDelta,
    Usage,
)
from app.integrations.llm.guide import GuideProvider
from app.integrations.search.passages import slug
from app.services.knowledge.manual import Manual
from tests.conftest import make_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEDROCK = "How do I connect AWS Bedrock?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guide(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> AsyncIterator[GuideProvider]:
    """One for all: its manual comes into the index once."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copy(sqlite_template, folder / "workroom.db")
    database = Database(make_settings(folder))
    yield GuideProvider(Manual(database))
    await database.close()


def user(text: str) -> ChatMessage:
    return ChatMessage("user", [{"type": "text", "text": text}])


def assistant(text: str) -> ChatMessage:
    return ChatMessage("assistant", [{"type": "text", "text": text}])


async def ask(
    guide: GuideProvider, *messages: ChatMessage | str
) -> list[ProviderEvent]:
    request = ChatRequest(
        "manual", [user(m) if isinstance(m, str) else m for m in messages]
    )
    return [event async for event in guide.stream(request)]


def text_of(events: Sequence[ProviderEvent]) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta))


def citations_of(events: Sequence[ProviderEvent]) -> list[Citation]:
    return [e for e in events if isinstance(e, Citation)]


def first_source(events: Sequence[ProviderEvent]) -> str:
    found = citations_of(events)
    return found[0].source.partition("#")[0] if found else ""


async def test_it_is_a_provider_that_needs_no_configuration(
    guide: GuideProvider,
) -> None:
    provider: Provider = guide

    assert provider.name == "guide"
    assert provider.missing is None
    assert [model.name for model in await provider.models()] == ["guide/manual"]


async def test_the_bedrock_question_quotes_the_right_section_exactly(
    guide: GuideProvider,
) -> None:
    events = await ask(guide, BEDROCK)

    first = citations_of(events)[0]
    assert first.source == "docs/guides/bedrock.md#how-do-i-connect-aws-bedrock"
    assert "AWS_REGION" in first.quote
    assert "AWS_BEARER_TOKEN_BEDROCK" in first.quote
    for citation in citations_of(events):
        path, _, anchor = citation.source.partition("#")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert source[citation.start : citation.end] == citation.quote
        assert anchor in {slug(line.lstrip("# ")) for line in source.splitlines()}


async def test_an_answer_says_who_speaks_names_its_source_and_holds_the_quote(
    guide: GuideProvider,
) -> None:
    events = await ask(guide, BEDROCK)

    answer = text_of(events)
    assert answer.startswith("I am the guide, not an AI model")
    assert "(`docs/guides/bedrock.md#how-do-i-connect-aws-bedrock`)" in answer
    for citation in citations_of(events):
        quoted = "\n".join(f"> {x}".rstrip() for x in citation.quote.split("\n"))
        assert quoted in answer


async def test_an_answer_comes_in_small_pieces_and_ends_properly(
    guide: GuideProvider,
) -> None:
    events = await ask(guide, BEDROCK)

    assert events[-2:] == [Usage(0, 0), Stop("end_turn")]
    pieces = [e.text for e in events if isinstance(e, TextDelta)]
    assert len(pieces) > 20
    assert all(len(piece.split()) <= 3 for piece in pieces)


async def test_an_answer_lets_others_run_between_its_pieces(
    guide: GuideProvider,
) -> None:
    await ask(guide, BEDROCK)  # the manual is read by now
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    events = await ask(guide, BEDROCK)
    counting.cancel()

    assert turns >= sum(isinstance(e, TextDelta) for e in events)


# The questions of the manual, and of the world --------------------------------------


@pytest.mark.parametrize(
    ("question", "source"),
    [
        (BEDROCK, "docs/guides/bedrock.md"),
        ("Which IAM policy does the role need?", "docs/guides/bedrock.md"),
        ("What is an inference profile?", "docs/guides/bedrock.md"),
        ("Can I reach Bedrock through a VPC endpoint?", "docs/guides/bedrock.md"),
        ("AccessDeniedException from Bedrock", "docs/guides/bedrock.md"),
        ("How do I use Ollama?", "docs/guides/ollama.md"),
        ("Can I use vLLM?", "docs/guides/openai-compatible.md"),
        ("Where do I put my OpenAI key?", "docs/guides/openai-compatible.md"),
        ("What is Workroom?", "docs/QUICKSTART.md"),
        ("How do I install and start it?", "docs/QUICKSTART.md"),
        ("How do I sign up?", "docs/guides/accounts.md"),
        ("How do I log in?", "docs/guides/accounts.md"),
        ("How do I change my password?", "docs/guides/accounts.md"),
        ("How long is an access token valid?", "docs/guides/accounts.md"),
        ("How do I back up my data?", "docs/guides/operations.md"),
        ("Can I use Postgres instead of SQLite?", "docs/guides/operations.md"),
        ("Where are the logs?", "docs/guides/operations.md"),
        ("What happens on kill -9?", "docs/guides/operations.md"),
        ("Can I run several processes?", "docs/guides/operations.md"),
        ("How do I upgrade?", "docs/guides/operations.md"),
        ("How do I change the port?", "docs/guides/configuration.md"),
        ("How do I set it up for production?", "docs/guides/configuration.md"),
        ("What does TURN_LEASE_SECONDS do?", "docs/guides/configuration.md"),
        ("How do I generate new keys?", "docs/guides/configuration.md"),
        ("How do I stop a reply?", "docs/guides/chat.md"),
        ("How do I resume a stream after a disconnect?", "docs/guides/chat.md"),
        ("What are credits?", "docs/guides/plans-and-credits.md"),
        ("Which events does the stream send?", "docs/guides/chat.md"),
        ("What does turn_in_progress mean?", "docs/guides/troubleshooting.md"),
        ("Why do I get a 401?", "docs/guides/troubleshooting.md"),
        ("The server does not start", "docs/guides/troubleshooting.md"),
        ("How is the code's architecture?", "docs/architecture.md"),
        ("How do I add a feature?", "docs/adding-a-feature.md"),
    ],
)
async def test_a_new_admins_question_gets_the_right_page_first(
    guide: GuideProvider, question: str, source: str
) -> None:
    assert source == first_source(await ask(guide, question))


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "Who wrote Hamlet?",
        "What is the meaning of life?",
        "What's the weather tomorrow?",
        "Write me a poem about the sea.",
        "Write a Python function that reverses a list.",
        "How do I open a bank account?",
        "How do I change a tire on my car?",
        "What is the speed of light?",
        "What time is it in Tokyo?",
        "Plan a three day trip to Rome.",
        "What is 12 times 37?",
        "Explain quantum entanglement.",
        "Give me a recipe for lasagna.",
        "hello",
        "",
        "?",
    ],
)
async def test_a_question_of_another_world_gets_the_honest_answer(
    guide: GuideProvider, question: str
) -> None:
    events = await ask(guide, question)

    answer = text_of(events)
    assert citations_of(events) == []
    assert "I found nothing in it about this" in answer
    for variable in (
        "AWS_REGION",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
    ):
        assert variable in answer
    assert events[-1] == Stop("end_turn")


@pytest.mark.parametrize("follow_up", ["and on ECS?", "What about an IAM role?"])
async def test_a_follow_up_leans_on_the_question_before(
    guide: GuideProvider, follow_up: str
) -> None:
    events = await ask(guide, BEDROCK, assistant("..."), follow_up)

    assert citations_of(events)[0].source == (
        "docs/guides/bedrock.md#how-do-i-use-an-iam-role-on-ec2-ecs-or-eks"
    )


async def test_a_question_that_stands_alone_does_not(guide: GuideProvider) -> None:
    events = await ask(guide, BEDROCK, assistant("..."), "How do I stop a reply?")

    assert first_source(events) == "docs/guides/chat.md"


async def test_rows_of_one_table_are_quoted_as_one_table(guide: GuideProvider) -> None:
    events = await ask(guide, "Which settings are there for models?")

    rows = [c for c in citations_of(events) if c.quote.startswith("| `")]
    assert len(rows) > 1
    assert text_of(events).count("> | setting | default | meaning |") == 1


# What it is given ---------------------------------------------------------------------

SHEEP = Source("sheep.md", "# Wool\n\nSheep are shorn in June, before the heat comes.")


async def with_sources(
    guide: GuideProvider, question: str, *sources: Source, last: str | None = None
) -> list[ProviderEvent]:
    request = ChatRequest("manual", [user(question)], sources=sources, question=last)
    return [event async for event in guide.stream(request)]


async def test_what_it_is_given_is_quoted_with_its_name(guide: GuideProvider) -> None:
    events = await with_sources(guide, "When are sheep shorn?", SHEEP)

    answer = text_of(events)
    assert "> Sheep are shorn in June, before the heat comes." in answer
    assert "`sheep.md" in answer
    assert "I quote what this chat has to lean on." in answer
    assert citations_of(events) == []  # whoever gave it looks its quotes up


async def test_the_manual_still_answers_what_only_it_knows(
    guide: GuideProvider,
) -> None:
    events = await with_sources(guide, BEDROCK, SHEEP)

    assert first_source(events) == "docs/guides/bedrock.md"
    assert "Sheep" not in text_of(events)


async def test_finding_nothing_it_says_where_it_looked(guide: GuideProvider) -> None:
    events = await with_sources(guide, "Who wrote Hamlet?", SHEEP)

    assert "what this chat has to lean on and Workroom's manual" in text_of(events)
    assert "AWS_REGION" in text_of(events)


async def test_the_question_is_told_apart_from_what_stands_before_it(
    guide: GuideProvider,
) -> None:
    asked = f"Passages follow: {SHEEP.text}\n\nWho wrote Hamlet?"

    events = await with_sources(guide, asked, SHEEP, last="Who wrote Hamlet?")

    assert "found nothing" in text_of(events)


# The same again ---------------------------------------------------------------------


async def test_the_same_question_gets_the_same_answer(guide: GuideProvider) -> None:
    answers = [await ask(guide, BEDROCK) for _ in range(2)]

    assert answers[0] == answers[1]


@pytest.mark.parametrize("question", [BEDROCK, "What are credits?", "Who is Napoleon?"])
async def test_a_cut_off_answer_is_continued_exactly_from_anywhere(
    guide: GuideProvider, question: str
) -> None:
    """Wherever the text was cut: the rest follows, and each citation comes once.

    A reader who has the whole of a quote got its citation before the quote's end.
    """
    whole = await ask(guide, question)
    text, citations = text_of(whole), citations_of(whole)

    for cut in range(len(text) + 1):
        held, shown = [], ""
        for event in whole:
            if isinstance(event, TextDelta):
                shown += event.text
                if len(shown) > cut:
                    break
            elif isinstance(event, Citation):
                held.append(event)

        rest = await ask(guide, question, assistant(text[:cut]))

        assert text[:cut] + text_of(rest) == text
        missing = [c for c in citations if c not in held]
        continued = citations_of(rest)
        assert continued[len(continued) - len(missing) :] == missing
        assert rest[-2:] == [Usage(0, 0), Stop("end_turn")]


async def test_a_continued_text_that_is_not_the_guides_is_left_as_it_is(
    guide: GuideProvider,
) -> None:
    events = await ask(guide, BEDROCK, assistant("Bedrock is a rock."))

    assert events == [Usage(0, 0), Stop("end_turn")]


async def test_another_model_than_the_manual_is_refused(guide: GuideProvider) -> None:
    with pytest.raises(ProviderRejectedError):
        await anext(aiter(guide.stream(ChatRequest("other", [user(BEDROCK)]))))
