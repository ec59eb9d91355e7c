"""Assembly of the hub's API: routes, error answers, the start and end of the process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any

import anyio.to_thread
import structlog
from fastapi import APIRouter, FastAPI, Request

from hub.api import audit, blobs, errors, mailbox, models, people, rounds, sites, studies, uploads
from hub.api.callers import Callers
from hub.api.dependencies import Anyone, ServicesOf
from hub.api.mail_rounds import MailRounds
from hub.api.sent_bytes import SentBytes
from hub.rounds.deadlines import watch_deadlines
from hub.services import Enqueue, Services, open_services
from hub.settings import Settings
from hub.storage.migrate import upgrade
from protocol.messages import PROTOCOL_VERSION

SERVICE_NAME = "wardround-hub"
HANDLER_THREADS = 12
TRANSFER_THREADS = 8
"""With the handlers and four lookers and writers (callers, mail, deliveries, downloads) no more than a process has
database connections."""
ROUTERS = (mailbox, uploads, blobs, studies, rounds, models, sites, people, audit)
"""What a thousand sites ask for comes first: a request is held against one router after the other."""
_log = structlog.get_logger()
_about = APIRouter(prefix="/v1", tags=["about"])


def create_app(
    settings: Settings,
    enqueue: Enqueue,
    clock: Callable[[], float] | None = None,
    *,
    watch: bool = False,
) -> FastAPI:
    """Assemble the API on a hub's folder; missing tables, folders and keys are made.

    `enqueue` is given the work that follows a commit: Celery in `wardround hub serve`, a call in a simulation.
    `watch` also wakes rounds whose deadline has come; a simulation does that itself.
    """
    services = open_services(settings, enqueue, clock)
    upgrade(services.database)
    return assemble(services, watch=watch)


def assemble(services: Services, *, watch: bool = False) -> FastAPI:
    """Assemble the API on services that are open."""
    # FastAPI's own pages would load scripts from elsewhere and ask nobody who is calling.
    app = FastAPI(title="Wardround hub", version="1", lifespan=_lifespan, openapi_url=None)
    app.state.services, app.state.watch = services, watch
    app.state.callers, app.state.mail_rounds = Callers(services), MailRounds(services)
    app.state.sent_bytes = SentBytes(services)
    errors.install(app)
    app.include_router(_about)
    for module in ROUTERS:
        app.include_router(module.router)
    return app


@_about.get("/info")
def info(caller: Anyone, services: ServicesOf) -> dict[str, object]:
    """Return what a site must know before it speaks: protocol, the hub's key, its clock."""
    return {
        "service": SERVICE_NAME,
        "protocol_versions": [PROTOCOL_VERSION],
        "hub_key": services.key.public.text,
        "time": services.clock(),
    }


@_about.get("/health")
def health(caller: Anyone, services: ServicesOf) -> dict[str, str]:
    """Tell that the process answers and reaches its database."""
    services.database.ping()
    return {"status": "ok"}


@_about.get("/openapi.json", include_in_schema=False)
def openapi(caller: Anyone, request: Request) -> dict[str, Any]:
    """Return the description of this API."""
    application: FastAPI = request.app
    return application.openapi()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    # Handlers mostly wait for the one writer's lock; more threads would take time from the loop that answers polls.
    anyio.to_thread.current_default_thread_limiter().total_tokens = HANDLER_THREADS
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(TRANSFER_THREADS, thread_name_prefix="wardround-transfer")
    )
    watching = [asyncio.create_task(watch_deadlines(services))] if app.state.watch else []
    if services.waker.poll_seconds != inf:
        rounds: MailRounds = app.state.mail_rounds
        watching.append(asyncio.create_task(rounds.keep_looking(services.waker.poll_seconds)))
    _log.info("hub_started", key=services.key.public.key_id)
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        services.waker.close()
        services.database.close()
