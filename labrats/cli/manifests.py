"""The command `labrats manifests`, which prints the Kubernetes manifests of an installation."""

import re
from typing import Annotated, Final

from cyclopts import App, Parameter

from labrats import __version__
from labrats.cli.engine import EngineCommands
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.output import print_text

_IMAGES: Final = "ghcr.io/labrats-work/apps.ai-agents"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_IMAGE: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]*[:@][A-Za-z0-9._:-]+")


def manifests_app(engine: EngineCommands) -> App:
    """Build `labrats manifests`; `engine` renders the manifests."""
    app = App(name="manifests", help="Print the manifests of an installation on Kubernetes, for kubectl.")

    @app.default
    def manifests(
        *,
        namespace: str = "labrats",
        image: Annotated[str, Parameter(name="--image")] = f"{_IMAGES}/engine:{__version__}",
        executor_image: str = f"{_IMAGES}/executor:{__version__}",
        unlabelled_credentials: Annotated[bool, Parameter(negative="")] = False,
    ) -> None:
        """Print all manifests of an installation, with its namespace: labrats manifests | kubectl apply -f -

        They are the objects that the Helm chart installs with its default values. For other values, use the chart.

        Args:
            namespace: The namespace to install into.
            image: The engine's image.
            executor_image: The image in which jobs run.
            unlabelled_credentials: Let jobs also use Secrets without the label labrats.work/type=job-credentials, as in
                version 0.1. Use it to upgrade from 0.1.
        """
        if not _NAMESPACE.fullmatch(namespace):
            raise CommandError(f"--namespace: {namespace!r} is not a valid namespace name", ExitCode.USAGE)
        for option, value in (("--image", image), ("--executor-image", executor_image)):
            if not _IMAGE.fullmatch(value):
                raise CommandError(f"{option}: {value!r} is not an image with a tag or digest", ExitCode.USAGE)
        print_text(engine.manifests(namespace, image, executor_image, labelled_credentials=not unlabelled_credentials))

    @app.command
    def crds() -> None:
        """Print only the custom resource definitions. Apply them before you upgrade the chart."""
        print_text(engine.custom_resources())

    return app
