"""The proxy on the way to the API server, where the environment names one."""

from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import structlog
from yarl import URL

log = structlog.get_logger()


def proxy_options(server: str) -> dict[str, Any]:
    """How aiohttp is told of the proxy for requests to `server`: as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.

    aiohttp would look for itself, but before each request, and in the user's netrc too: that takes longer than the rest
    of a request.
    """
    address = URL(server)
    named = getproxies().get(address.scheme)
    if not named or proxy_bypass(address.host or ""):
        return {}
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http":
        log.warning("a proxy that is not spoken to in plain HTTP is ignored", scheme=proxy.scheme, host=proxy.host)
        return {}
    if not proxy.user:
        return {"proxy": proxy}
    authorization = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
    return {"proxy": proxy.with_user(None), "proxy_headers": {"Proxy-Authorization": authorization}}
