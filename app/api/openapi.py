"""How the API describes itself: short operation ids and the one shape of errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, for people."},
        "code": {"type": "string", "description": "What happened, for programs."},
        "request_id": {"type": ["string", "null"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {
                    "path": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
_ERROR = {
    "description": "A problem document (RFC 9457).",
    "content": {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    },
}


_GATEWAY_ERROR = {
    "description": "An error in the format of the client's API, OpenAI's or "
    "Anthropic's.",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


def operation_id(route: APIRoute) -> str:
    """The endpoint's own name: clients made from the description read well."""
    return route.name


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; FastAPI keeps it once made."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        schemas = document["components"]["schemas"]
        schemas["Problem"] = _PROBLEM
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for address, path in document["paths"].items():
            error = _GATEWAY_ERROR if address.startswith("/v1/") else _ERROR
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = error
        app.openapi_schema = document
    return app.openapi_schema
