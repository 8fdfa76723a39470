"""The `labrats` command: one module per group of commands, each a client of the engine's HTTP API.

Only `serve` and `secret` touch the engine itself, through the callables that main.py hands in. Modules that are slow
to import (httpx2, rich, pydantic) are imported inside the commands that need them: `labrats --help` should not wait.
"""
