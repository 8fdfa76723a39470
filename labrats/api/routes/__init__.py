"""The routes: one module per resource. Each parses, calls one port, and presents the answer."""
