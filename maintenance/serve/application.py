"""The routes: what is asked, and what is answered."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, TypeVar

from aiohttp import web
from aiohttp.typedefs import Middleware

from maintenance import __version__
from maintenance.clamav.connection import Clamd
from maintenance.errors import EngineError, Exit
from maintenance.serve.body import Broken, receive
from maintenance.serve.metrics import Metrics
from maintenance.upload import judging
from maintenance.upload.checking import check, settings
from maintenance.upload.judging import UploadVerdict
from maintenance.upload.pool import MOST
from maintenance.upload.source import TooLarge
from maintenance.upload.tallying import tally

AGAIN = "1"  # seconds: after which a client may try again that got no verdict
LOOK = 2.0  # seconds for a look at clamd
HTTP = {Exit.DONE: 200, Exit.INFECTED: 200, Exit.REFUSED: 413, Exit.INCOMPLETE: 503}
OPEN = {"/health"}  # without a token
T = TypeVar("T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Scans:
    """What the requests share."""

    patience: float  # seconds for a body to come
    token: str  # "": none is asked for
    metrics: Metrics = field(default_factory=Metrics)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(MOST))

    def application(self) -> web.Application:
        """Return what answers."""
        made = web.Application(middlewares=[self._admitted()])
        made.add_routes([web.post("/scan", self._scan), web.get("/health", self._health),
                         web.get("/version", self._version), web.get("/metrics", self._metrics)])
        return made

    def _admitted(self) -> Middleware:
        @web.middleware
        async def admitted(request: web.Request, handler: _Handler) -> web.StreamResponse:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            wanted = f"Bearer {self.token}".encode()
            if self.token and request.path not in OPEN and not hmac.compare_digest(given, wanted):
                return _refusal(401, "the token is missing or wrong",
                                {"WWW-Authenticate": "Bearer"})
            return await handler(request)

        return admitted

    async def _scan(self, request: web.Request) -> web.StreamResponse:
        now = settings()
        if not now.upload.enabled:
            verdict = judging.off()
            tally(now, verdict)
            return self._answer(verdict)
        begun = time.monotonic()
        try:
            file = await receive(request, judging.greatest_size(now), self.patience)
        except Broken as broken:
            self.metrics.broken()
            return _refusal(400, str(broken))
        except TooLarge:
            verdict = judging.too_large(now, time.monotonic() - begun)
            tally(now, verdict)
            return self._answer(verdict)
        deadline = time.monotonic() + now.upload.timeout
        verdict = await self._beside(lambda: _checked(file, deadline))
        return self._answer(verdict)

    def _answer(self, verdict: UploadVerdict) -> web.StreamResponse:
        self.metrics.verdict(verdict)
        status = HTTP[verdict.status]
        return web.json_response(
            {"verdict": verdict.verdict, "signature": verdict.signature,
             "seconds": round(verdict.seconds, 3), "reason": verdict.reason,
             "accepted": verdict.accepted},
            status=status, headers={"Retry-After": AGAIN} if status == 503 else {})

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        now = settings()
        clamd = Clamd(now.clamav.socket)
        well = not now.upload.enabled or await self._beside(lambda: clamd.answers(LOOK))
        return web.json_response({"status": "ok" if well else "clamd does not answer"},
                                 status=200 if well else 503)

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        clamd = Clamd(settings().clamav.socket)
        return web.json_response({"imagewarden": __version__,
                                  "clamav": await self._beside(lambda: _version_of(clamd))})

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.metrics.text(), headers={
            "Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _beside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _checked(file: IO[bytes], deadline: float) -> UploadVerdict:
    with file:
        return check(file, timeout=max(0.001, deadline - time.monotonic()))


def _version_of(clamd: Clamd) -> str | None:
    try:
        return clamd.version(LOOK)
    except EngineError:
        return None


def _refusal(status: int, why: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": why}, status=status, headers=headers)
