"""``/asyncapi``: the Kafka contract to read, made of the AsyncAPI document; no script, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Any, Final

import orjson
from fastapi import FastAPI, Response
from starlette.responses import HTMLResponse

from ingress import asyncapi

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1.5rem }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px }
code { padding: 0 .25em } pre { padding: .75rem; overflow-x: auto } pre code { padding: 0 }
table { border-collapse: collapse; width: 100%; margin: .75rem 0 } th { text-align: left }
th, td { border-bottom: 1px solid #d0d7de; padding: .3rem .6rem; vertical-align: top }
.way { background: #0b5; color: #fff; border-radius: 4px; padding: .1rem .4rem; font-size: .8rem }
.out { background: #06c }
"""


@cache
def _written(lanes: frozenset[str]) -> tuple[bytes, str]:
    found = asyncapi.document(sorted(lanes))
    return orjson.dumps(found), render(found)


def install(app: FastAPI, lanes: frozenset[str]) -> None:
    """Serve the document and its page."""
    raw, page = _written(lanes)

    @app.get("/asyncapi.json", include_in_schema=False)
    async def asyncapi_document() -> Response:
        return Response(raw, media_type="application/json")

    @app.get("/asyncapi", include_in_schema=False)
    async def asyncapi_page() -> HTMLResponse:
        return HTMLResponse(page)


def render(document: dict[str, Any]) -> str:
    """The page: each topic that is for others in full, those between the roles as a list."""
    info, channels = document["info"], document["channels"]
    ways = {each["channel"]["$ref"].rpartition("/")[2]: each["action"] for each in document["operations"].values()}
    public = [_topic(document, name, ways[name]) for name in channels if name in ways]
    inner = [
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(each['summary'])}</td><td>{_kept(each)}</td></tr>"
        for name, each in channels.items()
        if name not in ways
    ]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>"
        f'<p>The same for machines: <a href="/asyncapi.json">AsyncAPI {escape(document["asyncapi"])}</a>. '
        f'The HTTP side: <a href="/docs">OpenAPI</a>.</p>{"".join(public)}'
        f"<h2>Between the gateway's roles</h2><p>Not for others; these may change with any version.</p>"
        f"<table><tr><th>topic</th><th>what it is</th><th>kept</th></tr>{''.join(inner)}</table></body></html>"
    )


def _topic(document: dict[str, Any], name: str, way: str) -> str:
    channel = document["channels"][name]
    messages = (document["components"]["messages"][each] for each in channel["messages"])
    label = ("you send", "way") if way == "receive" else ("you receive", "way out")
    bound = channel["bindings"]["kafka"]
    return (
        f'<h2 id="{escape(name)}"><code>{escape(name)}</code> <span class="{label[1]}">{label[0]}</span></h2>'
        f"<p>{escape(channel['summary'])} {escape(channel['description'])}</p>"
        f"<p>{bound['partitions']} partitions by default; kept {_kept(channel)}.</p>{''.join(map(_message, messages))}"
    )


def _kept(channel: dict[str, Any]) -> str:
    config = channel["bindings"]["kafka"]["topicConfiguration"]
    if config["cleanup.policy"] == ["compact"]:
        return "the newest of each key"
    days = config["retention.ms"] // 86_400_000
    return f"{days} days" if days > 0 else "until it is processed"


def _message(message: dict[str, Any]) -> str:
    schema = message["payload"].get("schema")
    rows = _avro(schema) if schema else "".join(map(_json, message["payload"]["oneOf"]))
    registered = f" Schema id {message['x-schema-id']}." if "x-schema-id" in message else ""
    examples = "".join(
        f"<pre><code>{escape(json.dumps(each['payload'], indent=2))}</code></pre>" for each in message["examples"]
    )
    return f"<h3>{escape(message['title'])}</h3><p>{escape(message['summary'])}{registered}</p>{rows}{examples}"


def _avro(schema: dict[str, Any]) -> str:
    rows = ((field["name"], _kind(field["type"]), field["doc"]) for field in schema["fields"])
    return _table(rows)


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return " or ".join(map(_kind, reversed(schema)))
    if isinstance(schema, dict):
        if schema["type"] == "enum":
            return ", ".join(schema["symbols"])
        if schema["type"] == "map":
            return f"map of {_kind(schema['values'])}"
        return f"{schema['type']} ({schema['logicalType']})" if "logicalType" in schema else _kind(schema["type"])
    return str(schema)


def _json(schema: dict[str, Any]) -> str:
    needed = schema["required"]
    rows = (
        (name, "required" if name in needed else "optional", str(each.get("description") or each.get("const") or ""))
        for name, each in schema["properties"].items()
    )
    return f"<p>{escape(schema['description'])}</p>{_table(rows)}"


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{escape(what)}</td></tr>"
        for name, kind, what in rows
    )
    return f"<table><tr><th>field</th><th>type</th><th>what it is</th></tr>{cells}</table>"
