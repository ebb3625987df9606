"""``count_hit``: the decorator, and what stands behind it in each process."""

import inspect
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar, cast, overload

from maintenance import config as configuration
from maintenance.errors import ImagewardenError
from maintenance.hits.spool import Spool
from maintenance.settings import HitsSettings
from maintenance.text import show

AGAIN = 60.0  # seconds until a configuration that could not be used is looked at again
FLUSH = "import sys; from maintenance.shell.main import main; sys.exit(main('hits', []))"
log = logging.getLogger("maintenance.hits")

P = ParamSpec("P")
R = TypeVar("R")
Naming = str | Callable[..., object] | None


@overload
def count_hit(view: Callable[P, R]) -> Callable[P, R]: ...


@overload
def count_hit(*, image: Naming) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def count_hit(view: Callable[P, R] | None = None, *, image: Naming = None
              ) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Count a hit of an image each time the decorated view is called.

    Bare, the view's first argument is the image. ``image`` says otherwise: the name
    of an argument, or a callable that is given the view's arguments and returns the
    image; None and an empty text count nothing. Coroutine functions do as well.
    Nothing that goes wrong in counting reaches the view; the log
    ``maintenance.hits`` tells of it. Raises TypeError for a view that has no such
    argument.
    """
    if view is None:
        return lambda view: _counted(view, image)
    return _counted(view, image)


def _counted(view: Callable[P, R], image: Naming) -> Callable[P, R]:
    named = _naming(view, image)
    hit = _COUNTER.hit

    if inspect.iscoroutinefunction(view):
        @wraps(view)
        async def awaited(*args: P.args, **kwargs: P.kwargs) -> object:
            hit(named, args, kwargs)
            return await view(*args, **kwargs)

        return cast(Callable[P, R], awaited)

    @wraps(view)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        hit(named, args, kwargs)
        return view(*args, **kwargs)

    return called


def _naming(view: Callable[..., object], image: Naming) -> Callable[..., object]:
    """Return what tells the image from a view's arguments; raises TypeError for nonsense."""
    if callable(image):
        return image
    names = list(inspect.signature(view).parameters)
    if image is None:
        if not names:
            raise TypeError(f"count_hit: {view!r} takes no argument that could name an image")
        image = names[0]
    if image not in names:
        raise TypeError(f"count_hit: {view!r} has no argument {image!r}")
    return _argument(view, image, names.index(image))


def _argument(view: Callable[..., object], name: str, place: int) -> Callable[..., object]:
    signature = inspect.signature(view)

    def named(*args: object, **kwargs: object) -> object:
        if name in kwargs:
            return kwargs[name]
        if place < len(args):
            return args[place]
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments[name]

    return named


class _Counter:
    """What a process counts with, made at its first hit."""

    def __init__(self) -> None:
        self._write: Callable[[str], None] = self._first
        self._spool: Spool | None = None
        self._lost = 0  # before there was a spool that could remember it
        self._look_again = 0.0
        self._flush: subprocess.Popen[bytes] | None = None

    def hit(self, named: Callable[..., object], args: Sequence[object],
            kwargs: Mapping[str, object]) -> None:
        """Count one; whatever goes wrong is only logged."""
        try:
            image = named(*args, **kwargs)
            text = image if type(image) is str else _text(image)
            if text:
                self._write(text)
        except Exception:  # noqa: BLE001 - never at the page's expense
            log.debug("a hit could not be counted", exc_info=True)

    def forget(self) -> None:
        """Begin anew in a forked child."""
        self._write, self._lost, self._flush = self._first, 0, None
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.forget()

    def _first(self, image: str) -> None:
        """Find out how hits are counted here, then count."""
        now = time.monotonic()
        if now < self._look_again:
            self._lost += 1
            return
        try:
            settings = _settings()
            spool = Spool(_made(settings.spool), settings.hits.spool_max,
                          lambda: self._flush_early(settings))
            write = (spool.write if settings.hits.mode == "spool"
                     else _immediate(settings, spool))
        except ImagewardenError as error:
            log.warning("hits are not counted: %s", error)
            self._look_again = now + AGAIN
            self._lost += 1
            return
        for _ in range(self._lost):
            spool.lose()
        self._lost = 0
        self._spool, self._write = spool, write
        write(image)

    def _flush_early(self, settings: HitsSettings) -> None:
        """Start flush-hits, where this process is one that could: else cron's does it."""
        if self._flush is not None and self._flush.poll() is None:
            return
        python = Path(sys.prefix, "bin", "python3")  # sys.executable may be the web server
        if os.access(settings.state, os.W_OK) and python.exists():
            self._flush = subprocess.Popen(  # noqa: S603 - and no keeper: it may outlive us
                [python, "-I", "-c", FLUSH], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True)


def _settings() -> HitsSettings:
    """Read our part of the configuration; its secrets only where hits go there at once."""
    settings = configuration.load_part(None, (), HitsSettings)
    if settings.hits.mode == "immediate":
        return configuration.load_part(None, ("hits",), HitsSettings)
    return settings


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        log.warning("%s: %s; hits are lost until it is there", show(directory), error.strerror)
    return directory


def _immediate(settings: HitsSettings, spool: Spool) -> Callable[[str], None]:
    from maintenance.hits.immediate import Immediate  # noqa: PLC0415 - SQLAlchemy takes 200 ms

    return Immediate(settings.database, spool).write


def _text(image: object) -> str:
    if image is None:
        return ""
    return os.fsdecode(image) if isinstance(image, bytes | os.PathLike) else str(image)


_COUNTER = _Counter()
os.register_at_fork(after_in_child=_COUNTER.forget)
