import base64
import math
import struct
from array import array
from typing import Any

import orjson
import pytest

from app.integrations.llm.embeddings import Embedded, EmbedRequest
from app.services.gateway.embeddings import MOST_INPUTS, EmbedAsk, Encoding, read, write
from app.services.gateway.fields import InvalidFieldError

MODEL = "openai/fake-embed"
VECTORS = [
    [0.1, -0.2, 1e-45, 3.4e38],
    [math.sin(number) for number in range(1536)],
    [],
]


def ask(**body: Any) -> EmbedAsk:
    return read({"model": MODEL, "input": "Hi", **body})


class TestRead:
    @pytest.mark.parametrize(
        ("given", "inputs"),
        [
            ("Hi", ["Hi"]),
            (["Hi"], ["Hi"]),
            (["Hi", " "], ["Hi", " "]),
            ([1, 2], [[1, 2]]),
            ([[1, 2], [0]], [[1, 2], [0]]),
        ],
    )
    def test_an_input_has_four_forms(self, given: Any, inputs: Any) -> None:
        assert ask(input=given).request.inputs == inputs

    def test_floats_are_the_default(self) -> None:
        assert ask() == EmbedAsk(EmbedRequest(MODEL, ["Hi"]), "float")

    def test_all_fields(self) -> None:
        asked = ask(
            dimensions=256, encoding_format="base64", input_type="query", user="me"
        )

        assert asked == EmbedAsk(EmbedRequest(MODEL, ["Hi"], 256, "query"), "base64")

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({"model": None}, "model"),
            ({"model": 1}, "model"),
            ({"input": None}, "input"),
            ({"input": ""}, "input"),
            ({"input": []}, "input"),
            ({"input": {}}, "input"),
            ({"input": 1}, "input"),
            ({"input": [""]}, "input.0"),
            ({"input": ["a", ""]}, "input.1"),
            ({"input": ["a", None]}, "input.1"),
            ({"input": ["a", [1]]}, "input.1"),
            ({"input": [[1], "a"]}, "input.1"),
            ({"input": [1, "a"]}, "input.0"),
            ({"input": [1.5]}, "input.0"),
            ({"input": [True]}, "input.0"),
            ({"input": [-1]}, "input.0"),
            ({"input": [[]]}, "input.0"),
            ({"input": [[1], []]}, "input.1"),
            ({"input": [[1], [1, "a"]]}, "input.1"),
            ({"input": ["a"] * (MOST_INPUTS + 1)}, "input"),
            ({"dimensions": 0}, "dimensions"),
            ({"dimensions": 1.5}, "dimensions"),
            ({"dimensions": True}, "dimensions"),
            ({"encoding_format": "int8"}, "encoding_format"),
            ({"encoding_format": 1}, "encoding_format"),
            ({"input_type": "classification"}, "input_type"),
            ({"odd": 1}, "odd"),
        ],
    )
    def test_what_is_wrong_is_named(self, body: dict[str, Any], path: str) -> None:
        with pytest.raises(InvalidFieldError) as caught:
            ask(**body)

        assert caught.value.errors[0]["path"] == path
        assert caught.value.status == 400

    def test_so_many_inputs_are_taken(self) -> None:
        assert len(ask(input=["a"] * MOST_INPUTS).request.inputs) == MOST_INPUTS

    def test_ids_of_one_text_are_no_more_inputs_than_one(self) -> None:
        assert len(ask(input=[7] * (MOST_INPUTS + 1)).request.inputs) == 1


class TestWrite:
    def written(self, encoding: Encoding, *vectors: Any) -> Any:
        embedded = Embedded([array("d", vector) for vector in vectors], 42)
        return orjson.loads(write(embedded, 'a"b/ü', encoding))

    @pytest.mark.parametrize("encoding", ["float", "base64"])
    def test_it_is_openai_s_form(self, encoding: Encoding) -> None:
        told = self.written(encoding, *VECTORS)

        assert told.keys() == {"object", "data", "model", "usage"}
        assert told["object"] == "list"
        assert told["model"] == 'a"b/ü'
        assert told["usage"] == {"prompt_tokens": 42, "total_tokens": 42}
        assert [one["index"] for one in told["data"]] == [0, 1, 2]
        assert {one["object"] for one in told["data"]} == {"embedding"}

    def test_floats_are_the_provider_s_own(self) -> None:
        told = self.written("float", *VECTORS)

        assert [one["embedding"] for one in told["data"]] == VECTORS

    @pytest.mark.parametrize("vector", VECTORS)
    def test_base64_is_that_of_little_endian_floats_of_32_bits(
        self, vector: list[float]
    ) -> None:
        [told] = self.written("base64", vector)["data"]

        packed = struct.pack(f"<{len(vector)}f", *vector)
        assert told["embedding"] == base64.b64encode(packed).decode()

    def test_a_golden_one(self) -> None:
        [told] = self.written("base64", [1.0, -2.5])["data"]

        assert told["embedding"] == "AACAPwAAIMA="

    def test_a_number_too_large_is_infinite_and_no_failure(self) -> None:
        [told] = self.written("base64", [1e39])["data"]

        assert struct.unpack("<f", base64.b64decode(told["embedding"])) == (math.inf,)

    def test_the_answer_to_no_input_is_an_empty_list(self) -> None:
        assert self.written("float")["data"] == []
