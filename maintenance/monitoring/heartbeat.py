"""Telling a watcher of cron jobs that a run started, worked or failed.

The conventions are those of healthchecks: a request to the URL is success, one to
URL/start and URL/fail the rest.
"""

import logging
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

TIMEOUT = 3.0  # seconds for each of the two requests of a run
LONGEST = 10_000  # bytes of a result that are sent along

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One job's URL. Nothing that happens to a request is the job's concern."""

    url: str

    def started(self) -> None:
        """Tell that a run has begun."""
        self._tell("/start", b"")

    def ended(self, status: int, result: str, *, worked: bool) -> None:
        """Tell how a run ended; ``result`` goes along for somebody to read."""
        text = f"status {status}\n{result}".encode(errors="replace")[:LONGEST]
        self._tell("" if worked else "/fail", text)

    def _tell(self, suffix: str, body: bytes) -> None:
        parts = urlsplit(self.url)
        url = parts._replace(path=parts.path.rstrip("/") + suffix).geturl()
        # A thread, because the time-out of requests begins anew with every byte that comes.
        thread = threading.Thread(target=_post, args=(url, body), daemon=True)
        thread.start()
        thread.join(TIMEOUT)
        if thread.is_alive():
            log.info("heartbeat: no answer within %g s", TIMEOUT)


def _post(url: str, body: bytes) -> None:
    try:
        with requests.post(url, data=body, timeout=TIMEOUT, stream=True, allow_redirects=False,
                           headers={"User-Agent": "imagewarden"}) as answer:
            if not answer.ok:
                log.info("heartbeat: the watcher answers %d", answer.status_code)
    except (requests.RequestException, ValueError) as error:
        log.info("heartbeat: not told (%s)", type(error).__name__)  # its text holds the URL
