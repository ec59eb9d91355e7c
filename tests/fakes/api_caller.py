"""Calls an HTTP application of a site in this process."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI


@dataclass(frozen=True)
class Caller:
    """A caller with its headers."""

    app: FastAPI
    headers: dict[str, str]

    def get(self, path: str) -> httpx.Response:
        return self.call("GET", path)

    def post(self, path: str, **what: Any) -> httpx.Response:
        return self.call("POST", path, **what)

    def call(self, method: str, path: str, **what: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://site", headers=self.headers) as http:
                return await http.request(method, path, **what)

        return asyncio.run(call())


def http_to(app: FastAPI) -> httpx.Client:
    """Return a client of an application in this process, for code that takes one of a server."""

    def answer(request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        found = Caller(app, dict(request.headers)).call(request.method, target, content=request.read())
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)

    return httpx.Client(base_url="http://site", transport=httpx.MockTransport(answer))
