"""What the sources of a chat have to say in a turn, in the order of the budget."""

from app.services.chat.context import Offer, Piece
from app.services.chat.history import ChatFacts


def of_chat(chat: ChatFacts) -> list[Offer]:
    if not chat.system_prompt:
        return []
    prompt = Piece("the chat's system prompt", chat.system_prompt)
    return [Offer("system", [prompt], required=True)]
