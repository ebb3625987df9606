"""The names in a directory, sorted; memory is flat also when there are a million."""

import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from typing import IO

RUN = 100_000  # names that are sorted in memory
PAGE = 1000

Pages = Iterator[list[bytes]]


def sorted_names(directory: int) -> Pages:
    """Yield what is in a directory (a descriptor): sorted pages, one after the other.

    Where it has more than ``RUN`` names, sorted runs of them wait in an unnamed file to
    be merged. Raises OSError before anything comes.
    """
    with ExitStack() as stack:
        with os.scandir(directory) as entries:
            first = _run(entries)
            if len(first) < RUN:
                runs = [iter([first] if first else [])]
            else:
                file = stack.enter_context(tempfile.TemporaryFile())
                runs = [_put_away(run, file)
                        for run in chain([first], iter(lambda: _run(entries), []))]
        yield from _merged(runs) if len(runs) > 1 else runs[0]


def _run(entries: Iterator[os.DirEntry[str]]) -> list[bytes]:
    # scandir gives texts for a descriptor. Encoded as one, they take a tenth of the time.
    names = "\0".join([entry.name for entry in islice(entries, RUN)])
    return sorted(os.fsencode(names).split(b"\0")) if names else []


def _put_away(run: Sequence[bytes], file: IO[bytes]) -> Pages:
    """Write a run into the file, and return what reads it back."""
    places = []
    for first in range(0, len(run), PAGE):
        page = b"\0".join(run[first:first + PAGE])
        places.append((file.tell(), len(page)))
        file.write(page)
    file.flush()
    return (os.pread(file.fileno(), length, place).split(b"\0") for place, length in places)


def _merged(runs: Sequence[Pages]) -> Pages:
    heads = [(next(pages), pages) for pages in runs]
    while heads:
        # No run has anything more to say of what does not sort behind this.
        end = min(page[-1] for page, _ in heads)
        cuts = [(page, bisect_right(page, end), pages) for page, pages in heads]
        yield sorted(chain.from_iterable(page[:cut] for page, cut, _ in cuts))
        heads = [(left, pages) for page, cut, pages in cuts
                 if (left := page[cut:] or next(pages, []))]
