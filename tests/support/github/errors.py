"""Errors of the API, as GitHub words them."""

from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str = "", errors: list[Any] | None = None) -> None:
        super().__init__(f"{status} {message}")
        self.status, self.message, self.errors = status, message or HTTPStatus(status).phrase, errors

    @property
    def body(self) -> dict[str, Any]:
        errors = {"errors": self.errors} if self.errors is not None else {}
        return {"message": self.message, "status": str(self.status)} | errors


def not_found() -> ApiError:
    return ApiError(404, "Not Found")


def invalid(resource: str, field: str, code: str = "invalid", message: str = "") -> ApiError:
    """Return the error about one field. message: for the code `custom`."""
    detail = {"resource": resource, "field": field, "code": code} | ({"message": message} if message else {})
    return ApiError(422, "Validation Failed", [detail])


def custom(resource: str, message: str) -> ApiError:
    return ApiError(422, "Validation Failed", [{"resource": resource, "code": "custom", "message": message}])


def unprocessable(message: str) -> ApiError:
    """Return the error of a review, which names no entry."""
    return ApiError(422, "Unprocessable Entity", [message])
