"""The command `labrats upload`."""

from pathlib import Path

from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_text


def upload(file: Path, *, name: str | None = None, options: ApiOptions = DEFAULTS) -> None:
    """Upload a file for later jobs and print ID/NAME for `labrats submit --upload`.

    Args:
        file: The file, at most 100 MiB.
        name: The file's name in workspaces. [default: its name here]
    """
    with options.connect() as client:
        try:
            with open(file, "rb") as content:
                answer = client.post_file("/api/workspace-uploads", name or file.name, content)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}", ExitCode.USAGE) from error
    uploaded = answer.json()
    print_text(answer.text if options.json else f"{uploaded['id']}/{uploaded['name']}")
