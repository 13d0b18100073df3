"""What a request is refused with: a status, a code that programs read, and a line that people read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from matmamba_datasets import BrokenImageError, DataError
from matmamba_datasets.kinds import HEIF_CURE
from PIL import UnidentifiedImageError
from starlette.responses import Response

from ...errors import MatMambaError, MissingPackageError, SystemRefusalError
from ..question import OverloadedError

# Of what is refused, by its code.
STATUS = {
    "bad_request": 400,
    "unauthorised": 401,
    "read_only": 403,
    "not_found": 404,
    "too_large": 413,
    "unsupported": 415,
    "internal": 500,
    "overloaded": 503,
    "not_ready": 503,
}
FAULT = "this is a fault of the service: its log says more of this request"


class RequestError(MatMambaError):
    """A request that is not answered.

    Args:
        code: one of `STATUS`.
        message: one line.
        status: another than that of the code, 0 for that one.
        headers: of the response.
    """

    def __init__(
        self, code: str, message: str, *, status: int = 0, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.status, self.headers = code, status or STATUS[code], dict(headers or {})


def refusal_of(error: BaseException) -> RequestError:
    """What a request is told of an error; whatever a user did not cause is a fault of the service."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, OverloadedError):
        # Whole seconds, as the header has it.
        later = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
        return RequestError("overloaded", str(error), headers=later)
    if isinstance(error, BrokenImageError):
        return _of_image(error)
    if isinstance(error, MissingPackageError):
        return RequestError("unsupported", str(error), status=501)
    if isinstance(error, MatMambaError) and not isinstance(error, SystemRefusalError):
        return RequestError("bad_request", str(error))
    return RequestError("internal", FAULT)


def _of_image(error: BrokenImageError) -> RequestError:
    """Too many pixels, no image of a format that is read, or a damaged one."""
    if isinstance(error.__cause__, DataError):
        return RequestError("too_large", str(error))
    if isinstance(error.__cause__, UnidentifiedImageError) or error.reason == HEIF_CURE:
        return RequestError("unsupported", str(error))
    return RequestError("bad_request", str(error))


def error_body(refusal: RequestError, request_id: str) -> dict[str, Any]:
    """As JSON holds it."""
    return {"error": {"code": refusal.code, "message": str(refusal), "request_id": request_id}}


def error_response(refusal: RequestError, request_id: str) -> Response:
    """The response that says so."""
    return json_response(error_body(refusal, request_id), refusal.status, refusal.headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON whose letters beyond ASCII are escaped, so that any name of a file is valid in it."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, dict(headers or {}), "application/json")
