"""Telling a cache or CDN that an image is another by now: one request for each."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, quote_from_bytes

import requests

from maintenance.ledger.purges import Purge, Purges
from maintenance.times import Deadline

AT_ONCE = 8  # requests
PAGE = 64  # images whose outcome is written together
TIMEOUT = 3.0  # seconds for a request
OLDEST = 7 * 86400.0  # seconds; no cache keeps an image for so long without asking
# That nothing is there to be purged is fine; those that ask for patience get it.
FINE, LATER = {404, 410}, {408, 425, 429}
OTHER_METHOD = {405, 501}


@dataclass(slots=True)
class Purging:
    """One run over what waits; readable at any moment."""

    url: str  # with {path}, and {store} where it is wanted
    queue: Purges
    until: Deadline
    told: int = 0
    refused: dict[int, int] = field(default_factory=dict)  # HTTP status -> how many, for good
    trouble: str | None = None  # why the rest waits
    _method: str = "POST"

    def run(self) -> None:
        """Tell of all that waits until time is up, or the cache is seen to be away."""
        after = 0
        while self.trouble is None and not self.until.passed:
            page = self.queue.waiting(after, PAGE)
            if not page:
                return
            after = page[-1].number
            answers = self._answers(page)
            self.queue.done([one.number for one in page if one.number in answers
                             and self._settles(answers[one.number])])

    def _answers(self, page: Sequence[Purge]) -> Mapping[int, int | str]:
        """Ask about a page; return what was answered in time.

        In threads that nobody waits for any longer, because the time-out of requests begins
        anew with every byte that comes.
        """
        answers: dict[int, int | str] = {}
        left = iter(page)

        def work() -> None:
            for one in left:
                answers[one.number] = self._ask(one)
                if isinstance(answers[one.number], str):
                    return

        threads = [threading.Thread(target=work, daemon=True) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.until.left)
        if any(thread.is_alive() for thread in threads):
            self.trouble = "it does not answer in time"
        return dict(answers)

    def _settles(self, answer: int | str) -> bool:
        """Count an answer; tell whether that is all there is to be said to the cache."""
        if isinstance(answer, str):
            self.trouble = answer
        elif answer < 300 or answer in FINE:
            self.told += 1
            return True
        elif answer >= 500 or answer in LATER:
            self.trouble = f"it answers {answer}"
        else:  # it will say so again tomorrow
            self.refused[answer] = self.refused.get(answer, 0) + 1
            return True
        return False

    def _ask(self, one: Purge) -> int | str:
        """Return the status of the answer, or why there is none."""
        url = self.url.replace("{store}", quote(one.store, safe="")).replace(
            "{path}", quote_from_bytes(one.path))
        method = self._method
        try:
            status = _status(method, url)
            if status in OTHER_METHOD and method == "POST":
                self._method = "GET"  # for those to come as well
                status = _status("GET", url)
        except (requests.RequestException, ValueError) as error:
            return f"it cannot be reached ({type(error).__name__})"  # the text holds the URL
        return status


def _status(method: str, url: str) -> int:
    with requests.request(method, url, timeout=TIMEOUT, stream=True, allow_redirects=False,
                          headers={"User-Agent": "imagewarden"}) as answer:
        return answer.status_code
