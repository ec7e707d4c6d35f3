"""The models on offer, as OpenAI's and Anthropic's clients list them.

References: "Models" in OpenAI's, and "Models" in Anthropic's API documentation. When a
model was made, only some providers tell; both formats want a time, and get the epoch's.
"""

from collections.abc import Mapping, Sequence

from app.core.exceptions import NotFoundError
from app.integrations.llm.base import ModelInfo
from app.services.gateway.fields import InvalidFieldError, Json

_MOST = 1000
_USUAL = 20


def one_of(models: Sequence[ModelInfo], name: str) -> ModelInfo:
    """Raises NotFoundError for one that is not on offer, or not for this caller."""
    for model in models:
        if model.name == name:
            return model
    raise NotFoundError(f"There is no model {name!r}.", code="unknown_model")


def openai_model(model: ModelInfo) -> Json:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": model.provider if model.id else "workroom",
    }


def openai_list(models: Sequence[ModelInfo]) -> Json:
    return {"object": "list", "data": [openai_model(model) for model in models]}


def anthropic_model(model: ModelInfo) -> Json:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output_tokens,
    }


def anthropic_list(models: Sequence[ModelInfo], query: Mapping[str, str]) -> Json:
    """A page; `limit`, `after_id` and `before_id` are in `query`.

    Raises InvalidFieldError.
    """
    limit = _limit(query.get("limit"))
    names = [model.name for model in models]
    page: Sequence[ModelInfo]
    if before := query.get("before_id"):
        rest = models[: _place(names, "before_id", before)]
        page = rest[-limit:]
    else:
        after = query.get("after_id")
        rest = models[_place(names, "after_id", after) + 1 :] if after else models
        page = rest[:limit]
    return {
        "data": [anthropic_model(model) for model in page],
        "has_more": len(rest) > len(page),
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }


def _limit(told: str | None) -> int:
    if told is None:
        return _USUAL
    if not (told.isascii() and told.isdigit() and 1 <= int(told[:9]) <= _MOST):
        raise InvalidFieldError("limit", f"must be an integer from 1 to {_MOST}")
    return int(told)


def _place(names: Sequence[str], field: str, name: str) -> int:
    try:
        return names.index(name)
    except ValueError as error:
        raise InvalidFieldError(field, "is no model of this list") from error
