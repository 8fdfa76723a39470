"""The HTTP proxy for requests to the API server."""

from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import structlog
from yarl import URL

log = structlog.get_logger()


def proxy_options(server: str) -> dict[str, Any]:
    """Return aiohttp's options for requests to `server`, as HTTPS_PROXY, HTTP_PROXY and NO_PROXY demand.

    aiohttp's own lookup would read the environment and the user's netrc file before every request, which takes longer
    than the rest of a request.
    """
    address = URL(server)
    configured = getproxies().get(address.scheme)
    if not configured or proxy_bypass(address.host or ""):
        return {}
    proxy = URL(configured if "://" in configured else f"http://{configured}")
    if proxy.scheme != "http":
        log.warning("proxy ignored: only http:// is supported", scheme=proxy.scheme, host=proxy.host)
        return {}
    if not proxy.user:
        return {"proxy": proxy}
    authorization = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
    return {"proxy": proxy.with_user(None), "proxy_headers": {"Proxy-Authorization": authorization}}
