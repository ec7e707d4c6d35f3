"""Content blocks on their way to a model: what it takes, and what they say as text."""

from collections.abc import Iterable, Iterator

from app.integrations.llm.base import (
    Block,
    ChatRequest,
    ModelInfo,
    ProviderRejectedError,
    Source,
    ToolChoice,
)

_READABLE = {
    "text": "text",
    "vision": "images",
    "documents": "documents",
    "tools": "tools",
}


class FileBlock(Block):
    """A block of an attached file, which is sent as any other.

    `source` is what of it may be quoted; `pages` are a PDF's, for estimates.
    """

    source: Source | None = None
    pages: int = 0


def require_capabilities(request: ChatRequest, model: ModelInfo) -> None:
    """Raise ProviderRejectedError where the model does not take what is in the request.

    To be called before a request is sent: no provider does it.
    """
    for message in request.messages:
        for block in _with_inner(message.content):
            needed = _needed(block)
            if needed not in model.capabilities:
                raise _not_for(model, f"block of type {block['type']!r}")
    if request.tools and "tools" not in model.capabilities:
        raise _not_for(model, "tools")


def _not_for(model: ModelInfo, what: str) -> ProviderRejectedError:
    takes = [word for name, word in _READABLE.items() if name in model.capabilities]
    return ProviderRejectedError(
        f"{model.name} takes no {what}: it takes {', '.join(takes)}. Where that is "
        "wrong, an admin can register what it takes."
    )


def _with_inner(content: Iterable[Block]) -> Iterator[Block]:
    """The blocks, and those inside of a tool's result."""
    for block in content:
        yield block
        if block.get("type") == "tool_result" and isinstance(block["content"], list):
            yield from _with_inner(block["content"])


def _needed(block: Block) -> str:
    match block.get("type"):
        case "image":
            return "vision"
        case "document" if block["source"].get("type") != "text":
            return "documents"
        case "tool_use" | "tool_result":
            return "tools"
    return "text"


def document_text(block: Block) -> str | None:
    """A document's text with its title above; None where it is no plain text."""
    source = block["source"]
    if source.get("type") != "text":
        return None
    title = block.get("title")
    return f"{title}\n\n{source['data']}" if title else str(source["data"])


def result_text(block: Block, who: str) -> tuple[str, list[Block]]:
    """What a tool told, for servers that take its result as text alone; its images.

    That it failed such servers are told in words, too.
    """
    content, images = block.get("content", ""), []
    if isinstance(content, str):
        texts = [content]
    else:
        texts = []
        for inner in content:
            match inner.get("type"):
                case "text":
                    texts.append(inner["text"])
                case "document" if (text := document_text(inner)) is not None:
                    texts.append(text)
                case "image":
                    images.append(inner)
                case _:
                    raise rejected(inner, who)
    failed = ["The tool failed:"] if block.get("is_error") else []
    return "\n\n".join([*failed, *texts]), images


def rejected_choice(
    choice: ToolChoice, who: str, why: str = ""
) -> ProviderRejectedError:
    """The error for a choice of tools that a server cannot be asked for."""
    return ProviderRejectedError(
        f"{who} takes no tool_choice of type {choice.get('type')!r}{why}."
    )


def rejected_field(name: str, who: str, why: str = "") -> ProviderRejectedError:
    """The error for a field of a request that a server has no means for."""
    return ProviderRejectedError(f"{who} takes no {name}{why}.")


def rejected(block: Block, who: str, why: str = "") -> ProviderRejectedError:
    """The error for a block that cannot be said in a server's format."""
    return ProviderRejectedError(
        f"{who} takes no block of type {block.get('type')!r}{why}."
    )
