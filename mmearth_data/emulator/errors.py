"""The one error that becomes an answer: an HTTP status and a message in Earth Engine's words."""

from __future__ import annotations

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class ServiceError(Exception):
    """A request that the service refuses; 400 (the request is wrong) unless another code is given."""

    def __init__(self, message: str, code: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.code = code

    def payload(self) -> dict[str, dict[str, object]]:
        """The JSON body of the answer, in the shape of Google's APIs."""
        status = _STATUS.get(self.code, "UNKNOWN")
        return {"error": {"code": self.code, "message": self.message, "status": status}}


class EmulatorError(Exception):
    """The emulator cannot start: a bad mount, world, fault list or a taken port; one line with the remedy."""
