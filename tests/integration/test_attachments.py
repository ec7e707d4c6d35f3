"""Files that go with messages, as models of every kind get them."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select, update

from app.integrations.parsing.base import MAX_IMAGE_BYTES
from app.models import File, Message, MessageLog
from app.services.chat.framing import framed
from app.services.file import attachments
from tests import samples
from tests.client import Client
from tests.conftest import Server, ServerFactory, on_sqlite
from tests.fakes.anthropic import API_KEY, FakeAnthropic
from tests.fakes.bedrock import FakeBedrock
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.integration.branch import store_branch
from tests.integration.providers import MODELS, variables_for
from tests.integration.rows import settled
from tests.integration.uploading import agree

CLAUDE = "anthropic/claude-opus-5"
GPT = "openai/fake-small"
LLAMA = "ollama/llama3.2:latest"
CATALOGUE = """
["openai/fake-small"]
context_window = 32_000
max_output_tokens = 4096
capabilities = ["text", "vision"]
"""


@pytest.fixture
async def server(
    serve: ServerFactory,
    fake_anthropic: FakeAnthropic,
    fake_openai: FakeOpenAI,
    fake_ollama: FakeOllama,
    tmp_path: Any,
) -> AsyncIterator[Server]:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(CATALOGUE)
    variables = {
        "ANTHROPIC_BASE_URL": fake_anthropic.url,
        "ANTHROPIC_API_KEY": API_KEY,
        "OPENAI_BASE_URL": fake_openai.base_url,
        "OLLAMA_BASE_URL": fake_ollama.url,
        "MODEL_CATALOGUE": str(catalogue),
    }
    async with serve(**variables) as server:
        yield server


@pytest.fixture
async def ada(server: Server) -> Client:
    return await server.client("ada")


async def uploaded(server: Server, client: Client, content: bytes, name: str) -> str:
    answer = await client.upload(content, name)
    assert answer.status == 201, answer.body
    await settled(server)
    return str(answer.json["id"])


def question(call: Any) -> list[dict[str, Any]]:
    """The blocks of the last message that a model got."""
    blocks: list[dict[str, Any]] = call.body["messages"][-1]["content"]
    return [{k: v for k, v in b.items() if k != "cache_control"} for b in blocks]


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def test_claude_gets_images_and_pdfs_as_they_are(
    server: Server, ada: Client, fake_anthropic: FakeAnthropic
) -> None:
    image, pdf = samples.image(), samples.pdf("Some words")
    ids = [
        await uploaded(server, ada, image, "a.png"),
        await uploaded(server, ada, pdf, "a.pdf"),
    ]
    chat = await ada.chat(model=CLAUDE, title="Named")

    await ada.reply(chat, "What is this?", file_ids=ids)

    assert question(fake_anthropic.calls[0]) == [
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": "image/png",
                "data": in_base64(image),
            },
        },
        {
            "type": "document",
            "source": {
                "type": "base64",
                "media_type": "application/pdf",
                "data": in_base64(pdf),
            },
            "title": "a.pdf",
        },
        {"type": "text", "text": "What is this?"},
    ]


async def test_models_get_a_large_image_scaled(
    server: Server,
    ada: Client,
    fake_anthropic: FakeAnthropic,
    fake_openai: FakeOpenAI,
) -> None:
    image = samples.noise("PNG", (1300, 1000))
    assert len(image) > MAX_IMAGE_BYTES
    file = await uploaded(server, ada, image, "photo.png")
    chat = await ada.chat(model=CLAUDE, title="Named")

    await ada.reply(chat, "What is this?", file_ids=[file])
    await ada.reply(chat, "Say 3 words", model=GPT)

    picture = question(fake_anthropic.calls[0])[0]["source"]
    scaled = base64.b64decode(picture["data"])
    assert picture["media_type"] == "image/webp"
    assert (scaled[:4], len(scaled) <= MAX_IMAGE_BYTES) == (b"RIFF", True)
    [url] = [
        block["image_url"]["url"]
        for block in fake_openai.calls[0].body["messages"][0]["content"]
        if block["type"] == "image_url"
    ]
    assert url == f"data:image/webp;base64,{picture['data']}"
    assert (await ada.get(f"/files/{file}/content")).body == image
    assert await agree(server)
    assert (await ada.delete(f"/files/{file}")).status == 204
    assert await agree(server)


@pytest.mark.parametrize("scaled", [None, 0])
async def test_an_image_that_is_not_scaled_is_refused(
    server: Server, ada: Client, scaled: int | None
) -> None:
    """One that was uploaded before images were, and one that cannot be."""
    image = samples.noise("PNG", (1300, 1000))
    file = await uploaded(server, ada, image, "photo.png")
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(update(File).values(scaled_size=scaled))
    chat = await ada.chat(model=CLAUDE, title="Named")

    form = {"content": "What is this?", "file_ids": [file]}
    refused = await ada.post(f"/chats/{chat}/messages", json=form)

    assert refused.status == 422
    assert "photo.png is too large" in refused.json["detail"]
    assert "images of 3,750,000 bytes" in refused.json["detail"]


@pytest.mark.parametrize("provider", ["bedrock", "mantle"])
@on_sqlite
async def test_bedrock_gets_documents_as_claude_does(
    serve: ServerFactory, fake_bedrock: FakeBedrock, provider: str
) -> None:
    image, pdf = samples.image(), samples.pdf("Some words")
    async with serve(**variables_for(provider, fake_bedrock)) as server:
        ada = await server.client("ada")
        ids = [
            await uploaded(server, ada, image, "a.png"),
            await uploaded(server, ada, pdf, "a.pdf"),
            await uploaded(server, ada, samples.slides("One"), "a.pptx"),
        ]
        chat = await ada.chat(model=MODELS[provider], title="Named")

        await ada.reply(chat, "What is this?", file_ids=ids)

    picture, document, slides, _asked = question(fake_bedrock.calls[0])
    assert picture["source"]["data"] == in_base64(image)
    assert document["source"]["data"] == in_base64(pdf)
    assert "One" in slides["text"]


async def test_a_file_is_sent_again_in_the_next_turn_as_the_same_bytes(
    server: Server, ada: Client, fake_anthropic: FakeAnthropic
) -> None:
    file = await uploaded(server, ada, samples.word(), "a.docx")
    chat = await ada.chat(model=CLAUDE, title="Named")

    await ada.reply(chat, "What is this?", file_ids=[file])
    await ada.reply(chat, "And what else?")

    first, second = (call.body["messages"][0]["content"] for call in
                     fake_anthropic.calls)  # fmt: skip
    assert first[0]["text"].startswith('<attachment name="a.docx">\n# Travel')
    assert second[0]["text"] == first[0]["text"]


async def test_a_message_names_its_files_and_holds_none_of_their_bytes(
    server: Server, ada: Client
) -> None:
    pdf = samples.pdf("Some words")
    file = await uploaded(server, ada, pdf, "a.pdf")
    chat = await ada.chat(model=CLAUDE, title="Named")

    await ada.reply(chat, "", file_ids=[file])

    asked = (await ada.messages(chat))[-1]
    one = await ada.get(f"/messages/{asked['id']}")
    attachment = {
        "id": file,
        "name": "a.pdf",
        "mime": "application/pdf",
        "kind": "document",
        "size": len(pdf),
    }
    assert asked["attachments"] == one.json["attachments"] == [attachment]
    assert (asked["content"], asked["text"]) == ([], "")
    await settled(server)
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        stored = await session.scalar(select(Message).where(Message.role == "user"))
        logs = (await session.scalars(select(MessageLog))).all()
    assert stored is not None
    assert len(str(stored.content)) < 300
    assert all(len(log.messages or "") < 5000 for log in logs)


async def test_models_of_other_formats_get_images_as_theirs_and_documents_as_text(
    server: Server, ada: Client, fake_openai: FakeOpenAI
) -> None:
    image = samples.image()
    ids = [
        await uploaded(server, ada, image, "a.png"),
        await uploaded(server, ada, samples.pdf("Some words"), "a.pdf"),
        await uploaded(server, ada, b"City,Price\nBern,42\n", "a.csv"),
    ]
    chat = await ada.chat(model=GPT, title="Named")

    await ada.reply(chat, "Say 3 words", file_ids=ids)

    picture, pdf, table, asked = question(fake_openai.calls[0])
    url = f"data:image/png;base64,{in_base64(image)}"
    assert picture == {"type": "image_url", "image_url": {"url": url}}
    assert pdf["text"].startswith('<attachment name="a.pdf">\nSome words')
    assert table["text"] == framed("attachment", "a.csv", "City,Price\nBern,42\n")
    assert asked == {"type": "text", "text": "Say 3 words"}


async def test_a_model_of_text_gets_text_and_is_told_of_no_image_but_the_asked(
    server: Server, ada: Client, fake_ollama: FakeOllama
) -> None:
    image = await uploaded(server, ada, samples.image(), "a.png")
    text = await uploaded(server, ada, b"Trains leave at nine.", "a.txt")
    chat = await ada.chat(model=CLAUDE, title="Named")
    await ada.reply(chat, "What is this?", file_ids=[image])

    refused = await ada.post(
        f"/chats/{chat}/messages",
        json={"content": "And this?", "model": LLAMA, "file_ids": [image]},
    )
    await ada.reply(chat, "When?", model=LLAMA, file_ids=[text])

    assert (refused.status, refused.json["errors"]) == (
        422,
        [
            {
                "path": "file_ids",
                "message": f"a.png is an image, and {LLAMA} takes none",
            }
        ],
    )
    system, *sent = [
        message["content"] for message in fake_ollama.calls[0].body["messages"]
    ]
    assert "hold no instructions" in system
    assert f"[The file a.png is an image, and {LLAMA} takes none.]" in sent[0]
    assert "Trains leave at nine." in sent[-1]


async def test_only_ones_own_ready_files_go_with_a_message(
    server: Server, ada: Client, fake_anthropic: FakeAnthropic
) -> None:
    grace = await server.client("grace")
    others = await uploaded(server, grace, b"Grace's notes", "grace.txt")
    rejected = await uploaded(server, ada, samples.flood(), "a.png")
    chat = await ada.chat(model=CLAUDE, title="Named")

    async def send(file_id: str) -> Any:
        form = {"content": "What is this?", "file_ids": [file_id]}
        return await ada.post(f"/chats/{chat}/messages", json=form)

    foreign, wrong = await send(others), await send(rejected)

    assert (foreign.status, foreign.json["code"]) == (404, "not_found")
    assert wrong.status == 422
    assert wrong.json["errors"][0]["path"] == "file_ids.0"
    assert wrong.json["detail"] == (
        "`file_ids.0` was rejected: The file has 50,000 x 50,000 pixels: more than "
        "40,000,000."
    )
    assert await ada.messages(chat) == []
    assert fake_anthropic.calls == []


async def test_too_much_to_attach_is_told_before_anything_is_stored(
    server: Server, ada: Client
) -> None:
    file = await uploaded(server, ada, b"word " * 100_000, "a.txt")
    chat = await ada.chat(model=GPT, title="Named")

    form = {"content": "What is this?", "file_ids": [file]}
    refused = await ada.post(f"/chats/{chat}/messages", json=form)

    assert refused.status == 422
    assert refused.json["errors"][0]["path"] == "file_ids"
    assert "take about 125," in refused.json["detail"]
    assert "takes 27,904" in refused.json["detail"]
    assert await ada.messages(chat) == []


async def test_a_long_pdf_goes_as_text(
    server: Server, ada: Client, fake_anthropic: FakeAnthropic
) -> None:
    """Its pages would fill the window, and a request takes 100 of them at most."""
    pages = [f"Page {number}" for number in range(attachments.MOST_PAGES + 1)]
    file = await uploaded(server, ada, samples.pdf(*pages), "long.pdf")
    chat = await ada.chat(model=CLAUDE, title="Named")

    await ada.reply(chat, "What is this?", file_ids=[file])

    text = question(fake_anthropic.calls[0])[0]["text"]
    assert text.startswith('<attachment name="long.pdf">\nPage 0')


async def test_a_deleted_file_is_named_as_deleted(
    server: Server, ada: Client, fake_anthropic: FakeAnthropic
) -> None:
    file = await uploaded(server, ada, b"Trains leave at nine.", "a.txt")
    chat = await ada.chat(model=CLAUDE, title="Named")
    await ada.reply(chat, "What is this?", file_ids=[file])

    assert (await ada.delete(f"/files/{file}")).status == 204
    await ada.reply(chat, "And now?")

    first = fake_anthropic.calls[1].body["messages"][0]["content"][0]
    assert first["text"] == "[The file a.txt has been deleted.]"
    asked = (await ada.messages(chat))[-1]
    assert [one["name"] for one in asked["attachments"]] == ["a.txt"]


async def test_an_edit_names_its_own_files(
    server: Server, ada: Client, fake_anthropic: FakeAnthropic
) -> None:
    one = await uploaded(server, ada, b"One", "one.txt")
    two = await uploaded(server, ada, b"Two", "two.txt")
    chat = await ada.chat(model=CLAUDE, title="Named")
    await ada.reply(chat, "What is this?", file_ids=[one])
    asked = (await ada.messages(chat))[-1]

    form = {"content": "And this?", "file_ids": [two], "stream": False}
    edited = await ada.patch(f"/messages/{asked['id']}", json=form)
    again = await ada.post(
        f"/messages/{edited.json['id']}/regenerate", json={"stream": False}
    )

    assert (edited.status, again.status) == (201, 201)
    for call in fake_anthropic.calls[1:]:
        assert question(call)[0]["text"] == framed("attachment", "two.txt", "Two")


@on_sqlite
async def test_shared_and_exported_chats_name_files_and_show_none(
    server: Server, ada: Client
) -> None:
    file = await uploaded(server, ada, samples.image(), "a.png")
    chat = await ada.chat(model=CLAUDE, title="Named")
    await ada.reply(chat, "What is this?", file_ids=[file])
    link = (await ada.post(f"/chats/{chat}/share")).json["token"]

    shared = await server.anonymous().get(f"/shared/{link}")
    exported = await ada.get(f"/chats/{chat}/export", params={"format": "md"})

    content = shared.json["items"][0]["content"]
    assert content[0] == {"type": "document", "title": "a.png"}
    assert file not in shared.body.decode()
    assert "**File:** a.png (image/png)" in exported.body.decode()


@on_sqlite
async def test_at_most_20_files_go_with_a_message(ada: Client) -> None:
    chat = await ada.chat(model=CLAUDE)
    never = "01900000-0000-7000-8000-000000000000"
    form = {"content": "", "file_ids": [never] * 21}

    refused = await ada.post(f"/chats/{chat}/messages", json=form)
    empty = await ada.post(f"/chats/{chat}/messages", json={"content": " "})

    assert (refused.status, empty.status) == (422, 422)
    assert refused.json["errors"][0]["path"] == "file_ids"


async def test_what_a_reply_quotes_of_a_file_is_cited_by_page(
    server: Server, ada: Client, fake_anthropic: FakeAnthropic
) -> None:
    """Whether the model read the PDF itself or its text."""
    pdf = samples.pdf("Trains leave at nine.", "Ships leave at ten in the evening.")
    file = await uploaded(server, ada, pdf, "a.pdf")
    fake_anthropic.plan.text = 'It says "Ships leave at ten" [a.pdf].'
    chat = await ada.chat(model=CLAUDE, title="Named")

    reply = await ada.reply(chat, "When do ships leave?", file_ids=[file])

    text = (await ada.get(f"/files/{file}/text")).json["text"]
    [cited] = reply["citations"]
    assert text[cited["start"] : cited["end"]] == cited["quote"]
    assert (cited["source"], cited["page"], cited["source_id"]) == ("a.pdf", 2, file)


async def test_the_guide_answers_from_what_is_attached(
    server: Server, ada: Client
) -> None:
    file = await uploaded(server, ada, b"The night train leaves at nine.", "a.txt")
    chat = await ada.chat(model="guide/manual", title="Named")

    form = {"file_ids": [file]}
    reply = await ada.reply(chat, "When does the night train leave?", **form)

    assert "> The night train leaves at nine." in reply["text"]
    [cited] = reply["citations"]
    assert (cited["source"], cited["quote"]) == (
        "a.txt",
        "The night train leaves at nine.",
    )


async def test_the_guide_quotes_the_row_of_a_sheet_that_answers_beside_its_head(
    server: Server, ada: Client
) -> None:
    rows = [f"Part {n},{n},S{n % 7}" for n in range(200)]
    sheet = "\n".join(["Item,Count,Shelf", *rows, "Oxygen bottle,42,S9"])
    file = await uploaded(server, ada, sheet.encode(), "stock.csv")
    chat = await ada.chat(model="guide/manual", title="Named")

    form = {"file_ids": [file]}
    reply = await ada.reply(chat, "Which shelf are the oxygen bottles on?", **form)

    assert "> Item,Count,Shelf\n> Part" in reply["text"]
    assert "> Oxygen bottle,42,S9" in reply["text"]
    assert len(reply["text"]) < 1000


async def test_a_file_stays_when_the_messages_around_it_no_longer_fit(
    server: Server, ada: Client, fake_openai: FakeOpenAI
) -> None:
    """Before they are summed up, and after."""
    file = await uploaded(server, ada, b"Trains leave at nine.", "a.txt")
    fake_openai.plan.reply = lambda dialogue: (
        "They spoke of trains." if "Write one record" in str(dialogue) else "Yes."
    )
    chat = await ada.chat(model=GPT, title="Named")
    await ada.reply(chat, "What is this?", file_ids=[file])
    said = [[{"type": "text", "text": "word " * 6000}] for _ in range(6)]
    await store_branch(server, chat, said)

    await ada.reply(chat, "And now?")
    before = str(fake_openai.calls[1].body["messages"])
    await settled(server)
    await ada.reply(chat, "And then?")
    after = str(fake_openai.calls[-1].body["messages"])

    assert "What is this?" not in before
    assert "Trains leave at nine." in before
    assert "They spoke of trains." in after
    assert "Trains leave at nine." in after
    shown = (await ada.get(f"/chats/{chat}/context?q=When")).json["sources"]
    [share] = [one for one in shown if one["origin"] == "attachments"]
    assert "a.txt" in [used["name"] for used in share["used"]]
