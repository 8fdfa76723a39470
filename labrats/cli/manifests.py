"""The command that prints what is installed on a cluster."""

import re
from typing import Annotated, Final

from cyclopts import App, Parameter

from labrats import __version__
from labrats.cli.engine import EngineCommands
from labrats.cli.exits import CommandError, ExitCode
from labrats.cli.output import print_text

_IMAGES: Final = "ghcr.io/labrats-work/apps.ai-agents"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_IMAGE: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]*[:@][A-Za-z0-9._:-]+")


def manifests_app(engine: EngineCommands) -> App:
    """`labrats manifests`."""
    app = App(name="manifests", help="What an installation on Kubernetes is made of, for kubectl.")

    @app.default
    def manifests(
        *,
        namespace: str = "labrats",
        image: Annotated[str, Parameter(name="--image")] = f"{_IMAGES}/engine:{__version__}",
        executor_image: str = f"{_IMAGES}/executor:{__version__}",
        unlabelled_credentials: Annotated[bool, Parameter(negative="")] = False,
    ) -> None:
        """Print everything of an installation, in a namespace of its own: labrats manifests | kubectl apply -f -

        It is what the Helm chart installs with its default values; for any other, use the chart.

        Args:
            namespace: Where to.
            image: The engine's image.
            executor_image: The image that jobs run in.
            unlabelled_credentials: Give jobs also Secrets without the label labrats.work/type=job-credentials, as 0.1
                did. For an installation that is upgraded from it.
        """
        if not _NAMESPACE.fullmatch(namespace):
            raise CommandError(f"--namespace: {namespace!r} is no name of a namespace, such as labrats", ExitCode.USAGE)
        for option, value in (("--image", image), ("--executor-image", executor_image)):
            if not _IMAGE.fullmatch(value):
                raise CommandError(f"{option}: {value!r} is no image with its tag or digest", ExitCode.USAGE)
        print_text(engine.manifests(namespace, image, executor_image, labelled_credentials=not unlabelled_credentials))

    @app.command
    def crds() -> None:
        """Print the definitions of the custom resources alone. Apply them before a chart is upgraded."""
        print_text(engine.custom_resources())

    return app
