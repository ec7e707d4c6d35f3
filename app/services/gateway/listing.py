"""Models as clients list them: in OpenAI's form, and in Anthropic's.

Reference: "List models" in the API documentation of either. Nobody tells us when a
model was made, so that is the epoch, as it is Anthropic's for an unknown time.
"""

from collections.abc import Mapping, Sequence

from app.schemas.model import ModelRead
from app.services.gateway.fields import InvalidFieldError, Json

MOST = 1000
"""Models of a page of Anthropic's."""

_USUAL = 20
_EPOCH = "1970-01-01T00:00:00Z"


def openai_list(models: Sequence[ModelRead]) -> Json:
    return {"object": "list", "data": [openai_model(model) for model in models]}


def openai_model(model: ModelRead) -> Json:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": model.provider,
    }


def anthropic_list(models: Sequence[ModelRead], query: Mapping[str, str]) -> Json:
    """The page that `limit`, and `after_id` or `before_id`, ask for.

    Raises InvalidFieldError for what is none of the list.
    """
    limit = _limit(query)
    names = [model.name for model in models]
    start, end = 0, len(models)
    if "after_id" in query:
        start = _place(names, query, "after_id") + 1
    if "before_id" in query:
        end = _place(names, query, "before_id")
    if "before_id" in query and "after_id" not in query:
        page = models[max(start, end - limit) : end]
    else:
        page = models[start : min(start + limit, end)]
    return {
        "data": [anthropic_model(model) for model in page],
        "has_more": len(page) < end - start,
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }


def anthropic_model(model: ModelRead) -> Json:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": _EPOCH,
        "lifecycle": "active",
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output_tokens,
    }


def _limit(query: Mapping[str, str]) -> int:
    told = query.get("limit", str(_USUAL))
    if not (told.isascii() and told.isdigit() and 1 <= int(told[:9]) <= MOST):
        raise InvalidFieldError("limit", f"must be an integer from 1 to {MOST}")
    return int(told)


def _place(names: Sequence[str], query: Mapping[str, str], name: str) -> int:
    try:
        return names.index(query[name])
    except ValueError:
        raise InvalidFieldError(name, "is no model of this list") from None
