"""``/docs``: the API's description to read and to try. The viewer's files come from a package, none from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

FILES: Final = "/docs/files"


def install(app: FastAPI) -> None:
    """Serve the page and the viewer's files."""
    page = get_swagger_ui_html(
        openapi_url=app.openapi_url or "",
        title=app.title,
        swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{FILES}/favicon.png",
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page

    app.mount(FILES, StaticFiles(directory=str(files(fastapi_offline) / "static")), name="docs")
