"""Running one command after the other as an admin would, and showing what each gave."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from maintenance.demo.place import Place
from maintenance.errors import Exit, ImagewardenError, ToolError
from maintenance.programs import ENVIRONMENT
from maintenance.text import show

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds for one command; the slowest takes about five
GRACE = 15.0  # seconds between asking a command to stop and killing it
MEANINGS: dict[int, str] = {Exit.DONE: "done", Exit.INFECTED: "infection found",
                            Exit.INCOMPLETE: "some images left undone"}
WIDEST = 400  # characters of a line that are shown: JSON is for programs
BOLD, GREEN, RED, PLAIN = "\033[1m", "\033[32m", "\033[31m", "\033[0m"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a command gave."""

    status: int  # 128+n: ended by signal n
    out: str
    err: str
    seconds: float

    @property
    def ending(self) -> str:
        """Return the exit status, with its meaning where that needs saying."""
        meaning = MEANINGS.get(self.status)
        return f"status {self.status}" + (f" ({meaning})" if meaning else "")


@dataclass(slots=True)
class Story:
    """What is shown of a demo, and remembered for its JSON result."""

    stream: TextIO | None  # None: show nothing
    steps: list[dict[str, object]] = field(default_factory=list)
    _chapters: int = 0

    def say(self, line: str = "") -> None:
        """Show a line at once: the next command may take its time."""
        if self.stream is not None:
            self.stream.write(f"{line}\n")
            self.stream.flush()

    def chapter(self, title: str) -> None:
        """Begin the next part of the night."""
        self._chapters += 1
        self.say()
        self.say(self._in(BOLD, f"{self._chapters}. {title}"))

    def run(
        self, place: Place, script: str, *arguments: str, expected: Exit = Exit.DONE
    ) -> Seen:
        """Run a script of this checkout; raises ImagewardenError when it ends otherwise."""
        options = (*arguments, "--config", str(place.config))
        self.say("$ " + " ".join(show(word) for word in (f"bin/{script}", *options)))
        seen = watch([str(CHECKOUT / "bin" / script), *options])
        self.steps.append({"script": script, "status": seen.status, "seconds": seen.seconds})
        for line in (*seen.out.splitlines(), *seen.err.splitlines()):
            self.say(f"    {line if len(line) <= WIDEST else line[:WIDEST] + ' …'}")
        if seen.status != expected:
            self.say(self._in(RED, f"  {seen.ending}: expected was {int(expected)}"))
            said = (seen.err.splitlines() or ["it says no more"])[-1]
            raise ImagewardenError(f"{script} gave {seen.ending} instead of {int(expected)}: "
                                   f"{said}; logs are in {show(place / 'logs')}")
        self.say(self._in(GREEN, f"  {seen.ending}, as expected") + f", {seen.seconds:.1f} s")
        return seen

    def ask(
        self, place: Place, script: str, *arguments: str, expected: Exit = Exit.DONE
    ) -> dict[str, Any]:
        """Return what a script says with --json, showing neither; else as ``run``."""
        seen = watch([str(CHECKOUT / "bin" / script), *arguments,
                      "--config", str(place.config), "--json"])
        try:
            told = json.loads(seen.out)
        except ValueError:
            told = None
        if seen.status != expected or not isinstance(told, dict):
            raise ImagewardenError(f"{script} --json gave {seen.ending}: {show(seen.out.strip())}")
        return told

    def check(self, claim: str, *, holds: bool) -> None:
        """Show that ``claim`` is so; raises ImagewardenError when it is not."""
        if not holds:
            self.say(f"  {self._in(RED, f'not so: {claim}')}")
            raise ImagewardenError(f"not so: {claim}")
        self.say(f"  {self._in(GREEN, 'so it is')}: {claim}")

    def _in(self, colour: str, text: str) -> str:
        if self.stream is None or not self.stream.isatty() or "NO_COLOR" in os.environ:
            return text
        return colour + text + PLAIN


def watch(argv: Sequence[str], seconds: float = PATIENCE) -> Seen:
    """Run a program in cron's bare environment, its standard output on a terminal.

    A script that succeeds is silent when nobody looks; on a terminal it sums up
    what it did. Its errors go elsewhere, so that it draws no progress bar.
    However we end, the program ends too. Raises ToolError when out of time.
    """
    started = time.monotonic()
    ours, theirs = os.openpty()
    with tempfile.TemporaryFile() as errors, os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=errors, cwd="/",
                env=ENVIRONMENT, start_new_session=True)
        except OSError as error:
            raise ToolError(f"{show(argv[0])}: {error.strerror}") from None
        finally:
            os.close(theirs)
        try:
            out = _read(terminal.fileno(), started + seconds)
            status = child.wait(max(0.0, started + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ToolError(f"{show(argv[0])}: no result after {seconds:g} s") from None
        finally:
            _end(child)
        errors.seek(0)
        return Seen(status if status >= 0 else 128 - status, _text(out), _text(errors.read()),
                    round(time.monotonic() - started, 1))


def _read(terminal: int, deadline: float) -> bytes:
    """Return all that is written until the last writer closes, or time is up."""
    pieces = []
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # EIO: how Linux says that nobody has the other end open any more
            break
        pieces.append(piece)
    return b"".join(pieces)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _text(output: bytes) -> str:
    """Return what a script printed; a terminal has made two characters of each line's end."""
    return output.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
