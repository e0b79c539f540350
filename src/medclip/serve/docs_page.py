"""The page /docs: every operation and every form of the OpenAPI schema, without scripts and without the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from medclip import html_page

JsonSchema = Mapping[str, Any]
_LIMITS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "minLength": "≥ {} characters",
    "maxLength": "≤ {} characters",
    "minItems": "≥ {} items",
    "maxItems": "≤ {} items",
}


class Field(NamedTuple):
    """A parameter of an operation, or a field of a form."""

    name: str
    place: str
    """path, query or body; "" for a field of a form."""
    type: str
    default: str
    """"required" where it has none."""
    description: str


def docs_page(openapi: JsonSchema) -> str:
    """The page of an OpenAPI 3.1 schema."""
    forms = openapi["components"]["schemas"]
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "id": operation["operationId"],
            "description": operation["description"],
            "fields": list(_fields_of_operation(operation, forms)),
            "responses": [
                (status, response["description"], _response_type(response))
                for status, response in operation["responses"].items()
            ],
        }
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    shown = [(name, form.get("description", ""), list(_fields(form))) for name, form in forms.items()]
    return html_page.render("api.html", info=openapi["info"], operations=operations, forms=shown)


def _fields_of_operation(operation: JsonSchema, forms: JsonSchema) -> Iterator[Field]:
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        text = parameter.get("description", schema.get("description", ""))
        yield _field(parameter["name"], schema, parameter.get("required", False), parameter["in"], text)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        form = content["schema"]
        yield from _fields(forms[_name(form)] if "$ref" in form else form, "body")


def _fields(form: JsonSchema, place: str = "") -> Iterator[Field]:
    required = form.get("required", ())
    for name, schema in form.get("properties", {}).items():
        yield _field(name, schema, name in required, place, schema.get("description", ""))


def _field(name: str, schema: JsonSchema, is_required: bool, place: str, description: str) -> Field:
    default = "required" if is_required else str(schema.get("default") or "")
    return Field(name, place, _type(schema), default, description)


def _type(schema: JsonSchema) -> str:
    if "$ref" in schema:
        return _name(schema)
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "const" in schema:
        return repr(schema["const"])
    limits = ", ".join(text.format(schema[key]) for key, text in _LIMITS.items() if key in schema)
    kind = schema.get("type", "any")
    if kind == "array":
        kind = f"list of {_type(schema.get('items', {}))}"
    elif isinstance(values := schema.get("additionalProperties"), Mapping):
        kind = f"map to {_type(values)}"
    elif "contentMediaType" in schema or schema.get("format") == "binary":
        kind = "file"
    return f"{kind} ({limits})" if limits else kind


def _response_type(response: JsonSchema) -> str:
    return ", ".join(_type(content["schema"]) if content.get("schema") else media
                     for media, content in response.get("content", {}).items())  # fmt: skip


def _name(schema: JsonSchema) -> str:
    return schema["$ref"].rpartition("/")[2]
