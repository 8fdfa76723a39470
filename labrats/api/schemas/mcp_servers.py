"""MCP servers in the settings of jobs and agents."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from labrats.api.schemas.base import Name, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import HEADER, MCP_SERVER, NO_NUL, ONE_LINE, VARIABLE, WEB_ADDRESS
from labrats.model.mcp_server import McpServer, problem_of_mcp_server, problem_of_mcp_servers

MAX_MCP_SERVERS: Final = 20
MAX_ITEMS: Final = 100

Body = TypeVar("Body", bound="McpServerBody")
ShortText = Annotated[str, StringConstraints(max_length=4096, pattern=NO_NUL)]

_NOT_ALLOWED: Final[dict[str, Any]] = {"not": {}}
"""The schema of a field that must be absent. Generators of clients refuse the shorter `false`."""

_COMMAND_OR_URL: Final = ConfigDict(
    json_schema_extra={
        "oneOf": [
            {"required": ["command"], "properties": {"url": _NOT_ALLOWED, "headers": {"maxProperties": 0}}},
            {
                "required": ["url"],
                "properties": {"command": _NOT_ALLOWED, "args": {"maxItems": 0}, "env": {"maxProperties": 0}},
            },
        ]
    }
)


class McpServerBody(RequestBody):
    """An MCP server (Model Context Protocol): a `command` to start, or the `url` of a running server."""

    model_config = RequestBody.model_config | _COMMAND_OR_URL

    command: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=NO_NUL)] = optional(
        description="The program to start, which communicates over standard input and output. It is found on the "
        "executor's PATH, and runs in the workspace like the agent's other tools.",
        examples=["npx"],
    )
    args: list[ShortText] = Field(
        default=[],
        max_length=MAX_ITEMS,
        description="The arguments of the command.",
        examples=[["-y", "@modelcontextprotocol/server-everything"]],
    )
    env: dict[Annotated[str, StringConstraints(max_length=200, pattern=VARIABLE)], ShortText] = Field(
        default={}, max_length=MAX_ITEMS, description="Environment of the command. No secrets: jobs show it."
    )
    url: Annotated[str, StringConstraints(max_length=2048, pattern=WEB_ADDRESS)] = optional(
        description="The address of the server, for streamable HTTP.", examples=["https://mcp.example.com/mcp"]
    )
    headers: dict[
        Annotated[str, StringConstraints(max_length=200, pattern=HEADER)],
        Annotated[str, StringConstraints(max_length=4096, pattern=ONE_LINE)],
    ] = Field(default={}, max_length=MAX_ITEMS, description="Headers of each request. No secrets: jobs show them.")

    @model_validator(mode="after")
    def _has_command_or_url(self) -> "McpServerBody":
        if problem := problem_of_mcp_server(mcp_server(self)):
            raise ValueError(problem)
        return self


class AgentsMcpServerBody(McpServerBody):
    """An MCP server for the jobs of an agent, with its credentials."""

    credentials_ref: Name | None = Field(
        default=None, description="The Secret whose keys are added to `env` or `headers`.", examples=["wiki-token"]
    )


def mcp_server(body: McpServerBody) -> McpServer:
    """Convert the request's server to the engine's type."""
    return McpServer(**body.model_dump() | {"args": tuple(body.args)})


def mcp_servers(bodies: Mapping[str, McpServerBody]) -> dict[str, McpServer]:
    """Convert the request's servers to the engine's type."""
    return {name: mcp_server(body) for name, body in bodies.items()}


def _check_all(bodies: dict[str, Body]) -> dict[str, Body]:
    if problem := problem_of_mcp_servers(mcp_servers(bodies)):
        raise ValueError(problem)
    return bodies


ServerName = Annotated[str, StringConstraints(pattern=MCP_SERVER)]
_EXAMPLES: Final = [{"everything": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-everything"]}}]

McpServersBody = Annotated[
    dict[ServerName, McpServerBody],
    Field(
        max_length=MAX_MCP_SERVERS,
        description="MCP servers for Claude Code and Codex, by name. The first layer that sets them wins.",
        examples=_EXAMPLES,
    ),
    AfterValidator(_check_all),
]

AgentsMcpServersBody = Annotated[
    dict[ServerName, AgentsMcpServerBody],
    Field(
        max_length=MAX_MCP_SERVERS,
        description="MCP servers, by name, for the agent's jobs that set none themselves.",
        examples=_EXAMPLES,
    ),
    AfterValidator(_check_all),
]


class McpServerView(ResponseBody):
    """An MCP server. Unset fields are absent."""

    command: str = optional(examples=["npx"])
    args: list[str] = optional(examples=[["-y", "@modelcontextprotocol/server-everything"]])
    env: dict[str, str] = optional(examples=[{"LOG_LEVEL": "debug"}])
    url: str = optional(examples=["https://mcp.example.com/mcp"])
    headers: dict[str, str] = optional(examples=[{"X-Team": "red"}])
    credentials_ref: str = optional(examples=["wiki-token"])
