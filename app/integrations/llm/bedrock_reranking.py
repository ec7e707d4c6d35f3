"""Reranking on Bedrock: what its models are asked, and what they answer.

Only the format, no transport. Cohere Rerank 3.5 is asked as by Cohere's API, whose
version it must be told (2). Amazon Rerank 1.0 knows neither that nor how many are
wanted, and always ranks all.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

from app.integrations.llm.base import ProviderRejectedError
from app.integrations.llm.bedrock_wire import WHO
from app.integrations.llm.reranking import (
    Reranked,
    RerankRequest,
    reranked,
)
from app.integrations.llm.reranking import body_of as plain_body_of
from app.integrations.llm.tokens import estimate_tokens

_AMAZON, _COHERE = "amazon.rerank", "cohere.rerank"
_COHERE_VERSION = 2

_SEARCH_TOKENS = 10_000
"""What a search counts as: by it the catalogue's prices are AWS's price of a search."""

_DOCUMENTS, _DOCUMENT_TOKENS = 100, 512
"""Of one search. A document that is longer, together with the question, counts as
several (Amazon Bedrock's price list)."""


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


def billed(request: RerankRequest) -> int:
    """AWS bills no tokens, but searches."""
    question = estimate_tokens(request.query)
    lengths = (question + estimate_tokens(text) for text in request.documents)
    documents = sum(ceil(length / _DOCUMENT_TOKENS) for length in lengths)
    return ceil(documents / _DOCUMENTS) * _SEARCH_TOKENS


def read(request: RerankRequest, answer: Mapping[str, Any]) -> Reranked:
    return reranked(request, WHO, answer["results"], billed(request))
