"""The site's Redis, as the worker uses it: it answers, knows us, and lets us read our queue."""

from urllib.parse import urlsplit

from site_node.doctor.finding import Finding, fine, problem
from site_node.settings import SiteSettings
from site_node.tasks.app import make_app, queue_of

CHECK = "redis"


def examine(settings: SiteSettings) -> list[Finding]:
    """Connect as the worker does, ping, and ask for the queue's length."""
    try:
        with make_app(settings).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.0)
            waiting = connection.default_channel.client.llen(queue_of(settings))
    except Exception as error:  # kombu's OperationalError, and redis-py's own tree: what its rights (ACL) forbid
        return [verdict_on_failure(error, settings.redis_url)]
    return [fine(CHECK, f"Redis answers; {waiting} job ids wait in it.")]


def verdict_on_failure(error: BaseException, url: str) -> Finding:
    """Say why Redis is of no use, without repeating its password. Pure."""
    parts = urlsplit(url)
    place = (
        parts.path if "+socket" in parts.scheme or parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    )
    said = f"{error} {error.__cause__ or ''}"
    if any(word in said for word in ("WRONGPASS", "NOAUTH", "NOPERM", "uthentication")):
        remedy = "Compare user and password in `redis` of site.yaml with Redis' aclfile (docs/operations.md)."
        return problem(CHECK, f"Redis at {place} does not let the worker in.", remedy)
    remedy = "Start it, or correct `redis` in site.yaml; a socket must be readable by the worker's user."
    return problem(CHECK, f"Redis at {place} does not answer ({type(error).__name__}).", remedy)
