"""Embeddings on Bedrock: what each family of models is asked, and what it answers.

Only the format, no transport. Reference: "Amazon Titan Embeddings Text" and "Cohere
Embed" among the inference parameters in Amazon Bedrock's user guide. Titan takes one
text a call.
"""

from collections.abc import Mapping
from typing import Any

from app.integrations.llm.base import ProviderRejectedError
from app.integrations.llm.bedrock_wire import WHO
from app.integrations.llm.blocks import rejected_field
from app.integrations.llm.embeddings import (
    Embedded,
    EmbedRequest,
    InputType,
    embedded,
    texts_of,
)

_TITAN = "amazon.titan-embed-text"
_COHERE = "cohere.embed"
_MOST_COHERE_TEXTS = 96
_WITH_DIMENSIONS = (f"{_TITAN}-v2", f"{_COHERE}-v4")
_WITHOUT_PROFILE = (_TITAN, f"{_COHERE}-english-v3", f"{_COHERE}-multilingual-v3")

_INPUT_TYPES: Mapping[InputType | None, str] = {
    None: "search_document",  # Cohere's models must be told one
    "document": "search_document",
    "query": "search_query",
}


def lacks_profile(model: str) -> bool:
    """Whether the model is called by its plain id alone."""
    return any(name in model for name in _WITHOUT_PROFILE)


def most_inputs(model: str) -> int:
    return _MOST_COHERE_TEXTS if _COHERE in model else 1


def body_of(request: EmbedRequest) -> dict[str, Any]:
    """Raises ProviderRejectedError for a model that we do not know how to ask."""
    model, length = request.model, request.dimensions
    texts = texts_of(request, WHO)
    if length is not None and not any(name in model for name in _WITH_DIMENSIONS):
        raise rejected_field("dimensions", model)
    if _TITAN in model:
        chosen = {} if length is None else {"dimensions": length}
        return {"inputText": texts[0], **chosen}
    if _COHERE in model:
        return {
            "texts": texts,
            "input_type": _INPUT_TYPES[request.input_type],
            "embedding_types": ["float"],
            "truncate": "NONE",  # what is too long is told, not cut off
            **({} if length is None else {"output_dimension": length}),
        }
    raise ProviderRejectedError(f"{model} is no model for embeddings that we know.")


def read(
    request: EmbedRequest, answer: Mapping[str, Any], headers: Mapping[str, str]
) -> Embedded:
    """Titan counts tokens in its answer, Cohere leaves that to Bedrock's header."""
    if "inputTextTokenCount" in answer:
        tokens = answer["inputTextTokenCount"]
        return embedded(request, WHO, [answer["embedding"]], tokens)
    counted = headers.get("x-amzn-bedrock-input-token-count")
    rows = answer["embeddings"]["float"]
    return embedded(request, WHO, rows, int(counted) if counted else None)
