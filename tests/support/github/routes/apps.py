"""The App, its installation, and its webhook's deliveries."""

from tests.support.github.access import APP, INSTALLATION
from tests.support.github.calls import Call, Json
from tests.support.github.errors import not_found
from tests.support.github.routing import Answer, World, page, route
from tests.support.github.state import now


@route("GET /app", actors=("app",))
def get_app(world: World, _call: Call) -> Answer:
    return 200, _app(world)


def _app(world: World) -> Json:
    shown = APP | {"html_url": f"{world.url}/apps/{APP['slug']}"}
    return shown | {"permissions": world.access.permissions, "events": world.access.events}


@route("POST /app-manifests/{code}/conversions", actors=("nobody",))
def convert_manifest(world: World, call: Call) -> Answer:
    credentials = world.access.create_app(call.values["code"])
    return 201, _app(world) | credentials


@route("GET /app/installations", actors=("app",))
def list_installations(world: World, call: Call) -> Answer:
    is_installed = any(world.access.installed_on(name) for name in world.repositories)
    return page(call, [_installation(world)] if is_installed else [])


@route("GET /installation/repositories", actors=("installation",))
def list_repositories(world: World, call: Call) -> Answer:
    reached = [each.as_json() for each in world.repositories.values() if call.actor.reaches(each.name)]
    return page(call, reached, "repositories")


@route("GET /user", actors=("person",))
def get_user(_world: World, call: Call) -> Answer:
    return 200, call.actor.user


@route("GET /repos/{owner}/{repo}/installation", actors=("app",))
def get_installation_of_repository(world: World, call: Call) -> Answer:
    if call.repository not in world.repositories or not world.access.installed_on(call.repository):
        raise not_found()
    return 200, _installation(world)


@route("GET /app/installations/{installation_id}", actors=("app",))
def get_installation(world: World, call: Call) -> Answer:
    _require_installation(call)
    return 200, _installation(world)


@route("POST /app/installations/{installation_id}/access_tokens", actors=("app",))
def create_token(world: World, call: Call) -> Answer:
    _require_installation(call)
    token, permissions = world.access.create_token(
        call.body or {}, {name: each.id for name, each in world.repositories.items()}
    )
    return 201, {"token": token, "expires_at": "2100-01-01T13:00:00Z", "permissions": permissions}


def _installation(world: World) -> Json:
    shown: Json = {"id": INSTALLATION, "app_id": APP["id"], "app_slug": APP["slug"]}
    shown |= {"account": {"login": "octo"}, "suspended_at": now() if world.access.suspended else None}
    return shown | {"permissions": world.access.permissions}


def _require_installation(call: Call) -> None:
    if call.values["installation_id"] != str(INSTALLATION):
        raise not_found()


@route("GET /app/hook/config", actors=("app",))
def get_hook(world: World, _call: Call) -> Answer:
    return 200, {"url": world.hook.url, "content_type": "json"}


@route("GET /app/hook/deliveries", actors=("app",))
def list_deliveries(world: World, call: Call) -> Answer:
    start, size = int(call.query.get("cursor", 0)), world.hook.page
    if start + size < len(world.hook.deliveries):
        address = f"https://api.github.test/app/hook/deliveries?per_page=100&cursor={start + size}"
        call.headers["Link"] = f'<{address}>; rel="next"'
    return 200, world.hook.deliveries[::-1][start : start + size]


@route("POST /app/hook/deliveries/{delivery_id}/attempts", actors=("app",))
def deliver_again(world: World, call: Call) -> Answer:
    if not world.hook.deliver_again(int(call.values["delivery_id"])):
        raise not_found()
    return 202, {}
