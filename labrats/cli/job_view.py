"""The detail of a job on one screen."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

from labrats.cli.durations import describe_span, describe_time
from labrats.cli.output import STATUS_STYLES, one_line, paint, print_text
from labrats.model.durations import describe_seconds
from labrats.model.network import MOST_REFUSED_HOSTS

_LOG_LINES: Final = 10
_RESULT_LINES: Final = 15
_METADATA_LENGTH: Final = 160
_LABEL_WIDTH: Final = 10


def print_job(job: dict[str, Any]) -> None:
    """Print the detail of a job: its fields, the start of its result and of its checked value, and the end of its log.

    job: the detail as the API answers it.
    """
    print(f"{job['id']}  {paint(job['status'], STATUS_STYLES.get(job['status'], ''))}{_pending_change(job)}")
    for label, value in _facts(job):
        if value:
            print(f"  {label:<{_LABEL_WIDTH}} {one_line(value)}")
    if job["returnvalue"] is not None:
        _print_section("result", _lines(job["returnvalue"]), first=_RESULT_LINES)
    if job.get("resultData") is not None:
        _print_section("data", _lines_of_json(job["resultData"]), first=_RESULT_LINES)
    if job["logs"]:
        _print_section("log", job["logs"], last=_LOG_LINES)


def outcome_sentence(job: dict[str, Any]) -> str:
    """Describe the outcome of an ended job in one line."""
    ran = describe_span(job.get("processedAt"), job["finishedAt"])
    sentence = f"{job['id']} {job['status']}" + (f" after {ran}" if ran else "")
    reason = f"superseded by {job['supersededBy']}" if job.get("supersededBy") else job.get("failedReason")
    return one_line(f"{sentence}: {reason}" if reason else sentence)


def _facts(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "type", job["name"]
    yield "source", job["source"]
    yield "agent", job.get("agentRole") or ""
    yield "repo", job.get("repo") or ""
    yield "git", _git(job["workspaceSetup"] or {})
    yield from _preparation(job["workspaceSetup"] or {})
    yield "network", network_text((job.get("config") or {}).get("network", "open"))
    yield "isolation", _isolation(job)
    yield "env", env_sentence((job.get("config") or {}).get("env") or {})
    yield "model", _model(job.get("config") or {})
    yield "key", _concurrency(job.get("concurrency") or {})
    yield "waits", waiting_sentence(job.get("waiting") or {})
    yield "follows up", job.get("followUpOf") or ""
    yield "created", f"{describe_time(job['createdAt'])} ({describe_span(job['createdAt'], None)} ago)"
    yield "ran", _run(job)
    yield "attempts", str(job["attempts"])
    yield "answered by", job.get("answeredBy") or ""
    yield "usage", usage_sentence(job.get("usage") or {})
    for name, value in (job.get("outputs") or {}).items():
        if name != "bundleBytes":  # for programs
            yield _OUTPUT_LABELS.get(name, name), _output(value)
    yield "refused", _refused(job.get("refusedHosts") or ())
    yield "model key", "exposed to the agent" if job.get("keyExposed") else ""
    yield "reason", _reason(job)
    yield "cancelled", f"by {job['cancelledBy']}" if job.get("cancelledBy") else ""
    yield "superseded", f"by {job['supersededBy']}" if job.get("supersededBy") else ""
    yield "callback", _callback(job.get("callback") or {})
    yield "report", report_sentence(job.get("report") or {})
    # The pull request is among the outputs.
    yield from published_parts({**(job.get("published") or {}), "pullRequestUrl": None})
    yield "chain", " > ".join(job.get("chainPath") or ())
    yield "metadata", _metadata(job["metadata"])


_OUTPUT_LABELS: Final = {"pullRequestUrl": "pull req.", "filesChanged": "changed"}


def _refused(hosts: Sequence[str]) -> str:
    return " ".join(hosts) + (" and perhaps more" if len(hosts) == MOST_REFUSED_HOSTS else "")


def _output(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, int):
        return f"{value} file{'' if value == 1 else 's'}"
    return str(value or "")


def _pending_change(job: dict[str, Any]) -> str:
    """Return the detail that the status omits: that the job is being cancelled or was requeued."""
    if job["status"] == "active" and job.get("cancelRequestedAt"):
        return " (being cancelled)"
    if job["status"] == "waiting" and job.get("notBefore"):
        return f" (requeued until {describe_time(job['notBefore'])})"
    return ""


def waiting_sentence(waiting: dict[str, Any]) -> str:
    """Describe why a job waits, as the API answers it, in one line. The text is empty for a job that does not."""
    if not waiting:
        return ""
    match waiting["reason"]:
        case "paused_by_admin":
            return "an administrator has paused the engine"
        case "no_slots":
            return "its model is paused: it has no slots"
        case "paused":
            return f"its model's provider asked for a pause until {describe_time(waiting['pausedUntil'])}"
        case "unresolved":
            return "the controller has not checked it yet"
        case "starting":
            return "nothing stands in its way"
        case "no_controller":
            return "no controller is running: the one of the cluster has shown no sign of life"
        case "concurrency":
            return f"{waiting['waitsFor']} with the same concurrency key must end first"
        case "debounce":
            return f"until {describe_time(waiting['debouncedUntil'])}, for newer jobs with its concurrency key"
        case "requeued":
            return "it was requeued"
        case "slots_busy":
            pass
        case reason:
            return f"until {describe_time(waiting['startsAfter'])}" if waiting.get("startsAfter") else reason
    holders = f" by {' '.join(waiting['holders'])}" if waiting["holders"] else ""
    busy = f"number {waiting['position']} in its queue; {waiting['active']} of {waiting['slots']} slots busy{holders}"
    estimate = waiting["estimateSeconds"]
    return busy if estimate is None else f"{busy}; starts in about {describe_seconds(estimate)}"


def _concurrency(concurrency: dict[str, Any]) -> str:
    if not concurrency:
        return ""
    debounce = concurrency["debounceSeconds"]
    wait = f", debounced for {describe_seconds(debounce)}" if debounce else ""
    return f"{concurrency['key']} ({concurrency['onNew']}{wait})"


def _git(setup: dict[str, Any]) -> str:
    return " @ ".join(part for part in (setup.get("gitRepo"), setup.get("gitRef")) if part)


def _preparation(setup: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "setup", setup_sentence(setup)
    yield "caches", caches_sentence(setup)


def preview_facts(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and values of what a job that would start may do and reach."""
    config = job["config"]
    yield "network", network_text(config.get("network", "open"))
    yield "isolation", config.get("isolation") or ""
    yield "env", env_sentence(config.get("env") or {})
    yield from _preparation(job["workspaceSetup"] or {})


def setup_sentence(setup: dict[str, Any]) -> str:
    """Describe the setup commands, their time and their network, as the API answers them, in one line."""
    commands = "; ".join(shlex.join(each) for each in setup.get("setup", ()))
    limits = [f"at most {describe_seconds(setup['setupTimeoutMs'] / 1000)}"] if "setupTimeoutMs" in setup else []
    if "setupNetwork" in setup:
        limits.append(f"network {network_text(setup['setupNetwork'])}")
    return " ".join(filter(None, [commands, f"({'; '.join(limits)})" if limits else ""]))


def caches_sentence(setup: dict[str, Any]) -> str:
    """Return the cached folders as `--cache` takes them."""
    return " ".join(f"{each['key']}:{each['path']}" for each in setup.get("cache", ()))


def network_text(rule: Any) -> str:
    """Return a network rule, as the API answers it, as `--network` takes it."""
    return rule if isinstance(rule, str) else ",".join(rule["allow"])


def env_sentence(env: dict[str, Any]) -> str:
    """Return the variables, as the API answers them, with their texts, or with the places of their values."""
    texts = (
        f"{name}={value}" if isinstance(value, str) else f"{name} (key {value['key']} of the Secret {value['secret']})"
        for name, value in env.items()
    )
    return ", ".join(texts)


def _isolation(job: dict[str, Any]) -> str:
    """Return the level that the job gets, and the one that it asks for if that is another.

    An engine of version 0.1 recorded no level. Its jobs may have run in any.
    """
    level, least = job.get("isolation"), (job.get("config") or {}).get("isolation")
    if level is None:
        level = "not recorded" if job["attempts"] else ""
    return f"{level} (at least {least})".lstrip() if least and level != least else level


def _model(config: dict[str, Any]) -> str:
    names = [config.get("provider"), config.get("model")]
    effort = f", effort {config['effort']}" if config.get("effort") else ""
    return "/".join(name for name in names if name) + effort


def _run(job: dict[str, Any]) -> str:
    if job.get("processedAt") is None:
        return ""
    ran = describe_span(job["processedAt"], job.get("finishedAt"))
    if job["attempts"] > 1:
        return f"{ran} in the latest attempt"
    return f"{ran}, after waiting {describe_span(job['createdAt'], job['processedAt'])}"


def usage_sentence(usage: dict[str, Any]) -> str:
    """Describe usage, as the API answers it, in one line. The text is empty when nothing was used."""
    if not any(value for name, value in usage.items() if name not in {"seconds", "costKind"}):
        return ""
    tokens = f"{usage.get('inputTokens', 0):,} tokens in, {usage.get('outputTokens', 0):,} out"
    cached = f", {usage['cacheReadTokens']:,} from cache" if usage.get("cacheReadTokens") else ""
    cost = "cost unknown" if usage.get("costUsd") is None else f"${usage['costUsd']:.4f}"
    if usage.get("costKind") == "notional":
        cost += " at list prices (a subscription paid)"
    return f"{tokens}{cached}; {cost}; turns: {usage.get('turns', 0)}"


def _reason(job: dict[str, Any]) -> str:
    if not job.get("failedReason"):
        return ""
    return f"{job['failedReason']} [{job['failedCode']}]" if job.get("failedCode") else str(job["failedReason"])


def _callback(callback: dict[str, Any]) -> str:
    if not callback:
        return ""
    return f"{callback['phase']}: {callback.get('problem') or 'delivered'}"


def report_sentence(report: dict[str, Any]) -> str:
    """Describe the parts of a report to GitHub and its target, as the API answers it, in one line."""
    target = report.get("target")
    if not target:
        return ""
    number = target.get("issue") or target.get("pullRequest")
    place = target["repository"] + (f"#{number}" if number else "")
    switched = {name: report.get(name) for name in ("check", "review", "pullRequest")}
    parts = [name for name, value in switched.items() if value is not None and value.get("enabled", True)]
    if report.get("comment", "none") != "none":
        parts.insert(0, f"comment ({report['comment']})")
    parts += [name for name in ("labels", "reactions") if report.get(name)]
    preview = ", as a preview only" if report.get("mode") == "preview" else ""
    return f"{', '.join(parts)} on {place}{preview}"


def published_parts(published: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a label and a value for each published part of a report, and for each refused one."""
    labels = {"commentUrl": "comment", "checkUrl": "check", "reviewUrl": "review", "pullRequestUrl": "pull req."}
    for name, label in labels.items():
        yield label, published.get(name) or ""
    for reason in published.get("refused", ()):
        yield "refused", reason


def _metadata(metadata: dict[str, Any]) -> str:
    if not metadata:
        return ""
    text = json.dumps(metadata, ensure_ascii=False)
    return text if len(text) <= _METADATA_LENGTH else f"{text[:_METADATA_LENGTH]}…"


def _lines(value: Any) -> list[str]:
    return value.splitlines() if isinstance(value, str) else _lines_of_json(value)


def _lines_of_json(value: Any) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=False).splitlines()


def _print_section(title: str, lines: list[str], *, first: int | None = None, last: int | None = None) -> None:
    shown = lines[:first] if first else lines[-(last or len(lines)) :]
    rest = f" ({len(shown)} of {len(lines)} lines)" if len(shown) < len(lines) else ""
    print(f"\n{title}{rest}")
    for line in shown:
        print_text(f"  {line}")
