"""A file as the body of an answer."""

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from labrats.api.http.errors import error_response


class Download(FileResponse):
    """A file, or the parts of it that `Range` asks for.

    Starlette refuses ranges that it cannot serve in a text of its own. One that makes no sense is to be taken for none
    (RFC 9110, 14.2), and one beyond the file's end is an error as all others are.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                raise _Refused(message)
            await send(message)

        try:
            await super().__call__(scope, receive, send_unless_refused)
        except _Refused as refused:
            if refused.status != 416:
                whole = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
                await super().__call__(whole, receive, send)
                return
            message = f"the file ends before this range; it has {self.headers['content-length']} bytes"
            headers = {"Content-Range": refused.headers["content-range"]}
            await error_response(416, "range_not_satisfiable", message, headers=headers)(scope, receive, send)


class _Refused(Exception):
    """The range is not served."""

    def __init__(self, start: Message) -> None:
        self.status, self.headers = start["status"], Headers(raw=start["headers"])
