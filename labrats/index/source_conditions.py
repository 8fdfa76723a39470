"""The parts that reconcilers of webhook sources share: the credentials of a source's App, and its conditions."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec.structs import replace

from labrats.model.condition import Condition, with_condition
from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound
from labrats.model.webhook_source import APP_ID, GITHUB, PRIVATE_KEY, TOKEN, WebhookSource
from labrats.ports import Store, compare_and_set


async def app_credentials(store: Store, source: WebhookSource) -> Mapping[str, str] | None:
    """Return the credentials of the source's App; None if it has no App or is disabled. Raises RetryLater."""
    spec = source.spec
    if spec.type != GITHUB or not spec.enabled or spec.credentials_ref is None:
        return None
    try:
        data = (await store.get(Secret, spec.credentials_ref)).data
    except NotFound:
        return None
    is_app = APP_ID in data and PRIVATE_KEY in data and not data.get(TOKEN, "").strip()
    return data if is_app else None


def with_conditions(conditions: Sequence[Condition], new: Sequence[Condition]) -> tuple[Condition, ...]:
    """Replace or add the new conditions, see `with_condition`. Return all, sorted by type."""
    for each in new:
        conditions = with_condition(conditions, each)
    return tuple(sorted(conditions, key=lambda condition: condition.type))


async def store_condition(store: Store, source: WebhookSource, kind: str, condition: Condition | None) -> None:
    """Store the condition of a kind on the source; without one, remove the stored condition. Raises RetryLater."""

    def changed(found: WebhookSource) -> WebhookSource:
        others = [each for each in found.status.conditions if condition or each.type != kind]
        conditions = with_conditions(others, [condition] if condition else [])
        if conditions == found.status.conditions:
            return found
        return replace(found, status=replace(found.status, conditions=conditions))

    with suppress(NotFound):
        await compare_and_set(store, lambda: store.get(WebhookSource, source.name), changed)
