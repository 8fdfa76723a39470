"""The order of waiting jobs: the group that they compete in, and their rank in it."""

from labrats.model.job import Job

Group = tuple[str, str]
"""The provider and the model (`queue_model`) that jobs compete for."""

Rank = tuple[float, float, str]


def group_of(job: Job) -> Group:
    return job.resolved.provider, job.resolved.queue_model


def rank_of(job: Job, aging_seconds: float) -> Rank:
    """Return the place of a job in its queue. A lower rank starts first.

    A job gains one level of priority per `aging_seconds` of waiting. All jobs age at the same speed, so their order
    never changes while they wait, and the rank is computed once.
    """
    created = job.created_at.timestamp()
    return job.spec.priority * aging_seconds + created, created, job.id
