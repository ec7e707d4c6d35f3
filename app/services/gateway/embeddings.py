"""OpenAI's embeddings format, for models of any provider.

Reference: "Create embeddings" in OpenAI's API documentation. `input_type` is added by
us, for the models that tell documents from queries.
"""

import sys
from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from app.integrations.llm.embeddings import Embedded, EmbedRequest, Input
from app.services.gateway.fields import Fields

MOST_INPUTS = 2048

Encoding = Literal["float", "base64"]


@dataclass(frozen=True, slots=True)
class EmbedAsk:
    """What a client's body asks for; `request.model` is the name that it wrote."""

    request: EmbedRequest
    encoding: Encoding


def read(body: Mapping[str, Any]) -> EmbedAsk:
    """Raises InvalidFieldError for what is wrong, or cannot be translated."""
    fields = Fields(body)
    fields.pass_over("user")
    request = EmbedRequest(
        fields.text("model"),
        _inputs(fields),
        fields.whole("dimensions", None, least=1),
        fields.choice("input_type", "document", "query", default=None),
    )
    encoding = fields.choice("encoding_format", "float", "base64", default="float")
    fields.finish()
    return EmbedAsk(request, encoding)


def _inputs(fields: Fields) -> list[Input]:
    """A text, a list of texts, the ids of a text's tokens, or a list of such lists."""
    told = fields.any("input")
    inputs = [told] if isinstance(told, str) else told
    if not isinstance(inputs, list):
        raise fields.wrong("input", "must be a string or a list")
    if inputs and all(map(_is_id, inputs)):
        inputs = [inputs]
    if not inputs:
        raise fields.wrong("input", "must not be empty")
    if len(inputs) > MOST_INPUTS:
        raise fields.wrong("input", f"must have no more than {MOST_INPUTS} entries")
    kind = str if isinstance(inputs[0], str) else list
    for number, one in enumerate(inputs):
        place = "input" if one is told else f"input.{number}"
        if not isinstance(one, kind) or (kind is list and not all(map(_is_id, one))):
            raise fields.wrong(
                place, "must be a string, or a list of ids of tokens, as all others"
            )
        if not one:
            raise fields.wrong(place, "must not be empty")
    return inputs


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


def write(embedded: Embedded, model: str, encoding: Encoding) -> bytes:
    """The whole answer, by that name of the model."""
    written = _base64 if encoding == "base64" else _floats
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (number, written(vector))
        for number, vector in enumerate(embedded.vectors)
    )
    tokens = embedded.input_tokens
    return (
        b'{"object":"list","data":[%b],"model":%b,'
        b'"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
        % (data, orjson.dumps(model), tokens, tokens)
    )


def _floats(vector: Sequence[float]) -> bytes:
    return orjson.dumps(list(vector))


def _base64(vector: Sequence[float]) -> bytes:
    """Its numbers as little-endian floats of 32 bits."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b'"%b"' % b64encode(numbers)
