"""What a model gets to see of a chat, under its context window."""

from collections.abc import Sequence

from app.core.exceptions import FieldError, ValidationFailedError
from app.integrations.llm.base import Block, ChatMessage, ModelInfo
from app.integrations.llm.tokens import estimate_blocks, estimate_tokens
from app.services.chat.history import Said

_MESSAGE_OVERHEAD = 8  # tokens a message costs besides its text, on the safe side


def assemble(
    newest_first: Sequence[Said],
    *,
    system: str,
    model: ModelInfo,
    max_output_tokens: int,
) -> tuple[list[ChatMessage], int]:
    """The messages that fit, oldest first, and the estimated tokens of all input.

    The newest message is always in; older ones go in while they fit, whole or not at
    all. The first is the user's, and roles alternate, as every provider wants it.
    Raises ValidationFailedError where the newest message alone is too long.
    """
    budget = model.context_window - max_output_tokens
    used = estimate_tokens(system)
    chosen: list[tuple[str, list[Block]]] = []
    for message in newest_first:
        blocks = _seen(message)
        if not blocks:
            continue  # a reply that failed before its first word
        cost = estimate_blocks(blocks) + _MESSAGE_OVERHEAD
        if used + cost > budget:
            break
        used += cost
        chosen.append((message.role, blocks))
    while chosen and chosen[-1][0] == "assistant":
        chosen.pop()
    if not chosen:
        raise _too_long(model, budget)
    return _alternating(chosen[::-1]), used


def _seen(message: Said) -> list[Block]:
    """What a model gets of it.

    Its own reasoning is not sent back to it, nor the calls of tools: no turn of ours
    has an answer for them yet, and a provider takes no call without.
    """
    return [
        block
        for block in message.content
        if block["type"] in {"image", "document"}
        or (block["type"] == "text" and block["text"])
    ]


def _alternating(messages: Sequence[tuple[str, list[Block]]]) -> list[ChatMessage]:
    merged: list[tuple[str, list[Block]]] = []
    for role, blocks in messages:
        if merged and merged[-1][0] == role:
            merged[-1][1].extend(blocks)
        else:
            merged.append((role, blocks))
    return [
        ChatMessage("user" if role == "user" else "assistant", blocks)
        for role, blocks in merged
    ]


def _too_long(model: ModelInfo, budget: int) -> ValidationFailedError:
    message = (
        f"is too long for {model.name}, which takes about {max(budget, 0)} tokens: "
        "shorten it or choose a model with a larger context window"
    )
    return ValidationFailedError(
        f"`content` {message}.", errors=[FieldError(path="content", message=message)]
    )
