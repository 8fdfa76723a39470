"""The command that uploads a file for later jobs."""

from pathlib import Path

from labrats.cli.exits import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_text


def upload(file: Path, *, name: str | None = None, options: ApiOptions = DEFAULTS) -> None:
    """Upload a file for jobs to come, and print ID/NAME, which `labrats submit --upload` takes.

    Args:
        file: The file; at most 100 MiB.
        name: What it is called in workspaces. [default: as it is here]
    """
    with options.connect() as client:
        try:
            with open(file, "rb") as content:
                answer = client.post_file("/api/workspace-uploads", name or file.name, content)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}", ExitCode.USAGE) from error
    uploaded = answer.json()
    print_text(answer.text if options.json else f"{uploaded['id']}/{uploaded['name']}")
