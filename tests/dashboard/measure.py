"""Measurements of pages: requests, connections, renders, and the times that a user would feel."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from playwright.async_api import BrowserContext, CDPSession, Page, Request

_OBSERVERS: Final = """
    window.measured = {longTasks: [], paints: [], shifts: 0, interactions: []};
    const observe = (type, note, options = {}) => new PerformanceObserver(list => list.getEntries().forEach(note))
        .observe({type, buffered: true, ...options});
    observe('longtask', entry => measured.longTasks.push([entry.startTime, entry.duration]));
    observe('largest-contentful-paint', entry => measured.paints.push(entry.startTime));
    observe('layout-shift', entry => { if (!entry.hadRecentInput) measured.shifts += entry.value; });
    const interact = entry => { if (entry.interactionId) measured.interactions.push(entry.duration); };
    observe('event', interact, {durationThreshold: 16});
"""
"""The performance observers of a page, present before its first script."""

_SEEN: Final = """selector => new Promise(seen => {
    const look = () => document.querySelector(selector) ? seen(performance.now()) : requestAnimationFrame(look);
    look();
})"""


@dataclass
class Traffic:
    """The requests of a page to the API: `method path`, and the bytes of their JSON."""

    requests: list[str] = field(default_factory=list)
    json_bytes: int = 0


async def observe(page: Page) -> None:
    """Measure every document that the page opens from now on."""
    await page.add_init_script(_OBSERVERS)


def watch_traffic(page: Page) -> tuple[Traffic, Callable[[], Awaitable[None]]]:
    """Record requests to the API, without the feed. Returns the record and a function that waits for their bodies."""
    traffic, bodies = Traffic(), list[asyncio.Task[None]]()

    async def weigh(request: Request) -> None:
        size = (await request.sizes())["responseBodySize"]
        traffic.json_bytes += size

    def note(request: Request) -> None:
        path = "/" + request.url.split("/", 3)[3]
        if path.startswith("/api/") and path != "/api/changes":
            traffic.requests.append(f"{request.method} {path.partition('?')[0]}")
            bodies.append(asyncio.create_task(weigh(request)))

    async def complete() -> None:
        await asyncio.gather(*bodies)

    page.on("requestfinished", note)
    return traffic, complete


async def seen(page: Page, selector: str) -> float:
    """Return the milliseconds from the start of the navigation until an element exists."""
    milliseconds: float = await page.evaluate(_SEEN, selector)
    return milliseconds


async def measured(page: Page) -> dict[str, Any]:
    """Return what the observers of the page have noted."""
    found: dict[str, Any] = await page.evaluate("measured")
    return found


async def longest_task(page: Page) -> float:
    """Return the milliseconds of the longest task of the main thread; tasks below 50 count as 0."""
    return max((duration for _, duration in (await measured(page))["longTasks"]), default=0)


class OpenStreams:
    """The number of open streams of all pages of a context. Each holds a connection for as long as it is open."""

    def __init__(self, context: BrowserContext) -> None:
        self._open: set[Request] = set()
        context.on("request", self._begin)
        context.on("requestfinished", self._end)
        context.on("requestfailed", self._end)

    def _begin(self, request: Request) -> None:
        if request.resource_type == "eventsource" or request.url.endswith("/api/changes"):
            self._open.add(request)

    def _end(self, request: Request) -> None:
        self._open.discard(request)

    def __len__(self) -> int:
        return len(self._open)


class Clock:
    """The busy time of a page's main thread, relative to the time that passed."""

    def __init__(self, session: CDPSession) -> None:
        self._session = session
        self._start = self._busy = 0.0

    @classmethod
    async def start(cls, context: BrowserContext, page: Page) -> "Clock":
        clock = cls(await context.new_cdp_session(page))
        await clock._session.send("Performance.enable")
        clock._start, clock._busy = time.monotonic(), await clock._metric("TaskDuration")
        return clock

    async def share(self) -> float:
        """Return the share of the time since the start in which the thread was busy."""
        return (await self._metric("TaskDuration") - self._busy) / (time.monotonic() - self._start)

    async def heap_bytes(self) -> float:
        """Return the size of the live JavaScript objects."""
        await self._session.send("HeapProfiler.collectGarbage")
        return await self._metric("JSHeapUsedSize")

    async def _metric(self, name: str) -> float:
        metrics = (await self._session.send("Performance.getMetrics"))["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == name))
