"""Run one attempt, from its folder of inputs to its terminal event."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from labrats.executor import pdf_sections
from labrats.executor.checked_result import CheckedResult, checked_result
from labrats.executor.confinement import confine_in_pod, confine_to_sandbox
from labrats.executor.context import RunContext, SessionLost
from labrats.executor.continuation import continued_work, resumed_work, with_conversation_in_prompt
from labrats.executor.event_lines import STDOUT, EventLines
from labrats.executor.event_writer import EventWriter
from labrats.executor.inputs import read_task
from labrats.executor.leftovers import (
    LeftRunning,
    describe_processes,
    kill_leftovers,
    nothing_left_running,
    survivors,
)
from labrats.executor.model_access import model_access
from labrats.executor.outcomes import Succeeded, outcome_of, run_with_timeout
from labrats.executor.prices import list_price_of_job, require_price
from labrats.executor.providers.registry import Provider, provider_named
from labrats.executor.resource_limits.watcher import in_control_group, run_within_limits
from labrats.executor.running_changes import remove_report, reported_changes
from labrats.executor.secret_files import read_secrets, secret_files, values_to_redact
from labrats.executor.stop_signals import stopped_by_signals
from labrats.executor.usage_limits import UsageLimits
from labrats.executor.workspace import prepare_workspace
from labrats.executor.workspace_diff import (
    Baseline,
    load_baseline,
    record_baseline,
    store_baseline,
)
from labrats.executor.workspace_report import report_workspace
from labrats.files.trees import remove_tree
from labrats.model.config import BUILT_IN_LAYER, GLOBAL_LAYER, wire_name
from labrats.model.conversation import decode_conversation
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.network import PUBLIC
from labrats.model.protocol import CREDENTIALS_FOLDER, NEXT_SEQ_FILE
from labrats.model.provider_spec import LIMITED_SETTINGS, supporting
from labrats.model.redaction import Redactor
from labrats.processes import become_subreaper, become_unreadable, raise_oom_score

_LAYERS_FOR_ALL_JOBS: Final = (GLOBAL_LAYER, BUILT_IN_LAYER)

RESUME_PROMPT: Final = """\
You were interrupted before you had finished. Continue now.

Commands that were running have been ended, and may have stopped in the middle of their work. Check how far you had
come, then finish your original task.
"""
"""Prompt for an agent that resumes its session."""

_PUBLIC: Final = (
    "[network: public hosts through the proxy in HTTPS_PROXY, no private ones and none of this machine; a program that "
    "ignores the proxy needs a job with `--network open`]"
)
_SAME_WORKSPACE: Final = "Your workspace is as you left it.\n\n"


def execute(inputs: Path, scratch: Path | None = None) -> int:
    """Run the attempt whose inputs are in `inputs`, and print its events. Return the exit status.

    scratch: a folder for temporary files. Without it, results and patches are written beside the inputs.
    """
    prepare_process()
    # Not asyncio.run(): closing the loop takes a tenth of a short attempt's time, and the process exits anyway.
    return asyncio.new_event_loop().run_until_complete(run_attempt(inputs, scratch))


def prepare_process() -> None:
    """Make this process an executor: it adopts its orphaned descendants, and its memory cannot be read by others."""
    become_subreaper()
    become_unreadable()


async def run_attempt(inputs: Path, scratch: Path | None = None, redacted: Sequence[str] = ()) -> int:
    """Run the attempt until it ends, times out or is stopped. Then kill all descendants and print the terminal event.

    Return the exit status. redacted: values to redact besides the attempt's secrets.
    """
    with stopped_by_signals():
        return await _run_until_outcome(inputs, scratch, redacted)


async def _run_until_outcome(inputs: Path, scratch: Path | None, redacted: Sequence[str]) -> int:
    secrets = read_secrets(inputs / "secrets")
    folder, redactor = scratch or inputs, Redactor([*values_to_redact(secrets), *redacted])
    lines = EventLines(STDOUT, None if scratch else inputs, first_seq=_first_seq(folder))
    events = EventWriter(lines, redactor)

    async def work() -> CheckedResult:
        _remove_secrets(inputs / "secrets")
        context = _read_context(inputs, folder, secrets, events)
        events.totals.prices = context.task.prices or list_price_of_job(context.task)
        async with nothing_left_running(FailedCode.AGENT_ERROR):
            return await run_with_timeout(_run_limited_attempt, context)

    outcome = await outcome_of(work, events)
    if (left := survivors()) and not isinstance(outcome, LeftRunning):
        with contextlib.suppress(GiveUp):  # the output is full
            events.log(f"[a process of this attempt cannot be killed: {describe_processes(left)}]")
    if failure := _remove_credentials(folder / CREDENTIALS_FOLDER):
        outcome = failure
    if isinstance(outcome, Succeeded):
        try:
            checked: CheckedResult = outcome.result
            events.result(checked.result, checked.data)
        except GiveUp as too_large:
            outcome = too_large
        else:
            return 0
    events.error(FailedCode(outcome.code), str(outcome), outcome.retry_after_seconds)
    return 1


def _remove_credentials(folder: Path) -> GiveUp | None:
    """Remove the files with secrets. Return a failure, which replaces any other outcome, if one cannot be removed."""
    if folder.exists():
        remove_tree(folder)
        if folder.exists():
            message = f"the folder {folder} with the attempt's credentials cannot be removed"
            return GiveUp(FailedCode.INTERNAL, f"{message}: remove it by hand, and revoke the credentials")
    return None


async def _run_limited_attempt(context: RunContext) -> CheckedResult:
    task, work = context.task, partial(_run_attempt, context)
    if task.on_cluster:
        confine_in_pod(context)
    with in_control_group(task.limits, task.attempt, context.events.log) as group:
        return await run_within_limits(work, task.limits, _written_folders(context), group)


def _written_folders(context: RunContext) -> list[Path]:
    """Return the folders that the agent can fill, also those of the attempt whose session it resumes.

    In a pod it can write to any place of the volume.
    """
    if context.task.on_cluster:
        return [context.folder]
    places = [(context.task.workspace, str(context.folder))]
    if (resumption := context.task.resumption) and resumption.workspace and resumption.folder:
        places.append((resumption.workspace, resumption.folder))
    return [Path(workspace) for workspace, _ in places] + [
        Path(folder, name) for _, folder in places for name in ("home", "tmp", CREDENTIALS_FOLDER)
    ]


async def _run_attempt(context: RunContext) -> CheckedResult:
    task, provider = context.task, provider_named(context.task.config.provider or "")
    if task.no_sandbox and task.config.provider != "mock":  # which starts no program
        context.events.log(f"[no sandbox ({task.no_sandbox}): the agent can do all that the engine's user can]")
    require_price(task)
    limits = UsageLimits.of(task)
    limits.check_left()
    if problem := limits.problem_of_cost:
        context.events.log(f"[{problem}]")
    if task.repository is None:  # otherwise the previous step has reported it
        context.events.status("started")
    if not task.on_cluster:
        raise_oom_score()
    if task.sandbox:
        confine_to_sandbox(task.sandbox, task.limits.cpus)
    _log_ignored_settings(context)
    return await _run_resumed_or_new(context, provider)


async def _run_resumed_or_new(context: RunContext, provider: Provider) -> CheckedResult:
    """Run the provider on earlier work, if there is any that can be resumed or continued, or else start over."""
    if resumed := _resumed_in_place(context):
        try:
            return await _run_provider(*resumed, provider)
        except SessionLost:
            context.events.log("[starting over: the agent's program does not know the session]")
    elif (resumption := context.task.resumption) and (resumption.kept or not context.task.continuation):
        return await _run_in_session(
            context, await resumed_work(context, resumption, _resume_prompt(context)), provider
        )
    elif earlier := context.task.continuation:
        return await _run_in_session(context, await continued_work(context, earlier), provider)
    context = with_conversation_in_prompt(context)
    checked_out = await prepare_workspace(context)
    return await _run_provider(context, await record_baseline(context, checked_out), provider)


async def _run_in_session(
    context: RunContext, work: tuple[RunContext, Baseline | None], provider: Provider
) -> CheckedResult:
    """Run the provider, and once more in the same workspace if its program does not know the session."""
    in_session, baseline = work
    try:
        return await _run_provider(in_session, baseline, provider)
    except SessionLost:
        context.events.log("[the agent's program does not know the session: it starts a new one]")
        return await _run_provider(with_conversation_in_prompt(context), baseline, provider)


def _log_ignored_settings(context: RunContext) -> None:
    """Log each setting that was made for this job or its agent but is not supported by its provider."""
    config, origins = context.task.config, context.task.selection.origins
    for field in LIMITED_SETTINGS:
        name, providers = wire_name(field), supporting(field)
        is_for_all_jobs = origins.get(name) in _LAYERS_FOR_ALL_JOBS
        if getattr(config, field) and not is_for_all_jobs and config.provider not in providers:
            accepting = (
                f"providers {', '.join(providers)} accept" if providers[1:] else f"provider {providers[0]} accepts"
            )
            context.events.log(f"[config.{name} is ignored: only the {accepting} it]")


def _resumed_in_place(context: RunContext) -> tuple[RunContext, Baseline] | None:
    """Return the context and the baseline for resuming an earlier attempt in its workspace; None without one."""
    if (resumption := context.task.resumption) is None or not (resumption.workspace and resumption.folder):
        return None
    resumed = replace(
        context, prompt=_SAME_WORKSPACE + _resume_prompt(context), folder=Path(resumption.folder), resumption=resumption
    )
    if not (resumed.workspace.is_dir() and (baseline := load_baseline(resumed))):
        return None
    context.events.log(f"[resuming the session of attempt {resumption.session.attempt} in its workspace]")
    return resumed, baseline


def _resume_prompt(context: RunContext) -> str:
    """Return the prompt for a resumed session, which may not have recorded the message of a follow-up yet."""
    if context.task.continuation is None:
        return RESUME_PROMPT
    return f"{RESUME_PROMPT}\nYour task is the latest message to you:\n\n{context.prompt}"


async def _run_provider(context: RunContext, baseline: Baseline | None, provider: Provider) -> CheckedResult:
    """Run the provider, then report what it left in the workspace. Raises SessionLost if the session is unknown."""
    _log_public_network(context)
    context.events.status("running")
    if baseline:
        store_baseline(context, baseline)
    has_worked = True
    try:
        result = await _result_of(context, baseline, provider)
    except SessionLost:
        has_worked = False
        raise
    finally:
        if has_worked:
            await _report_if_alone(context, baseline)
    if isinstance(result.result, str) and not result.result.strip() and baseline:
        _require_work(context)
    return result


async def _result_of(context: RunContext, baseline: Baseline | None, provider: Provider) -> CheckedResult:
    async with (
        nothing_left_running(FailedCode.AGENT_ERROR),
        reported_changes(context, baseline),
        model_access(context) as access,
    ):
        if access.task.pipeline:
            return CheckedResult(await pdf_sections.run(access, provider))
        return await checked_result(access, provider)


def _require_work(context: RunContext) -> None:
    """Raise GiveUp if an agent without an answer has left no work either. The mock provider answers as it is told."""
    if context.task.config.provider == "mock":
        return
    if not context.events.has_work:
        problem = "the agent gave an empty answer and changed nothing: try again, or another prompt or model"
        raise GiveUp(FailedCode.AGENT_ERROR, problem)
    context.events.log("[the agent gave an empty answer: the result is what it has left in the workspace]")


def _log_public_network(context: RunContext) -> None:
    """Log what helps a program that cannot use the public network. The mock provider starts none."""
    task = context.task
    if task.config.network == PUBLIC and task.config.provider != "mock" and (task.sandbox or task.egress_proxy):
        context.events.log(_PUBLIC)


async def _report_if_alone(context: RunContext, baseline: Baseline | None) -> None:
    """Report what is in the workspace, unless a process still runs: its files would be missing or incomplete."""
    if left := await kill_leftovers():
        with contextlib.suppress(GiveUp):  # the output is full
            context.events.log(
                f"[the workspace is not read, since a process could still change it: {describe_processes(left)}]"
            )
    else:
        await report_workspace(context, baseline)
    remove_report(context)


def _read_context(inputs: Path, folder: Path, secrets: Mapping[str, str], events: EventWriter) -> RunContext:
    task = read_task(inputs)
    events.lines.limit(task.output_bytes)
    prompt, instructions, conversation = inputs / "prompt", inputs / "instructions", inputs / "conversation"
    return RunContext(
        task,
        prompt.read_text("utf-8"),
        instructions.read_text("utf-8") if instructions.exists() else "",
        secrets,
        folder,
        folder / CREDENTIALS_FOLDER,
        events,
        conversation=decode_conversation(conversation.read_text("utf-8")) if conversation.exists() else (),
    )


def _first_seq(folder: Path) -> int:
    """Return the number of the first event. Earlier steps in the same pod may have printed some events already."""
    try:
        return int((folder / NEXT_SEQ_FILE).read_text())
    except FileNotFoundError:
        return 1


def _remove_secrets(folder: Path) -> None:
    """Remove the files of the secrets, so that the agent cannot read them. Raises GiveUp if one cannot be removed."""
    for file in secret_files(folder):
        try:
            file.unlink()
        except OSError as error:
            reason = f"the secret {file.name} cannot be removed from the attempt's inputs: {error.strerror}"
            raise GiveUp(FailedCode.INTERNAL, f"{reason}. The agent was not started, as it could read it") from error
