"""The page of the service, its files, and the documentation as a plain page. All work offline."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from segweave.formats import SUFFIXES
from segweave.formats.table import DICOM
from segweave.prediction.measurements import REMARK
from segweave.serve.forms import FIELDS
from segweave.serve.service import Service

STATIC = Path(__file__).parent / "static"
VIEWER = STATIC / "vendor" / "niivue.js"
"""The 3D viewer, where `make page` has run."""

_WARNING = f"{REMARK[0].upper()}{REMARK[1:]}. Nothing it computes may be used for diagnosis."


class PageAnswer(BaseModel):
    """What the page needs to know of the service: the endings of files that are an image each (any
    other is a slice of a DICOM series), the fields of the form of a job, whether corrected masks
    can be added to a data set, and whether the 3D viewer is installed.
    """

    endings: list[str]
    fields: list[str]
    collects: bool
    viewer: bool


def add_pages(app: FastAPI, service: Service) -> None:
    """Add the page, its files, and the documentation."""
    # The system's table may call a script plain text, which a browser then refuses to run.
    mimetypes.add_type("text/javascript", ".js")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    def index() -> HTMLResponse:
        return HTMLResponse((STATIC / "index.html").read_text(encoding="utf-8"))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/page")
    def page() -> PageAnswer:
        """What the page needs to know of the service."""
        return PageAnswer(
            endings=[ending for ending in SUFFIXES if ending not in DICOM] + [".zip"],
            fields=list(FIELDS),
            collects=service.collection is not None,
            viewer=VIEWER.is_file(),
        )


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="/static/page.css">'
        '<link rel="icon" href="/static/icon.svg"></head><body><main class="plain">'
        f'<h1>{escape(title)}</h1><p class="warning" role="note">{escape(_WARNING)}</p>'
        f"{body}</main></body></html>"
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
