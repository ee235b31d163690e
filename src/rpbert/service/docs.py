"""``/docs``: the OpenAPI document as plain HTML.

Swagger's page loads its scripts from another host and needs a laxer security policy; this one
needs neither, and is read by everything that reads a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

EXAMPLE = """curl -H 'Content-Type: application/json' \\
  -d '{"text": "Nice image of Kevin Love at the Finals"}' ADDRESS/v1/predict

curl -F 'text=Nice image of Kevin Love at the Finals' -F image=@photo.jpg ADDRESS/v1/predict"""


def docs_page(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    schemas = document.get("components", {}).get("schemas", {})
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    types = [_type(name, schema) for name, schema in sorted(schemas.items())]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])} · API</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/docs.css">
</head>
<body>
<main>
<p><a href="/">← the page</a></p>
<h1>{escape(info["title"])} <small>{escape(info["version"])}</small></h1>
<p>{escape(info["description"])} For programs: <a href="/openapi.json">openapi.json</a>.</p>
<pre tabindex="0"><code>{escape(EXAMPLE)}</code></pre>
{"".join(operations)}
<h2>Types</h2>
{"".join(types)}
</main>
</body>
</html>
"""


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f"<section><h2><span>{escape(method.upper())}</span> <code>{escape(path)}</code></h2>",
        f"<p>{_said(operation.get('description') or operation['summary'])}</p>",
    ]
    body = operation.get("requestBody")
    if body:
        parts.append("<h3>Takes</h3>")
        for media, content in body["content"].items():
            parts.append(f"<p><code>{escape(media)}</code>: {_named(content['schema'])}</p>")
            parts.append(_properties(next(_objects(content["schema"]))))
    parts.append('<h3>Answers</h3><div class="wide" tabindex="0"><table>')
    for status, answer in operation["responses"].items():
        schemas = [content.get("schema", {}) for content in answer.get("content", {}).values()]
        shown = ", ".join(_named(schema) for schema in schemas if schema)
        said = _said(answer["description"])
        parts.append(f"<tr><th>{escape(status)}</th><td>{said}</td><td>{shown}</td></tr>")
    return "".join([*parts, "</table></div></section>"])


def _objects(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas of objects within one that offers a choice."""
    if "properties" in schema:
        yield schema
    for inner in schema.get("anyOf", ()):
        yield from _objects(inner)


def _type(name: str, schema: Mapping[str, Any]) -> str:
    said = f"<p>{_said(schema.get('description', ''))}</p>"
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3>{said}{_properties(schema)}</section>'
    )


def _properties(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = []
    for name, value in schema.get("properties", {}).items():
        mark = "" if name in required else " <small>optional</small>"
        said = _said(value.get("description", ""))
        rows.append(
            f"<tr><th><code>{escape(name)}</code>{mark}</th><td>{_named(value)}</td><td>{said}</td></tr>"
        )
    return f'<div class="wide" tabindex="0"><table>{"".join(rows)}</table></div>'


def _said(text: str) -> str:
    """A description; what stands in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _named(schema: Mapping[str, Any]) -> str:
    """A schema in a word or a few, with links to the types of the page."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_named(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_named(schema['items'])}"
    if "properties" in schema:
        return escape(schema["title"])
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return "file"
    return escape(str(schema.get("type", "anything")))
