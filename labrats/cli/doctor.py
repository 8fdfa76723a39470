"""`labrats doctor`: what this machine has for agents, and how far it can contain them."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from json import dumps
from typing import TYPE_CHECKING, Final

from labrats.cli.engine import EngineCommands, require_linux, startup_errors_explained
from labrats.cli.errors import ExitCode
from labrats.cli.findings import Finding
from labrats.cli.options import Json
from labrats.cli.output import Styled, print_table, print_text
from labrats.files.full_disk import problem_of_full_disk
from labrats.model.errors import RetryLater
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.network import OPEN
from labrats.model.provider_spec import AGENT_PROGRAMS, provider_spec

if TYPE_CHECKING:
    from labrats.model.agent import AiAgent
    from labrats.model.ai_model import AiModel
    from labrats.model.core_resources import Secret
    from labrats.model.webhook_source import WebhookSource
    from labrats.settings import EngineSettings

_VERSION_SECONDS: Final = 20.0
_STYLES: Final = {"ok": "green", "missing": "yellow", "fails": "red"}
_NEEDS_KUBERNETES: Final = "needs Kubernetes"
_INSTALL_BUBBLEWRAP: Final = "install bubblewrap 0.8 or newer, and allow unprivileged user namespaces"
_OPEN: Final = f"{_INSTALL_BUBBLEWRAP}, or set LABRATS_SANDBOX=false to run the agents of all callers without one"
_NO_START: Final = "the engine does not start"
_REFUSED: Final = "jobs without a rule of their own are refused"


def doctor_command(engine: EngineCommands) -> Callable[..., ExitCode]:
    """Build `labrats doctor`."""

    def doctor(*, json: Json = False) -> ExitCode:
        """Check what this machine has for agents, and how far it can contain them. Needs no running engine.

        With LABRATS_BACKEND=kubernetes, as in the engine's pods: the isolation of jobs' pods, their network, the
        labels of their Secrets, the connection with GitHub, and default agents of earlier versions. Exit code 1 if a
        check fails, if a setting demands what is missing here, or if git is missing, without which no repository can
        be cloned.

        Args:
            json: Print JSON.
        """
        with startup_errors_explained():
            settings = engine.settings()
            on_cluster = settings.backend == "kubernetes"
            if on_cluster:
                findings = asyncio.run(_examine_cluster(engine))
            else:
                require_linux("labrats doctor")
                findings = [*examine(settings), *limits(settings)]
                findings += list(_of_stored_data(engine, findings))
            findings += unmet(settings, findings)
        if json:
            print_text(dumps([asdict(finding) for finding in findings]))
        else:
            rows = [(each.check, Styled(each.result, _STYLES[each.result]), each.detail) for each in findings]
            print_table(("CHECK", "RESULT", "DETAIL"), rows, wrap=True)
        has_git = on_cluster or findings[0].result == "ok"
        is_usable = has_git and all(each.result != "fails" for each in findings)
        return ExitCode.OK if is_usable else ExitCode.CHECK_FAILED

    return doctor


def _of_stored_data(engine: EngineCommands, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the findings in the data folder. findings: of this machine."""
    from labrats.files.foreign_folder import problem_of_foreign_folder  # other commands do not need them
    from labrats.model.agent import AiAgent
    from labrats.model.ai_model import AiModel
    from labrats.model.core_resources import Secret
    from labrats.model.webhook_source import WebhookSource

    if problem := problem_of_foreign_folder(engine.settings().data_dir):
        yield Finding("data folder", "fails", problem)
        return
    try:
        keeps_open, agents, ai_models = engine.keeps_open_network(), engine.stored(AiAgent), engine.stored(AiModel)
        secrets, sources = engine.stored(Secret), engine.stored(WebhookSource)
    except RetryLater as error:  # for example, the disk is full, which another finding says
        yield Finding("stored data", "fails", str(error))
        return
    yield _network_of_agents(engine.settings(), findings, keeps_open=keeps_open)
    yield from _providers(engine.settings(), ai_models, secrets)
    yield github_finding(sources, secrets)
    yield from triggers_of(agents)
    yield from price_findings(ai_models)


def _providers(
    settings: "EngineSettings", ai_models: "Sequence[AiModel]", secrets: "Sequence[Secret]"
) -> Iterator[Finding]:
    """Yield what each provider needs, as `labrats connect` shows it. Missing programs are a finding of their own.

    A local provider needs a server only once a model names it.
    """
    from labrats.intake.provider_readiness import provider_readiness

    named = {each.spec.provider for each in ai_models}
    keys = {each.name: each.data.keys() for each in secrets}
    for readiness in provider_readiness(settings, ai_models, keys, os.environ):
        name = f"provider {readiness.name}"
        if readiness.advice is None:
            yield Finding(name, "ok", "can run jobs")
        elif readiness.missing == "credentials" or (readiness.missing == "server" and readiness.name in named):
            yield Finding(name, "missing", readiness.advice)


def github_finding(sources: "Sequence[WebhookSource]", secrets: "Iterable[Secret]") -> Finding:
    """Return the finding about the connection with GitHub, as `labrats connect` shows it."""
    from labrats.intake.github_readiness import github_readiness  # other commands do not need it

    readiness = github_readiness(sources, {each.name: each.data.keys() for each in secrets})
    return Finding("GitHub", "missing" if readiness.advice else "ok", readiness.advice or readiness.summary)


async def _examine_cluster(engine: EngineCommands) -> list[Finding]:
    from labrats.cli.cluster_findings import (  # other commands do not need them
        labels_of_secrets,
        levels_of,
        network_findings,
    )
    from labrats.intake.github_readiness import secrets_read
    from labrats.model.agent import AiAgent
    from labrats.model.ai_model import AiModel
    from labrats.model.core_resources import Secret
    from labrats.model.webhook_source import WebhookSource
    from labrats.settings import KubernetesSettings

    required = engine.settings().labelled_credentials
    async with engine.open_store(None) as store:
        labels = await labels_of_secrets(store, required=required)
        agents, ai_models = await store.list(AiAgent), await store.list(AiModel)
        sources = await store.list(WebhookSource)
        github = github_finding(sources, await store.get_many(Secret, sorted(secrets_read(sources))))
    levels = levels_of(KubernetesSettings().vm_runtime_class)
    stored = (*labels, github, *triggers_of(agents), *price_findings(ai_models))
    return [*levels, *network_findings(*engine.cluster_network()), *stored]


def triggers_of(agents: "Iterable[AiAgent]") -> Iterator[Finding]:
    """Yield a finding for each default agent with the triggers of an earlier version."""
    from labrats.seeds import has_former_triggers  # other commands do not need it

    for agent in filter(has_former_triggers, agents):
        command = f"`labrats agent set {agent.name} --default-triggers`"
        yield Finding(f"agent {agent.name}", "missing", f"does not review commits that are pushed later: {command}")


def price_findings(ai_models: "Iterable[AiModel]") -> Iterator[Finding]:
    """Yield a finding for each AiModel without a known price, and for each at which cached input costs nothing.

    The latter was the default before.
    """
    from labrats.model.ai_model import Prices  # other commands do not need it
    from labrats.model.list_prices import price_source

    for ai_model in ai_models:
        is_self_hosted = provider_spec(ai_model.spec.provider).is_self_hosted  # its tokens may cost nothing
        if price_source(ai_model.spec) == "unknown" and not is_self_hosted:
            command = f"`labrats model set {ai_model.name} --input-price USD --output-price USD`, per million tokens"
            yield Finding(f"model {ai_model.name}", "missing", f"the cost of its jobs is unknown: {command}")
        if (prices := ai_model.spec.prices) and prices.has_free_cache:
            usual = Prices(input=prices.input).effective_cache_read
            command = f"`labrats model set {ai_model.name} --cache-read-price {usual:g}`"
            yield Finding(
                f"model {ai_model.name}", "missing", f"input from the cache costs nothing: {command}, or its price"
            )


def examine(settings: "EngineSettings") -> Iterator[Finding]:
    """Yield the findings on this machine: its programs, then the isolation that it offers."""
    from labrats.processes import drop_relative_search_paths, hides_processes
    from labrats.sandbox.landlock import can_scope_sockets
    from labrats.sandbox.network_namespace import namespace_problem  # other commands do not need it
    from labrats.sandbox.seccomp import can_refuse_calls

    dropped = drop_relative_search_paths()  # as the engine does
    yield _program("git", "git", "install git: repositories are cloned with it")
    for provider, program in AGENT_PROGRAMS.items():
        if configured := settings.program_paths[provider]:
            advice = f"LABRATS_{provider.upper()}_PATH is {configured}, which is no program"
        else:
            advice = f"needed by the provider {provider} only: `npm install -g {program.package}`"
        found = _program(program.name, configured or provider, advice)
        problem = program.problem_of(found.detail) if found.result == "ok" else None
        yield replace(found, result="missing", detail=problem) if problem else found
    if dropped:
        detail = f"the engine ignores the relative entries of PATH: {', '.join(map(repr, dropped))}"
        yield Finding("search path", "missing", detail)
    yield Finding("isolation: process", "ok", "stops nothing: an agent can do what the engine's user can")
    sandbox, by_default = _sandbox(), _uses_sandbox(settings)
    if sandbox.result == "ok" and not by_default:
        sandbox = replace(sandbox, detail=f"{sandbox.detail}, only for jobs that ask for it")
    yield sandbox
    yield Finding("isolation: container", "missing", _NEEDS_KUBERNETES)
    yield Finding("isolation: vm", "missing", _NEEDS_KUBERNETES)
    if sandbox.result != "ok":
        yield Finding("network rules", "missing", "need the sandbox")
        return
    problem = namespace_problem(shutil.which("bwrap") or "")
    if problem or by_default:
        yield Finding("network rules", "fails" if problem else "ok", problem or "config.network can be enforced")
    else:
        detail = "only for jobs that ask for the isolation `sandbox`, which is not the default here"
        yield Finding("network rules", "missing", detail)
    if not can_refuse_calls():
        yield Finding("system calls", "missing", "none is refused: their numbers on this machine are unknown")
    if hides_processes():
        detail = "agents without the sandbox can read the engine's memory, since /proc is mounted with hidepid"
        yield Finding("memory of the engine", "missing", detail)
    if not can_scope_sockets():
        detail = "agents with an open network can reach them; use Linux 6.12 or newer with Landlock enabled"
        yield Finding("abstract sockets", "missing", detail)


def _network_of_agents(settings: "EngineSettings", findings: Sequence[Finding], *, keeps_open: bool) -> Finding:
    """Return the finding about the network of jobs whose settings name none.

    keeps_open: whether the data folder is older than the default `public`.
    """
    check = "network of agents"
    can_enforce = any((each.check, each.result) == ("network rules", "ok") for each in findings)
    if settings.network not in (None, OPEN):
        return Finding(check, "ok", "LABRATS_NETWORK, unless a job or its agent says otherwise")
    if settings.network is None and can_enforce and not keeps_open:
        return Finding(check, "ok", "public, the default: no service on loopback, no private network")
    advice = "rules need the sandbox" if not can_enforce else "set LABRATS_NETWORK=public"
    if keeps_open and settings.network is None:
        advice += ", the default for new data folders"
    return Finding(check, "missing", f"open: agents reach services on loopback and in private networks; {advice}")


def _uses_sandbox(settings: "EngineSettings") -> bool:
    """Return whether the settings let agents on this machine have the sandbox by default."""
    return settings.sandbox != "false" if settings.isolation is None else settings.isolation is not Isolation.PROCESS


def _is_open(settings: "EngineSettings") -> bool:
    """Return whether agents run without a sandbox if none works here."""
    is_auto = settings.sandbox in (None, "auto")
    return settings.backend == "embedded" and is_auto and settings.isolation is None


def unmet(settings: "EngineSettings", findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield a failure for each setting that demands an isolation or a network rule, which the findings lack."""
    from labrats.intake.unmet_settings import unmet_settings  # other commands do not need it

    found = {finding.check: finding for finding in findings}
    has_sandbox, rules = found["isolation: sandbox"].result == "ok", found["network rules"]
    levels = _levels(settings, found)
    if settings.backend == "embedded" and settings.sandbox == "true" and not has_sandbox:
        yield Finding("LABRATS_SANDBOX", "fails", f"cannot be true: the sandbox does not work here; {_NO_START}")
    if _is_open(settings) and not has_sandbox:
        yield Finding("LABRATS_SANDBOX", "fails", f"no sandbox works here, so only jobs of administrators run; {_OPEN}")
    if settings.isolation and (problem := levels.problem_of(settings.isolation)):
        yield Finding("LABRATS_ISOLATION", "fails", f"{problem.rstrip('.')}; {_NO_START}")
    can_enforce = rules.result == "ok" or (rules.result == "missing" and has_sandbox)
    problem_of_rules = None if can_enforce else f"must be open: network rules cannot be enforced here; {_REFUSED}"
    for name, problem in unmet_settings(settings, levels, problem_of_rules):
        yield Finding(name, "fails", problem.rstrip("."))


def _levels(settings: "EngineSettings", found: Mapping[str, Finding]) -> IsolationLevels:
    available = [level for level in Isolation if found[f"isolation: {level}"].result == "ok"]
    has_sandbox = Isolation.SANDBOX in available and _uses_sandbox(settings)
    default = settings.isolation or (Isolation.SANDBOX if has_sandbox else available[0])
    return IsolationLevels(available, default, settings.isolation_of_untrusted)


def limits(settings: "EngineSettings") -> Iterator[Finding]:
    """Yield the findings on what agents may use of this machine: its memory, processes and disk."""
    set_limits = {
        "LABRATS_AGENT_MEMORY": settings.agent_memory and f"memory {settings.agent_memory / 2**30:.3g} GiB",
        "LABRATS_AGENT_PROCESSES": settings.agent_processes and f"{settings.agent_processes} processes",
        "LABRATS_AGENT_CPUS": settings.agent_cpus and f"{settings.agent_cpus} processors for all jobs",
        "LABRATS_WORKSPACE_GIB": settings.workspace_gib and f"workspace {settings.workspace_gib:g} GiB",
    }
    found = [limit for limit in set_limits.values() if limit]
    unset = [name for name, limit in set_limits.items() if not limit]
    if found:
        yield Finding("limits of a job", "ok", ", ".join(found))
    if unset:
        name = "other limits of a job" if found else "limits of a job"
        yield Finding(name, "missing", f"no limit without {', '.join(unset)}")
    yield _control_groups()
    folder = next(each for each in (settings.data_dir, *settings.data_dir.parents) if os.path.isdir(each))
    disk = shutil.disk_usage(folder)
    kept = settings.kept_free_bytes(disk.total)
    workspaces = f"{settings.workspaces_gib:g} GiB" if settings.workspaces_gib else "any size (LABRATS_WORKSPACES_GIB)"
    detail = f"{disk.free / 2**30:.1f} GiB free in {folder}, of which {kept / 2**30:.3g} GiB are kept free"
    if disk.free < kept:
        detail += " (LABRATS_FREE_GIB): the outputs of old jobs are deleted"
    detail += f"; workspaces {workspaces}, caches {settings.cache_gib:g} GiB"
    if full := problem_of_full_disk(folder):
        detail = f"{full}: the engine refuses writes; {detail}"
    is_short = full or disk.free < kept
    yield Finding("disk", "fails" if is_short else "ok", detail)


def _control_groups() -> Finding:
    # Other commands do not need it.
    from labrats.sandbox.control_groups import delegated_group, problem_of_scope, scope_command

    if group := delegated_group():
        return Finding("control groups", "ok", f"an engine started here lets the kernel limit jobs, below {group}")
    if (command := scope_command()) and problem_of_scope(command) is None:
        detail = "an engine started here with a limit on memory or processes lets the kernel limit jobs, in a scope"
        return Finding("control groups", "ok", detail)
    advice = "an engine that is started here only measures limits; a service of systemd can do more (docs/sandbox.md)"
    return Finding("control groups", "missing", advice)


def _program(name: str, program: str, advice: str) -> Finding:
    from labrats.processes import denied_program

    if denied := denied_program(program):
        return Finding(name, "fails", denied)
    if (path := shutil.which(program)) is None:
        return Finding(name, "missing", advice)
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "fails", f"{path}: {error}")
    if answer.returncode != 0:
        return Finding(name, "fails", f"{path} --version exited with {answer.returncode}")
    version = answer.stdout.strip().partition("\n")[0]
    return Finding(name, "ok", f"{version} ({path})")


def _sandbox() -> Finding:
    from labrats.processes import denied_program
    from labrats.sandbox.bubblewrap import bubblewrap_problem

    if denied := denied_program("bwrap"):
        return Finding("isolation: sandbox", "fails", denied)
    if (program := shutil.which("bwrap")) is None:
        return Finding("isolation: sandbox", "missing", f"bwrap is not on PATH; {_INSTALL_BUBBLEWRAP}")
    if problem := bubblewrap_problem(program):
        return Finding("isolation: sandbox", "fails", f"{problem}; {_INSTALL_BUBBLEWRAP}")
    return Finding("isolation: sandbox", "ok", f"bubblewrap ({program})")
