"""HTTP as the API speaks it: the server, bodies, errors, idempotency and event streams."""
