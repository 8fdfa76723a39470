"""Patterns of strings in requests, and the error message of each."""

from collections.abc import Mapping
from typing import Final

from labrats.model.mcp_server import MCP_SERVER_NAME
from labrats.model.variables import VARIABLE_NAME

_NAME_PART: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NOT_IN_REFS: Final = r"\x00-\x20\x7f~^:?*\[\\"

ONE_LINE: Final = r"^[^\x00-\x1f\x7f]+$"
NAME: Final = rf"^{_NAME_PART}(\.{_NAME_PART})*$"
GIT_REF: Final = rf"^[^{_NOT_IN_REFS}/-][^{_NOT_IN_REFS}]*$"
PRINTABLE: Final = r"^[\x21-\x7e]+$"
DATA_KEY: Final = r"^[-._a-zA-Z0-9]{1,253}$"
REPOSITORY: Final = r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$"
URL_PATH: Final = r"^/[A-Za-z0-9._~/-]*$"
OWN_PAGE: Final = r"^/([^/\\\x00-\x20\x7f][^\\\x00-\x20\x7f]*)?$"  # browsers read `//` and `/\` as another site
WEB_ADDRESS: Final = r"^https?://[^\s]+$"
FILE_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
SHA256: Final = r"^[0-9a-f]{64}$"
DELIVERY_ID: Final = r"^[0-9a-f]{20}$"
QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
MCP_SERVER: Final = MCP_SERVER_NAME
VARIABLE: Final = VARIABLE_NAME
HEADER: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
NO_NUL: Final = r"^[^\x00]*$"
GITHUB_LOGIN: Final = r"^[0-9A-Za-z][0-9A-Za-z_.-]*$"
BRANCH_TEMPLATE: Final = r"^([0-9A-Za-z_./-]|\{\{ ?(agent|number|job) ?\}\})+$"
RANDOM_TEXT: Final = r"^[A-Za-z0-9_-]+$"
SPAN: Final = r"^[1-9][0-9]{0,4}[mhd]$"

PATTERN_MESSAGES: Final[Mapping[str, str]] = {
    ONE_LINE: "must be one line, without control characters",
    NAME: "must be lower-case letters and digits, with dashes and single dots only between them",
    GIT_REF: "must be a valid name of a git branch, tag or commit",
    PRINTABLE: "must be printable ASCII characters without spaces",
    DATA_KEY: "must be 1 to 253 letters, digits, dashes, dots or underscores",
    REPOSITORY: "must be the name of a repository, such as octocat/hello-world",
    URL_PATH: "must begin with a slash, followed by letters, digits and the characters . _ ~ / -",
    OWN_PAGE: "must be the path of a page of this engine, such as /jobs",
    WEB_ADDRESS: "must be an http or https address",
    FILE_NAME: "must be letters, digits, dots, dashes or underscores, and not begin with `.` or `-`",
    SHA256: "must be 64 hexadecimal digits, in lower case",
    DELIVERY_ID: "must be the `next` of another page",
    QUANTITY: "must be a Kubernetes quantity, such as 500m, 2 or 4Gi",
    MCP_SERVER: "must be 1 to 64 letters, digits, dashes or underscores",
    VARIABLE: "must be letters, digits or underscores, and not begin with a digit",
    HEADER: "must be the name of a header, such as X-Team",
    NO_NUL: "must not contain a NUL character",
    GITHUB_LOGIN: "must be a login on GitHub, such as octocat",
    BRANCH_TEMPLATE: "must be letters, digits and the characters . _ / -, with {{agent}}, {{number}} and {{job}}",
    RANDOM_TEXT: "must be letters, digits, dashes or underscores",
    SPAN: "must be a number of minutes, hours or days, such as 90m, 24h or 7d",
}
