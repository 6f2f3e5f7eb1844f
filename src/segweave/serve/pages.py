"""The index and the documentation of the service as plain pages, which work offline."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from segweave.prediction.measurements import REMARK

_STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: auto; padding: 1rem; }
.warning { border-left: .3rem solid #b54708; padding: .3rem .8rem;
  background: #fff4e5; color: #222; }
code { background: #eee; color: #222; padding: 0 .2rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
"""
_WARNING = f"{REMARK[0].upper()}{REMARK[1:]}. Nothing it computes may be used for diagnosis."


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="warning" role="note">{escape(_WARNING)}</p>'
        f"{body}</body></html>"
    )


def index_page(models: Mapping[str, Any]) -> str:
    """The first page: what this is, its models, and where its interface is described."""
    names = "".join(f"<li><code>{escape(name)}</code></li>" for name in models)
    return _page(
        "segweave",
        f"<p>This service segments medical images with these models:</p><ul>{names}</ul>"
        '<p>Its interface: <a href="/docs">documentation</a>, '
        '<a href="/openapi.json">OpenAPI</a>. From the command line:</p>'
        "<p><code>segweave predict --server ADDRESS MODEL IMAGE... --out FOLDER</code></p>",
    )


def docs_page(schema: Mapping[str, Any]) -> str:
    """A table of the interface, made from its OpenAPI schema."""
    rows = "".join(
        f"<tr><td><code>{method.upper()} {escape(path)}</code></td>"
        f"<td>{escape(about.get('description', ''))}</td></tr>"
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    )
    form = schema["paths"]["/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]
    fields = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(about['description'])}</td></tr>"
        for name, about in form["schema"]["properties"].items()
    )
    return _page(
        "The interface of segweave",
        "<table><thead><tr><th>request</th><th>what it does</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><h2>The form of POST /jobs</h2><table><thead><tr><th>field"
        f"</th><th>what it is</th></tr></thead><tbody>{fields}</tbody></table>"
        '<p>The whole of it: <a href="/openapi.json">OpenAPI</a>.</p>',
    )
