"""The settings of the local runner, from those of the engine."""

import dataclasses
import os
import shutil
from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from labrats.backends.embedded.folders import Folders
from labrats.backends.embedded.runner import LocalRunnerSettings
from labrats.backends.embedded.sandbox_choice import choose_isolation, default_network, network_problem
from labrats.files.attempt_inputs import TaskSettings
from labrats.model.protocol import ResourceLimits
from labrats.processes import boot_id
from labrats.sandbox.control_groups import create_group_of_jobs, problem_of_delegated_group
from labrats.settings import EngineSettings

log = structlog.get_logger()


def runner_settings(
    settings: EngineSettings, schema_created_with: int, database: str, kept_open: Sequence[int]
) -> LocalRunnerSettings:
    """Return the runner's settings. For schema_created_with and errors, see choose_isolation.

    database: the id of the database. kept_open: see LocalRunnerSettings.
    """
    programs = {provider: path or shutil.which(provider) for provider, path in settings.program_paths.items()}
    isolation, limits = choose_isolation(settings, schema_created_with), _limits(settings)
    levels, problem = isolation.levels, network_problem(isolation.sandbox)
    if problem is None:
        levels = dataclasses.replace(levels, network=default_network(settings, levels, schema_created_with))
    task = TaskSettings(
        programs={provider: program for provider, program in programs.items() if program},
        git_addresses=settings.outbound_allowed_cidrs,
        git_ssh_key=str(settings.git_ssh_key) if settings.git_ssh_key else None,
        git_ssh_known_hosts=str(settings.git_ssh_known_hosts) if settings.git_ssh_known_hosts else None,
        repo_roots=settings.local_repo_roots,
        cli_login=settings.claude_use_login,
        idle_seconds=settings.agent_idle_seconds,
        output_bytes=settings.max_output_bytes,
        limits=limits,
        caches_bytes=round(settings.cache_gib * 2**30),
        kept_free_bytes=limits.kept_free_bytes,
    )
    return LocalRunnerSettings(
        folders=Folders(settings.data_dir / "attempts", settings.workspaces),
        uploads=settings.uploads,
        environment=dict(os.environ),
        task=task,
        caches=settings.data_dir / "caches" if settings.cache_gib else None,
        own_secrets=settings.own_secrets,
        admin_key_file=settings.admin_key_file,
        isolation=levels,
        sandbox=isolation.sandbox,
        network_problem=problem,
        origin=f"{database} {boot_id()}",
        kept_open=tuple(kept_open),
    )


def _limits(settings: EngineSettings) -> ResourceLimits:
    limits, disk = settings.agent_limits, shutil.disk_usage(settings.data_dir)
    groups, problem = None, problem_of_delegated_group()
    try:
        groups = create_group_of_jobs(limits)
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}"
    if problem:
        log.warning("limits of jobs only measured", reason=problem)
    return replace(
        limits,
        kept_free_bytes=settings.kept_free_bytes(disk.total),
        control_groups=str(groups) if groups else None,
    )
