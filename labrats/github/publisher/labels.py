"""Write the labels and reactions that show the state of a job."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from labrats.github.client.access import Access
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.reports.policy import allowed_labels
from labrats.github.reports.reported_job import LostRace, ReportedJob
from labrats.model.phases import Phase
from labrats.model.report import PublishPolicy, ReportTarget, StateLabels

_STARTED: Final = "eyes"
_REACTIONS: Final = {Phase.SUCCEEDED: "+1", Phase.FAILED: "confused", Phase.CANCELLED: "confused"}
_LOST: Final = {LostRace.RUNS_AGAIN: _STARTED, LostRace.NOT_PUSHED: "confused"}

_COUNTS_AS_A_PERSON: Final = (
    "labels: with a personal token, a label that an external contributor's job adds would count as its owner's"
)


class _Label(msgspec.Struct):
    name: str


async def add_proposed_labels(
    access: Access, target: ReportTarget, number: int, reported: ReportedJob, policy: PublishPolicy
) -> tuple[str, ...]:
    """Add the labels that the agent of a job proposes, as far as the policy allows them and the repository has them.

    Return the reason why others are not added. Raises RefusedByGitHub, RetryLater.
    """
    proposed = reported.publication.labels
    if proposed and reported.job.spec.untrusted and access.identity.is_person:
        return (_COUNTS_AS_A_PERSON,)
    allowed = allowed_labels(policy, proposed)
    if not allowed:
        return _not_allowed(proposed, allowed)
    known: dict[str, str] = {}
    async for page in access.repository.pages("/labels", list[_Label], access.commenting(target)):
        known |= {label.name.lower(): label.name for label in page}
    if labels := [known[each.lower()] for each in allowed if each.lower() in known]:
        path = f"/issues/{number}/labels"
        await access.note_labels(number, labels)
        await access.repository.add(path, {"labels": labels}, access.commenting(target))
    return _not_allowed(proposed, allowed)


def _not_allowed(proposed: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    others = [label for label in proposed if label not in allowed]
    return (f"labels: policy.labels does not allow {', '.join(others)}",) if others else ()


async def write_labels(access: Access, target: ReportTarget, labels: StateLabels, phase: Phase) -> None:
    """Add the label of the phase, and remove the others. Raises RefusedByGitHub, RetryLater."""
    if target.number is None:
        return
    wanted = {Phase.SUCCEEDED: labels.done, Phase.FAILED: labels.failed, Phase.CANCELLED: ""}.get(phase, labels.running)
    path, permissions = f"/issues/{target.number}/labels", access.commenting(target)
    others = sorted({labels.running, labels.failed, labels.done} - {wanted, ""})
    await access.note_labels(target.number, filter(None, [wanted]), others)
    for other in others:
        await _remove(access, target, other)
    if wanted:
        await access.repository.add(path, {"labels": [wanted]}, permissions)


async def _remove(access: Access, target: ReportTarget, label: str) -> None:
    path = f"/issues/{target.number}/labels/{quote(label, safe='')}"
    try:
        await access.repository.delete(path, access.commenting(target))
    except RefusedByGitHub as error:
        if error.status != 404:
            raise
        await _require_absent(access, target, label, error)


async def _require_absent(access: Access, target: ReportTarget, label: str, error: RefusedByGitHub) -> None:
    """Raise RetryLater if the issue has the label: a part of GitHub has refused a new token with 404."""
    permissions = access.commenting(target)
    if await access.repository.has_new_token(permissions):
        found = await access.repository.get(f"/issues/{target.number}/labels", list[_Label], permissions)
        if label.lower() in {each.name.lower() for each in found}:
            await access.repository.doubt(f"label {label}", permissions, error)


async def write_reaction(access: Access, target: ReportTarget, reported: ReportedJob) -> None:
    """React to the comment or issue that started the job. GitHub ignores a reaction that exists.

    Raises RefusedByGitHub, RetryLater.
    """
    content = (reported.lost and _LOST[reported.lost]) or _REACTIONS.get(reported.job.phase, _STARTED)
    if target.comment is not None:
        path = f"/issues/comments/{target.comment}/reactions"
    elif target.number is not None:
        path = f"/issues/{target.number}/reactions"
    else:
        return
    await access.repository.add(path, {"content": content}, access.commenting(target))
