"""The HTTP API. Its routes parse a request, call the engine and present the result; decisions are made elsewhere."""
