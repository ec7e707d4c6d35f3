"""Reranking on Bedrock: what its models are asked, and what they answer.

Only the format, no transport. Cohere Rerank 3.5 is asked as by Cohere's API, whose
version it must be told (2). Amazon Rerank 1.0 knows neither that nor how many are
wanted, and always ranks all.
"""

from collections.abc import Mapping
from typing import Any

from app.integrations.llm.base import ProviderRejectedError
from app.integrations.llm.bedrock_wire import WHO
from app.integrations.llm.reranking import (
    Reranked,
    RerankRequest,
    reranked,
)
from app.integrations.llm.reranking import body_of as plain_body_of

_AMAZON, _COHERE = "amazon.rerank", "cohere.rerank"
_COHERE_VERSION = 2


def knows(model: str) -> bool:
    """Whether it is a reranker of ours; they are called by their plain ids alone."""
    return _AMAZON in model or _COHERE in model


def body_of(request: RerankRequest) -> dict[str, Any]:
    """Raises ProviderRejectedError for a model that we do not know how to ask."""
    if _COHERE in request.model:
        return {**plain_body_of(request), "api_version": _COHERE_VERSION}
    if _AMAZON in request.model:
        return {"query": request.query, "documents": list(request.documents)}
    raise ProviderRejectedError(f"{request.model} is no reranker that we know.")


def read(
    request: RerankRequest, answer: Mapping[str, Any], headers: Mapping[str, str]
) -> Reranked:
    """Neither tells tokens in its answer; Bedrock's header may."""
    counted = headers.get("x-amzn-bedrock-input-token-count")
    tokens = int(counted) if counted else None
    return reranked(request, WHO, answer["results"], tokens)
