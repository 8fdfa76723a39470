"""The HTTP API: one module per resource, each of which parses, calls one port, and presents; none decides."""
