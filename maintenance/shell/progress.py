"""A progress bar for people; nothing for cron."""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """Bars on stderr, when there is a terminal and somebody wants them."""

    shown: bool = False

    def __post_init__(self) -> None:
        """Load the library now: later, as another user, its files may be out of reach."""
        if self.shown:
            importlib.import_module("tqdm")

    def over(self, things: Iterable[T], label: str, total: int | None = None,
             images: Callable[[T], int] = lambda thing: 1,
             beside: Callable[[], str] | None = None) -> Iterator[T]:
        """Yield ``things`` while a bar moves.

        ``images``: by how many each one moves it; ``beside``: what is to stand beside it.
        """
        if not self.shown:
            yield from things
            return
        from tqdm import tqdm  # noqa: PLC0415 - only where a bar is shown

        with tqdm(desc=label, total=total, unit=" images", file=sys.stderr, leave=False,
                  mininterval=0.2) as bar:
            for thing in things:
                yield thing
                if beside is not None:
                    bar.set_postfix_str(beside(), refresh=False)
                bar.update(images(thing))
