"""The change feed."""

import asyncio

from labrats.backends.embedded.feed import CommittedDeletion, CommittedWrite, Feed, Subscription
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.record import Metadata, encode
from labrats.ports import Changed, Deleted


def a_map(name: str, version: int, uid: str = "") -> ConfigMap:
    return ConfigMap(metadata=Metadata(name=name, uid=uid or f"uid-of-{name}", resource_version=str(version)))


def written(name: str, version: int, uid: str = "") -> CommittedWrite:
    return CommittedWrite(version, "ConfigMap", a_map(name, version, uid))


def deleted(name: str, version: int, last_version: int, uid: str = "") -> CommittedDeletion:
    return CommittedDeletion(version, "ConfigMap", name, encode(a_map(name, last_version, uid)))


def a_subscription(feed: Feed) -> Subscription[ConfigMap]:
    """A subscription whose watcher has read the tables as of version 0."""
    subscription = feed.subscribe(ConfigMap)
    subscription.mark_read("", 0)
    return subscription


async def test_changes_arrive_in_order() -> None:
    feed = Feed()
    subscription = a_subscription(feed)
    feed.publish([written("b", 1), written("a", 2)])
    feed.publish([deleted("b", 3, last_version=1)])
    feed.publish([written("c", 4)])
    assert await subscription.next_changes() == [Changed(a_map("a", 2)), Deleted(a_map("b", 1)), Changed(a_map("c", 4))]


async def test_a_change_is_returned_once() -> None:
    feed = Feed()
    subscription = a_subscription(feed)
    feed.publish([written("a", 1)])
    await subscription.next_changes()
    feed.publish([written("b", 2)])
    assert await subscription.next_changes() == [Changed(a_map("b", 2))]


async def test_several_unread_writes_of_a_resource_become_one_change() -> None:
    feed = Feed()
    subscription = a_subscription(feed)
    feed.publish([written("a", 1), written("b", 2), written("a", 3)])
    assert await subscription.next_changes() == [Changed(a_map("b", 2)), Changed(a_map("a", 3))]


async def test_a_deletion_is_not_lost_when_the_name_is_reused() -> None:
    feed = Feed()
    subscription = a_subscription(feed)
    feed.publish([written("a", 1, "uid-1"), deleted("a", 2, last_version=1, uid="uid-1"), written("a", 3, "uid-2")])
    assert await subscription.next_changes() == [Deleted(a_map("a", 1, "uid-1")), Changed(a_map("a", 3, "uid-2"))]


async def test_changes_of_other_kinds_are_left_out() -> None:
    feed = Feed()
    subscription = a_subscription(feed)
    feed.publish([CommittedWrite(1, "Secret", Secret(metadata=Metadata(name="a"))), written("a", 2)])
    assert await subscription.next_changes() == [Changed(a_map("a", 2))]


async def test_next_changes_waits_for_a_change() -> None:
    feed = Feed()
    subscription = a_subscription(feed)
    reading = asyncio.create_task(subscription.next_changes())
    await asyncio.sleep(0)
    assert not reading.done()
    feed.publish([written("a", 1)])
    assert await reading == [Changed(a_map("a", 1))]


async def test_changes_that_the_watcher_has_read_from_the_tables_are_left_out() -> None:
    feed = Feed()
    subscription = feed.subscribe(ConfigMap)
    subscription.mark_read("m", 10)  # up to m as of 10,
    subscription.mark_read("t", 20)  # from there to t, and beyond, as of 20
    feed.publish(
        [written("a", 10), written("b", 11), written("m", 12), written("n", 19), written("t", 21), written("z", 20)]
    )
    assert await subscription.next_changes() == [
        Changed(a_map("b", 11)),
        Changed(a_map("m", 12)),
        Changed(a_map("t", 21)),
    ]
    feed.publish([deleted("z", 20, last_version=9), deleted("y", 21, last_version=9)])
    assert await subscription.next_changes() == [Deleted(a_map("y", 9))]


async def test_deletion_of_an_unreadable_resource_is_left_out() -> None:
    feed = Feed()
    subscription = a_subscription(feed)
    feed.publish([CommittedDeletion(1, "ConfigMap", "a", b'{"metadata": 7}'), written("b", 2)])
    assert await subscription.next_changes() == [Changed(a_map("b", 2))]


async def test_an_unsubscribed_watcher_receives_nothing() -> None:
    feed = Feed()
    leaving, staying = a_subscription(feed), a_subscription(feed)
    feed.unsubscribe(leaving)
    feed.publish([written("a", 1)])
    assert await staying.next_changes() == [Changed(a_map("a", 1))]
    reading = asyncio.create_task(leaving.next_changes())
    await asyncio.sleep(0)
    assert not reading.done()
    reading.cancel()
