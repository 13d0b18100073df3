"""The application: which address is answered by what, and how it is documented."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from ...errors import MatMambaError
from .admission import Guard
from .changes import ChangeRoutes
from .direct import Direct
from .items import ItemRoutes
from .logs import log_event
from .operations import OperationRoutes
from .page_files import PageFiles
from .recording import REQUEST_ID, Recording
from .refusals import FAULT, RequestError, error_response
from .schemas import (
    EXAMPLE,
    AliveReport,
    AnswerReport,
    AnswerReports,
    BatchBody,
    ChangeReport,
    ErrorReport,
    GalleryReport,
    GalleryReports,
    ItemsBody,
    PlanReport,
    ReadyReport,
    SearchBody,
    StatusReport,
    StoredItem,
    StoredItems,
)
from .searches import SearchRoutes
from .uploads import FORM, JSON
from .work import Front, RequestNote

# Of what is asked and answered, not of the program.
VERSION = "1"
GALLERY = "/v1/galleries/{gallery}"
ABOUT = (
    "Image search whose queries get narrower under load instead of late: one network, any of its widths."
    " Addresses are relative to where this service is shown."
)
_CODES = {400: "bad_request", 404: "not_found", 405: "bad_request", 413: "too_large", 415: "unsupported"}


def make_application(front: Front) -> ASGIApp:
    """All of it: routes, who may ask, and what is recorded.

    Args:
        front: the service as routes see it.
    """
    searches = SearchRoutes(front)
    routes = make_routes(front, searches)
    app: ASGIApp = Guard(Direct(routes, searches, partial(_refuse, front)), front.options)
    if front.options.cors:
        app = CORSMiddleware(
            app,
            allow_origins=front.options.cors,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    return Recording(app, front)


def make_routes(front: Front, searches: SearchRoutes) -> FastAPI:
    """The routes with their documentation, which `/openapi.json` shows.

    Args:
        front: the service as routes see it.
        searches: of them that search.
    """
    app = FastAPI(
        title="MatMamba Vision",
        version=VERSION,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": ErrorReport, "description": "what went wrong"}},
    )
    _add_searches(app, searches)
    _add_items(app, ItemRoutes(front))
    _add_changes(app, ChangeRoutes(front))
    _add_operations(app, OperationRoutes(front))
    files = PageFiles()
    app.add_api_route("/", files.page, include_in_schema=False)
    app.add_api_route("/page/{file}", files.file, include_in_schema=False)
    _add_refusals(app, front)
    if front.options.token:
        _document_token(app)
    return app


def _document_token(app: FastAPI) -> None:
    """Have the document say that requests bear a token: who reads it sends it along."""
    untold = app.openapi

    def told() -> dict[str, Any]:
        said = untold()
        said["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return said | {"security": [{"token": []}]}

    app.openapi = told  # type: ignore[method-assign]


def _add_searches(app: FastAPI, routes: SearchRoutes) -> None:
    bodies = {"openapi_extra": _body(SearchBody, several=False)}
    _add(app, "POST", f"{GALLERY}/search", routes.search, AnswerReport, **bodies)
    bodies = {"openapi_extra": _body(BatchBody, several=True)}
    _add(app, "POST", f"{GALLERY}/search/batch", routes.batch, AnswerReports, **bodies)


def _add_items(app: FastAPI, routes: ItemRoutes) -> None:
    _add(app, "GET", "/v1/galleries", routes.galleries, GalleryReports)
    _add(app, "GET", GALLERY, routes.gallery, GalleryReport)
    _add(app, "GET", f"{GALLERY}/plan", routes.plan, PlanReport)
    _add(app, "GET", f"{GALLERY}/items", routes.items, StoredItems)
    _add(app, "GET", f"{GALLERY}/item", routes.item, StoredItem)
    picture = {"content": {"image/jpeg": {}}, "description": "the picture"}
    told: dict[str, Any] = {"response_class": Response, "responses": {200: picture}}
    _add(app, "GET", f"{GALLERY}/thumbnail", routes.thumbnail, None, **told)


def _add_changes(app: FastAPI, routes: ChangeRoutes) -> None:
    bodies = {"openapi_extra": _body(ItemsBody, several=True, alone=False)}
    _add(app, "POST", f"{GALLERY}/items", routes.add, ChangeReport, status_code=201, **bodies)
    _add(app, "DELETE", f"{GALLERY}/items", routes.delete, ChangeReport)


def _add_operations(app: FastAPI, routes: OperationRoutes) -> None:
    _add(app, "GET", "/v1/status", routes.status, StatusReport)
    _add(app, "GET", "/healthz", routes.alive, AliveReport)
    unready = {503: {"model": ReadyReport, "description": "not yet, or not any more"}}
    _add(app, "GET", "/readyz", routes.ready, ReadyReport, responses=unready)
    _add(app, "GET", "/metrics", routes.metrics, None, response_class=PlainTextResponse)


def _add(
    app: FastAPI,
    method: str,
    path: str,
    route: Callable[..., Any],
    model: type[BaseModel] | None,
    **more: Any,
) -> None:
    """A route that responds by itself; the model documents what it says."""
    app.add_api_route(path, route, methods=[method], response_model=model, **more)


def _body(model: type[BaseModel], *, several: bool, alone: bool = True) -> dict[str, Any]:
    """A request's body in OpenAPI: images and what is asked, or that alone as JSON."""
    asked = model.model_json_schema(ref_template="#/components/schemas/{model}")
    # Bodies are read by the routes themselves, so that these stand in the document where they are used.
    asked.pop("$defs", None)
    if "queries" in asked["properties"]:
        asked["properties"]["queries"]["items"] = SearchBody.model_json_schema()
    if "items" in asked["properties"]:
        asked["properties"]["items"]["items"] = {"type": "object", "required": ["id"]}
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    parts = {"image": {"type": "array", "items": file} if several else file, "request": asked}
    form = {
        "schema": {"type": "object", "properties": parts},
        "encoding": {"request": {"contentType": JSON}},
        "example": {
            "image": "query.jpg",
            "request": EXAMPLE if model is not ItemsBody else {"id": "cats/9.jpg"},
        },
    }
    content: dict[str, Any] = {FORM: form}
    if alone:
        content[JSON] = {"schema": asked, "examples": _examples(model)}
    return {"requestBody": {"required": True, "content": content}}


def _examples(model: type[BaseModel]) -> dict[str, Any]:
    questions = {
        "by id": {"id": "cats/1.jpg", "k": 5},
        "more like this, less like that": {"like": ["cats/1.jpg"], "unlike": ["dogs/2.jpg"]},
        "by words": {"text": "a red bicycle in snow", "where": "label = 'cat' AND year >= 2020"},
    }
    if model is BatchBody:
        return {"two questions": {"value": {"queries": [{"id": "cats/1.jpg"}, {"id": "dogs/2.jpg"}]}}}
    return {name: {"value": question} for name, question in questions.items()}


def _add_refusals(app: FastAPI, front: Front) -> None:
    """Every error has one form."""

    async def refuse(request: Request, error: Exception) -> Response:
        return _refuse(front, request, error)

    async def refuse_argument(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:3])
        return _refused(request, RequestError("bad_request", wrong[:500]))

    async def refuse_address(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "bad_request")
        said = "there is nothing at this address" if error.status_code == 404 else str(error.detail)
        refusal = RequestError(code, said, status=error.status_code, headers=error.headers)
        return _refused(request, refusal)

    async def refuse_fault(request: Request, error: Exception) -> Response:
        # It is raised again behind this response, and written down then.
        return _refused(request, RequestError("internal", FAULT))

    app.add_exception_handler(Exception, refuse_fault)
    app.add_exception_handler(MatMambaError, refuse)
    app.add_exception_handler(RequestValidationError, refuse_argument)
    app.add_exception_handler(HTTPException, refuse_address)


def _refuse(front: Front, request: Request, error: Exception) -> Response:
    """The response to an error; what no user caused is written down."""
    refusal = front.refusal_of(error)
    if refusal.code == "internal":
        request_id = RequestNote.of(request).request_id
        log_event("fault", level=logging.ERROR, error=error, request_id=request_id)
    return _refused(request, refusal)


def _refused(request: Request, refusal: RequestError) -> Response:
    note = RequestNote.of(request)
    note.more |= {"code": refusal.code, "refusal": str(refusal)}
    return error_response(refusal, note.request_id)
