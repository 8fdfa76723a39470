"""The commands `labrats backup` and `labrats restore`."""

from collections.abc import Callable
from pathlib import Path

from labrats.cli.engine import EngineCommands, require_linux, startup_errors_explained
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import DataDir
from labrats.cli.output import print_text


def backup_command(engine: EngineCommands) -> Callable[..., None]:
    """Build `labrats backup`."""

    def backup(file: Path, /, *, data_dir: DataDir = None) -> None:
        """Back up an engine of one machine into one file. The engine may be running.

        The file has the database as of one moment, the admin key, and the logs, results and uploads of jobs; only its
        owner can read it. It is read again and checked. Workspaces, caches and model files are left out.

        Args:
            file: The file to write, such as labrats.tar.gz.
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
        """
        require_linux("labrats backup")
        with startup_errors_explained():
            try:
                summary = engine.back_up(data_dir, file)
            except OSError as error:
                raise CommandError(f"the backup cannot be written: {error}", ExitCode.OUTPUT_FAILED) from error
        print_text(f"{file}: the database and {summary.files} files, {summary.size / 2**20:.1f} MiB, checked")
        print_text(f"Restore it with: labrats restore {file} --data-dir FOLDER")

    return backup


def restore_command(engine: EngineCommands) -> Callable[..., None]:
    """Build `labrats restore`."""

    def restore(file: Path, /, *, data_dir: DataDir = None) -> None:
        """Restore a backup into an empty data folder.

        Do not start an engine on it while the old one still runs. A job that ran at the time of the backup fails with
        the code `lost`; `labrats retry` runs it again.

        Args:
            file: A file that `labrats backup` wrote.
            data_dir: The folder to restore into, empty or missing. Default: ~/.local/share/labrats.
        """
        require_linux("labrats restore")
        with startup_errors_explained():
            try:
                summary = engine.restore(file, data_dir)
            except OSError as error:
                raise CommandError(f"the backup cannot be restored: {error}", ExitCode.OUTPUT_FAILED) from error
        print_text(f"restored the database and {summary.files} files of Labrats {summary.version}")
        print_text("Start the engine on them with: labrats serve" + (f" --data-dir {data_dir}" if data_dir else ""))

    return restore
