"""HTTP for the API: the server, request bodies, errors, idempotency and event streams."""
