"""Access to the repository that a job reports to, with the credentials of its webhook source."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import msgspec

from labrats.github.client.app import GitHub, RefusedToApp, Token
from labrats.github.client.repository import (
    Doubts,
    GitHubClient,
    Permissions,
    RefusedByGitHub,
    Repository,
    RepositoryObject,
)
from labrats.github.client.signer import Signer
from labrats.github.events.own_events import note_writes
from labrats.model.core_resources import Secret, problem_of_credentials
from labrats.model.errors import GiveUp, NotFound, RetryLater
from labrats.model.report import ReportTarget
from labrats.model.webhook_source import TOKEN, OwnWrite, WebhookSource
from labrats.ports import Clock, Store

READ: Final[Permissions] = {"metadata": "read"}
ISSUES: Final[Permissions] = {"issues": "write"}
PULL_REQUESTS: Final[Permissions] = {"pull_requests": "write"}
CHECKS: Final[Permissions] = {"checks": "write"}
STATUSES: Final[Permissions] = {"statuses": "write"}
READ_ISSUES: Final[Permissions] = {"issues": "read"}
READ_PULL_REQUESTS: Final[Permissions] = {"pull_requests": "read"}
READ_CHECKS: Final[Permissions] = {"checks": "read"}
READ_ACTIONS: Final[Permissions] = {"actions": "read"}
READ_CONTENTS: Final[Permissions] = {"contents": "read"}
CONTENTS: Final[Permissions] = {"contents": "write"}
WORKFLOWS: Final[Permissions] = {**CONTENTS, "workflows": "write"}
"""For commits that change workflows of GitHub Actions."""

UNUSED_FOR: Final = timedelta(minutes=5)
"""Time before its expiry in which a token is no longer used."""

_MOST_TOKENS: Final = 2_000
_MOST_WORK: Final = 2_000


class NoAccess(Exception):
    """The credentials cannot be used. Its text is a sentence for people."""


class Author(msgspec.Struct, frozen=True):
    """The account that wrote an object."""

    login: str = ""


class Actor(msgspec.Struct, frozen=True):
    """An account as GraphQL names it: an App without `[bot]`. kind: `Bot` for an App, `User` for a person."""

    login: str
    kind: str = msgspec.field(name="__typename")


class AuthorsApp(msgspec.Struct, frozen=True):
    """The App by which an account wrote an object."""

    id: int


class Authored(msgspec.Struct, frozen=True, kw_only=True):
    """An object with an author."""

    user: Author | None = None
    performed_via_github_app: AuthorsApp | None = None


@dataclass(frozen=True)
class Identity:
    """The account that the credentials stand for. app_id: of an App; None for a person's token."""

    login: str
    app_id: int | None

    @property
    def is_person(self) -> bool:
        """True for a personal token. GitHub's events about what it does name its owner, a member, as the sender."""
        return self.app_id is None

    def wrote(self, found: Authored) -> bool:
        """Return whether this account is the author."""
        if self.app_id is not None and found.performed_via_github_app is not None:
            return found.performed_via_github_app.id == self.app_id
        return found.user is not None and found.user.login.lower() == self.login.lower()

    def is_actor(self, found: Actor | None) -> bool:
        """Return whether an actor of GraphQL is this account."""
        kind = "Bot" if self.app_id is not None else "User"
        return found is not None and found.kind == kind and self.is_named(found.login)

    def is_named(self, login: str) -> bool:
        """Return whether a login, of an App with or without `[bot]`, is that of this account."""
        return login.removesuffix("[bot]").lower() == self.login.removesuffix("[bot]").lower()


class _User(msgspec.Struct):
    login: str


@dataclass(frozen=True)
class OwnWrites:
    """Stores what is written with a personal token, so that the events about it start no agent.

    source: name of the webhook source. login: of the token's owner. repository: `owner/repo`.
    """

    store: Store
    source: str
    login: str
    repository: str
    clock: Clock

    async def note_labels(self, number: int, added: Iterable[str], removed: Iterable[str] = ()) -> None:
        """Store labels that are about to be added to an issue or pull request, or removed. Raises RetryLater."""
        await self._note(
            *(self._write(number=number, label=label) for label in added),
            *(self._write(number=number, label=label, is_removal=True) for label in removed),
        )

    async def note_commit(self, commit: str) -> None:
        """Store a commit that is pushed. Raises RetryLater."""
        await self._note(self._write(commit=commit))

    def _write(self, **fields: Any) -> OwnWrite:
        return OwnWrite(at=self.clock.now(), login=self.login, repository=self.repository.lower(), **fields)

    async def _note(self, *writes: OwnWrite) -> None:
        if not writes:
            return
        with suppress(NotFound):  # the source was deleted
            await note_writes(self.store, self.source, writes, self.clock.now())


@dataclass(frozen=True)
class Access:
    """A repository, and the account that writes to it. signer: signs the commits that are pushed.

    described:  the repository as GitHub describes it.
    own_writes: None for an App, whose events name a bot as the sender.
    """

    repository: Repository
    identity: Identity
    described: RepositoryObject
    signer: Signer | None = None
    own_writes: OwnWrites | None = None

    async def note_labels(self, number: int, added: Iterable[str], removed: Iterable[str] = ()) -> None:
        """See OwnWrites."""
        if self.own_writes:
            await self.own_writes.note_labels(number, added, removed)

    async def note_commit(self, commit: str) -> None:
        """See OwnWrites."""
        if self.own_writes:
            await self.own_writes.note_commit(commit)

    def commenting(self, target: ReportTarget) -> Permissions:
        """Return the least permissions for comments and labels on the target."""
        return PULL_REQUESTS if target.pull_request is not None else ISSUES


@dataclass(frozen=True)
class _CachedTokens:
    """The tokens for a repository. They are created by `create`, and shared with all who have the same cache."""

    cache: "TokenCache"
    place: tuple[str, str, str]
    create: Callable[[Permissions], Awaitable[Token]]

    async def get(self, permissions: Permissions) -> Token:
        """Return a stored token, or a new one. Raises RefusedByGitHub, RetryLater."""
        key = (*self.place, frozenset(permissions.items()))
        return self.cache.find(key) or self.cache.add(key, await self.create(permissions))

    async def renew(self, permissions: Permissions) -> None:
        """Replace a token now: when it is used, GitHub will have known it for a while."""
        key = (*self.place, frozenset(permissions.items()))
        self.cache.remove(key)
        with suppress(RefusedByGitHub, RetryLater):  # the next `get` raises it
            self.cache.add(key, await self.create(permissions))


_TokenKey = tuple[str, str, str, frozenset[tuple[str, str]]]


class TokenCache:
    """Tokens that have more than five minutes left, by the Secret's name and version, repository and permissions."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens: OrderedDict[_TokenKey, Token] = OrderedDict()

    def find(self, key: _TokenKey) -> Token | None:
        token = self._tokens.get(key)
        if token and (token.expires_at is None or token.expires_at - self._clock.now() > UNUSED_FOR):
            return token
        return None

    def add(self, key: _TokenKey, token: Token) -> Token:
        self._tokens[key] = token
        self._tokens.move_to_end(key)
        if len(self._tokens) > _MOST_TOKENS:
            self._tokens.popitem(last=False)
        return token

    def remove(self, key: _TokenKey) -> None:
        self._tokens.pop(key, None)


@dataclass
class GitHubAccess:
    """Opens repositories. Tokens are for one repository and one kind of write."""

    store: Store
    github: GitHub
    client: Callable[[], GitHubClient]
    clock: Clock
    labelled_only: bool = False
    _identities: dict[tuple[str, str], Identity] = field(default_factory=dict)
    """Identities by the name and version of the Secret."""
    _doubts: OrderedDict[str, Doubts] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._tokens = TokenCache(self.clock)

    async def login_of(self, source: WebhookSource) -> str:
        """Return the account of the source's credentials, an App with `[bot]`. Raises NoAccess, RetryLater."""
        secret = await self._secret(ReportTarget(repository="", source=source.name))
        return (await self._identity(secret, self._repository("", secret, Doubts()))).login

    async def open(self, target: ReportTarget, work: str) -> Access:
        """Return access to the target's repository. Raises NoAccess, RetryLater.

        work: refusals of GitHub that may not last are counted for this piece of work.
        """
        secret, doubts = await self._secret(target), self._doubts_of(work)
        described = await self._describe(target, secret, doubts)
        name = described.full_name or target.repository
        repository = self._repository(name, secret, doubts)
        identity = await self._identity(secret, repository)
        own_writes = None
        if identity.is_person and target.source:
            own_writes = OwnWrites(self.store, target.source, identity.login, name, self.clock)
        return Access(repository, identity, described, Signer.of(secret.data), own_writes)

    async def _describe(self, target: ReportTarget, secret: Secret, doubts: Doubts) -> RepositoryObject:
        """Return the target's repository, which may have a new name, while another one has its old one.

        Empty if GitHub refuses it, as it then does each part. Raises NoAccess, RetryLater.
        """
        name, wanted = target.repository, target.repository_id
        if wanted is None:
            with suppress(RefusedByGitHub):
                return await self._repository(name, secret, doubts).describe()
            return RepositoryObject()
        named: RepositoryObject | None = None
        with suppress(RefusedByGitHub):
            named = await self._repository(name, secret, doubts, is_sure=False).describe(absent_is_final=True)
        if named and named.id in (None, wanted):
            return named
        try:
            return await self._repository(name, secret, doubts, wanted).describe_by_id(wanted)
        except RefusedByGitHub as error:
            if named is None:
                return RepositoryObject()
            raise NoAccess(f"{name} is another repository now, and the one with the id {wanted}: {error}") from error

    def _repository(
        self, name: str, secret: Secret, doubts: Doubts, repository_id: int | None = None, *, is_sure: bool = True
    ) -> Repository:
        """Return a repository. repository_id: see create_token. is_sure: False if GitHub may not know the name."""

        async def create(permissions: Permissions) -> Token:
            return await self._token(name, secret.data, permissions, doubts if is_sure else None, repository_id)

        place = (secret.name, secret.metadata.resource_version, str(repository_id or name.lower()))
        tokens = _CachedTokens(self._tokens, place, create)
        return Repository(self.client(), name, tokens, self.clock, doubts, self.github.pause)

    def _doubts_of(self, work: str) -> Doubts:
        doubts = self._doubts.setdefault(work, Doubts())
        self._doubts.move_to_end(work)
        if len(self._doubts) > _MOST_WORK:
            self._doubts.popitem(last=False)
        return doubts

    async def _secret(self, target: ReportTarget) -> Secret:
        if target.source is None:
            raise NoAccess("the report names no WebhookSource with credentials")
        try:
            source = await self.store.get(WebhookSource, target.source)
        except NotFound:
            raise NoAccess(f"the WebhookSource {target.source!r} was deleted") from None
        if (name := source.spec.credentials_ref) is None:
            raise NoAccess(f"the WebhookSource {target.source!r} has no `credentialsRef`")
        try:
            secret = await self.store.get(Secret, name)
        except NotFound:
            raise NoAccess(f"the Secret {name!r} with the credentials is missing") from None
        if problem := problem_of_credentials(secret, None, labelled_only=self.labelled_only):
            raise NoAccess(problem)
        return secret

    async def _token(
        self,
        repository: str,
        credentials: Mapping[str, str],
        permissions: Permissions,
        doubts: Doubts | None,
        repository_id: int | None,
    ) -> Token:
        wanted = ", ".join(f"{name}: {level}" for name, level in permissions.items())
        request = f"token {wanted}"
        try:
            token = await self.github.create_token(repository, credentials, permissions, repository_id)
        except GiveUp as error:
            refusal = RefusedByGitHub(0, f"{error}; it needs the permissions {wanted}")
            may_last = not isinstance(error, RefusedToApp) or error.status not in (401, 404)
            raise refusal if may_last or doubts is None else doubts.error_of(request, refusal) from error
        if doubts:
            doubts.settle(request)
        return token

    async def _identity(self, secret: Secret, repository: Repository) -> Identity:
        key = (secret.name, secret.metadata.resource_version)
        if (known := self._identities.get(key)) is None:
            known = self._identities[key] = await self._read_identity(secret, repository)
        return known

    async def _read_identity(self, secret: Secret, repository: Repository) -> Identity:
        try:
            if secret.data.get(TOKEN, "").strip():
                return Identity((await repository.user(_User, READ)).login, None)
            app = await self.github.app(secret.data)
        except (GiveUp, RefusedByGitHub) as error:
            raise NoAccess(str(error)) from error
        return Identity(f"{app.slug}[bot]", app.id)
