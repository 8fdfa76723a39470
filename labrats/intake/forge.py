"""The port to the forge with the repositories of jobs. `labrats/github` fulfils it, and only `compose` names that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.events import IncomingEvent
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.agent import AiAgent
from labrats.model.errors import LabratsError
from labrats.model.job import Job
from labrats.model.thread_requests import ThreadAction, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Runner, Store

_REPLIES: Final = (ThreadAction.REPLY, ThreadAction.MENTION)


@dataclass(frozen=True)
class ThreadEvent:
    """The requests of an event. Only the event of a reply or mention may start agents by triggers instead.

    note: why the event starts no agent, or has no requests, as a sentence. None for a command.
    """

    requests: Sequence[ThreadRequest]
    note: str | None = None

    @property
    def command(self) -> ThreadAction | None:
        """The command in the comment, or of the button."""
        return self.requests[0].action if self.requests and self.note is None else None

    @property
    def is_reply(self) -> bool:
        return any(request.action in _REPLIES for request in self.requests) and not self.is_refused

    @property
    def is_refused(self) -> bool:
        """True for a mention by somebody who may ask for nothing, which gets a reaction."""
        return any(request.action is ThreadAction.MENTION and request.answer for request in self.requests)


class Tokens(Protocol):
    """Provides jobs with tokens for their repositories."""

    async def provide(self, job: Job) -> None:
        """Store a new token in the Secret with which the next attempt of `job` clones, if the job uses tokens.

        Raises GiveUp for a permanent problem, RetryLater for a temporary one.
        """


class EventTaker(Protocol):
    """Takes the events that a forge has read for webhook sources in the mode `poll`."""

    async def take(self, source: WebhookSource, event: IncomingEvent, fingerprint: str) -> None:
        """Start the agents of an event, or store its requests. Raises RetryLater.

        fingerprint: the same for the same event, see `fingerprint_of_polled`.
        """


class RefusedByForge(LabratsError):
    """The forge refuses a step of the set-up. Its text is a sentence for people, with the next step."""


@dataclass(frozen=True)
class CheckedCredentials:
    """Credentials that work.

    login:        of the account that writes with them. repositories: their full names at the forge.
    has_webhook:  true for those of an App that delivers events.
    """

    login: str
    repositories: Sequence[str]
    has_webhook: bool = False


@dataclass(frozen=True)
class AppForm:
    """A form that a browser sends to the forge, by which a person creates an App.

    address: to which it is sent. manifest: its only field, as JSON. state: that the forge gives back with the code.
    """

    address: str
    manifest: Mapping[str, Any]
    state: str


@dataclass(frozen=True)
class AppAccess:
    """An App, and what it can work with.

    login:        of the account that it writes with. install_url: of the page that installs it.
    repositories: full names. suspended: the accounts whose installation is suspended.
    """

    login: str
    install_url: str
    repositories: Sequence[str]
    suspended: Sequence[str]


@dataclass(frozen=True)
class NewApp:
    """An App that was just created. credentials: by the keys of their Secret."""

    app: AppAccess
    credentials: Mapping[str, str]


class ForgeSetup(Protocol):
    """Connects repositories of the forge. Each method raises RefusedByForge, RetryLater."""

    @property
    def web_url(self) -> str:
        """The address of its pages, such as https://github.com."""

    async def check_token(self, token: str, repositories: Sequence[str]) -> CheckedCredentials:
        """Check that a personal token may read the events of the repositories, and that its owner may write there."""

    def app_form(
        self, agents: Iterable[AiAgent], redirect_url: str, organization: str | None, hook_url: str | None
    ) -> AppForm:
        """Return the form for an App with the rights that the agents need.

        redirect_url: of the page that gets the code. organization: that owns the App; None for the person.
        hook_url:     for deliveries; None for an App whose events are read.
        """

    async def new_app(self, code: str) -> NewApp:
        """Return the App that a person has just created, for the code that the forge gave."""

    async def app_access(self, credentials: Mapping[str, str]) -> AppAccess:
        """Return the App with these credentials and the repositories on which it is installed."""

    async def check_app(self, credentials: Mapping[str, str], repositories: Sequence[str]) -> CheckedCredentials:
        """Check that an App is installed on the repositories."""


@dataclass(frozen=True)
class ForgeWork:
    """The parts of the engine with which a forge answers what people and events ask for there."""

    store: Store
    runner: Runner
    catalog: Catalog
    job_index: JobIndex
    admission: Admission
    stored_jobs: StoredJobs
    polled: EventTaker


class Forge(Protocol):
    """A forge of git repositories, such as GitHub."""

    def tokens(self, store: Store) -> Tokens:
        """Return the provider of tokens for clones."""

    def thread_event(
        self, event: IncomingEvent, source: WebhookSource, catalog: Catalog, fingerprint: str
    ) -> ThreadEvent | None:
        """Return the requests in an event that a source has received; None if it asks for nothing.

        fingerprint: of the delivery.
        """

    def may_be_own(self, event: IncomingEvent) -> bool:
        """Return whether the event is of a kind that the engine causes, and that shows no mark."""

    def reason_of_own_event(self, event: IncomingEvent, source: WebhookSource) -> str | None:
        """Return why an event starts no agent that the engine has caused itself; None for another event."""

    def notice(self, event: IncomingEvent, source: WebhookSource, reason: str, text: str) -> ThreadRequest | None:
        """Return the comment for the thread of the event; None where the engine cannot comment.

        reason: a short name. Of the comments with one reason, a repository gets the first of a day, UTC.
        """

    async def preview(self, runner: Runner, job: Job) -> dict[str, Any] | None:
        """Return the report of a job as it would be written now, in the API's form; None if it reports nowhere.

        Raises RetryLater.
        """

    async def serve(self, work: ForgeWork) -> None:
        """Answer requests from threads, read events for the mode `poll`, and keep webhook sources in order.

        It runs until cancelled, in one process.
        """

    async def publish(self, store: Store, runner: Runner, listed_after: timedelta | None = None) -> None:
        """Write the reports of jobs until cancelled. One process does so.

        listed_after: time after which the forge's lists certainly show what was created; None for the usual one.
        """
