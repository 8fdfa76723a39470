"""The `labrats` command: one module per group of commands. Most commands are clients of the engine's HTTP API.

`serve`, `secret` and a few others work on the engine itself, through the EngineCommands that main.py passes in.
Modules that are slow to import (httpx2, rich, pydantic) are imported inside the commands that need them, so that
`labrats --help` stays fast.
"""
