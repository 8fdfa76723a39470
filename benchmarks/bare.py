"""`python -m benchmarks.bare PORT FOLDER`: a web server that answers every request with the same bytes.

FOLDER has a file `answer`, the body of the answers. The database of the commits is created in it.
"""

import sys
from pathlib import Path

import apsw
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

COMMITTED = "/committed"
"""Path of requests whose body is committed to stable storage before they are answered."""


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    database = apsw.Connection(str(folder / "bare.db"))
    database.pragma("journal_mode", "wal")
    database.pragma("synchronous", "full")
    database.execute("CREATE TABLE bodies (body BLOB)")
    app = bare_app((folder / "answer").read_bytes(), database)
    uvicorn.run(app, port=port, log_level="error", access_log=False)


def bare_app(answer: bytes, database: apsw.Connection) -> ASGIApp:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] == COMMITTED:
            database.execute("INSERT INTO bodies VALUES (?)", (body,))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


if __name__ == "__main__":
    main()
