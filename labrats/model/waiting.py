"""The reasons why a job waits."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from labrats.model.ai_model import Slots
from labrats.model.job import Job


class WaitReason(StrEnum):
    """The reason why a job waits. `WAIT_REASONS` explains each."""

    SLOTS_BUSY = "slots_busy"
    PAUSED = "paused"
    REQUEUED = "requeued"
    NO_SLOTS = "no_slots"
    UNRESOLVED = "unresolved"
    STARTING = "starting"
    NO_CONTROLLER = "no_controller"
    CONCURRENCY = "concurrency"
    DEBOUNCE = "debounce"
    PAUSED_BY_ADMIN = "paused_by_admin"
    NOT_BEFORE = "notBefore"


WAIT_REASONS: Final[Mapping[WaitReason, str]] = {
    WaitReason.SLOTS_BUSY: "others hold the slots.",
    WaitReason.PAUSED: "the model's provider asked for a pause.",
    WaitReason.REQUEUED: "the job was put back until `notBefore`.",
    WaitReason.NO_SLOTS: "the model has none.",
    WaitReason.UNRESOLVED: "an applied job that the controller has not checked yet.",
    WaitReason.STARTING: "nothing.",
    WaitReason.NO_CONTROLLER: "no controller has shown a sign of life lately, so that no job starts.",
    WaitReason.CONCURRENCY: "`waitsFor` has the same concurrency key.",
    WaitReason.DEBOUNCE: "the job waits until `debouncedUntil` for newer ones of its concurrency key.",
    WaitReason.PAUSED_BY_ADMIN: "an administrator has paused the engine.",
    WaitReason.NOT_BEFORE: "the job was submitted to start at `notBefore` at the earliest.",
}


def reason_of(
    job: Job, slots: Slots, *, active: int, position: int, blocker: str | None, paused_until: datetime | None,
    now: datetime,
) -> WaitReason:  # fmt: skip
    """Return why a Pending job waits, as far as its queue and its own state tell.

    active:   number of jobs that hold a slot of its model. position: its place in the queue, from 1.
    blocker:  the job of the same concurrency key that must end first.
    """
    if not job.is_resolved:
        return WaitReason.UNRESOLVED
    if blocker:
        return WaitReason.CONCURRENCY
    if job.debounced_until and job.debounced_until > now:
        return WaitReason.DEBOUNCE
    if job.spec.not_before and job.spec.not_before > now:
        return WaitReason.NOT_BEFORE
    if slots.count == 0:
        return WaitReason.NO_SLOTS
    if paused_until:
        return WaitReason.PAUSED
    if job.not_before and job.not_before > now:
        return WaitReason.REQUEUED
    return WaitReason.SLOTS_BUSY if active + position > slots.count else WaitReason.STARTING
