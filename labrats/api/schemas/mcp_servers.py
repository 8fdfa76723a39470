"""How callers name servers of tools: in a job's settings, and in an agent's."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from labrats.api.schemas.base import Name, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import HEADER, MCP_SERVER, NO_NUL, ONE_LINE, VARIABLE, WEB_ADDRESS
from labrats.model.mcp_server import McpServer, problem_of_mcp_server, problem_of_mcp_servers

MAX_MCP_SERVERS: Final = 20
MAX_WORDS: Final = 100

Body = TypeVar("Body", bound="McpServerBody")
Word = Annotated[str, StringConstraints(max_length=4096, pattern=NO_NUL)]

_ONE_OF_BOTH: Final = ConfigDict(
    json_schema_extra={
        "oneOf": [
            {"required": ["command"], "properties": {"url": False, "headers": {"maxProperties": 0}}},
            {
                "required": ["url"],
                "properties": {"command": False, "args": {"maxItems": 0}, "env": {"maxProperties": 0}},
            },
        ]
    }
)


class McpServerBody(RequestBody):
    """A server of tools, by the Model Context Protocol: a `command` to start, or the `url` of one that runs."""

    model_config = RequestBody.model_config | _ONE_OF_BOTH

    command: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=NO_NUL)] = optional(
        description="The program to start, which speaks on its standard input and output. It is found on the "
        "executor's PATH, and runs in the workspace, as the agent's other tools do.",
        examples=["npx"],
    )
    args: list[Word] = Field(
        default=[],
        max_length=MAX_WORDS,
        description="Its arguments.",
        examples=[["-y", "@modelcontextprotocol/server-everything"]],
    )
    env: dict[Annotated[str, StringConstraints(max_length=200, pattern=VARIABLE)], Word] = Field(
        default={}, max_length=MAX_WORDS, description="What it finds in its environment. No secrets: jobs show it."
    )
    url: Annotated[str, StringConstraints(max_length=2048, pattern=WEB_ADDRESS)] = optional(
        description="Where it listens, for streamable HTTP.", examples=["https://mcp.example.com/mcp"]
    )
    headers: dict[
        Annotated[str, StringConstraints(max_length=200, pattern=HEADER)],
        Annotated[str, StringConstraints(max_length=4096, pattern=ONE_LINE)],
    ] = Field(default={}, max_length=MAX_WORDS, description="What each request to it bears. No secrets: jobs show it.")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "McpServerBody":
        if problem := problem_of_mcp_server(mcp_server(self)):
            raise ValueError(problem)
        return self


class AgentsMcpServerBody(McpServerBody):
    """A server of tools that an agent lends to its jobs, with the credentials that it needs."""

    credentials_ref: Name | None = Field(
        default=None, description="The Secret whose keys are added to `env`, or to `headers`.", examples=["wiki-token"]
    )


def mcp_server(asked: McpServerBody) -> McpServer:
    """The same as the engine has it."""
    return McpServer(**asked.model_dump() | {"args": tuple(asked.args)})


def mcp_servers(asked: Mapping[str, McpServerBody]) -> dict[str, McpServer]:
    """The same as the engine has them."""
    return {name: mcp_server(each) for name, each in asked.items()}


def _check_all(asked: dict[str, Body]) -> dict[str, Body]:
    if problem := problem_of_mcp_servers(mcp_servers(asked)):
        raise ValueError(problem)
    return asked


ServerName = Annotated[str, StringConstraints(pattern=MCP_SERVER)]
_EXAMPLES: Final = [{"everything": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-everything"]}}]

McpServersBody = Annotated[
    dict[ServerName, McpServerBody],
    Field(
        max_length=MAX_MCP_SERVERS,
        description="Servers of tools (MCP) for Claude Code and Codex, by name. Those of the first layer that has any.",
        examples=_EXAMPLES,
    ),
    AfterValidator(_check_all),
]

AgentsMcpServersBody = Annotated[
    dict[ServerName, AgentsMcpServerBody],
    Field(
        max_length=MAX_MCP_SERVERS,
        description="Servers of tools (MCP) for those of its jobs that name no others, by name.",
        examples=_EXAMPLES,
    ),
    AfterValidator(_check_all),
]


class McpServerView(ResponseBody):
    """A server of tools. What is not set is absent."""

    command: str = optional(examples=["npx"])
    args: list[str] = optional(examples=[["-y", "@modelcontextprotocol/server-everything"]])
    env: dict[str, str] = optional(examples=[{"LOG_LEVEL": "debug"}])
    url: str = optional(examples=["https://mcp.example.com/mcp"])
    headers: dict[str, str] = optional(examples=[{"X-Team": "red"}])
    credentials_ref: str = optional(examples=["wiki-token"])
