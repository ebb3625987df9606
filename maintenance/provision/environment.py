"""The virtual environment of a checkout: whether it is good, and making it so."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from maintenance.provision.children import ask
from maintenance.provision.console import Console
from maintenance.provision.interpreter import Interpreter

# Settings of the caller's pip that would put the packages elsewhere.
ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_DRY_RUN")


@dataclass(frozen=True)
class Environment:
    """``.venv`` of a checkout, which holds exactly what its lock files name.

    A stamp per lock file, written last, tells a complete one from one that was
    left half made.
    """

    checkout: Path

    @property
    def directory(self) -> Path:
        """Return where it lies."""
        return self.checkout / ".venv"

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.directory / "bin" / "python3"

    def ready(self, *, tests: bool = False) -> bool:
        """Tell whether everything is there and the interpreter still takes it."""
        return self._holds("requirements.lock") and (
            not tests or self._holds("tests/requirements.lock")) and self._works()

    def made_of(self, interpreter: Interpreter) -> bool:
        """Tell whether this is the interpreter it was made of."""
        return self.python.resolve() == Path(interpreter.path).resolve()

    def build(self, interpreter: Interpreter, console: Console, *, tests: bool = False) -> None:
        """Make it anew, or add what the tests need to a good one."""
        if not self.ready() or not self.made_of(interpreter):
            console.say(f"making {self.directory} with {interpreter.path}")
            # The order matters: scripts look at this stamp, nothing else.
            self._stamp("requirements.lock").unlink(missing_ok=True)
            console.run([interpreter.path, "-I", "-m", "venv", "--clear", self.directory])
            for packages in self.directory.glob("lib/python3*/site-packages"):
                # So that an application can import the package with this Python.
                (packages / "imagewarden.pth").write_text(f"{self.checkout}\n", encoding="utf-8")
            self._install("requirements.lock", console)
        if tests and not self._holds("tests/requirements.lock"):
            console.say("adding what the tests need")
            self._install("tests/requirements.lock", console)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for another set-up of this checkout to end, and hold off later ones."""
        path = self.checkout / "build" / "setup.lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _install(self, lock: str, console: Console) -> None:
        digest = self._digest(lock)  # before: the file may change meanwhile
        console.run(
            [self.python, "-I", "-m", "pip", "install", "--disable-pip-version-check",
             "--no-input", "--progress-bar=off", "--retries=2", "--require-hashes", "--no-deps",
             "--only-binary=:all:", "--requirement", self.checkout / lock],
            {name: value for name, value in os.environ.items() if name not in ELSEWHERE})
        stamp = self._stamp(lock)
        draft = stamp.with_suffix(".part")
        draft.write_text(digest + "\n", encoding="ascii")
        draft.replace(stamp)

    def _works(self) -> bool:
        # A package with compiled code: after the system's Python went from one
        # version to the next, the venv's link still runs but finds none of them.
        return ask([self.python, "-I", "-c", "import msgspec"]) is not None

    def _holds(self, lock: str) -> bool:
        try:
            return self._stamp(lock).read_text(encoding="ascii").strip() == self._digest(lock)
        except (FileNotFoundError, NotADirectoryError, UnicodeError):
            return False

    def _digest(self, lock: str) -> str:
        return hashlib.sha256((self.checkout / lock).read_bytes()).hexdigest()

    def _stamp(self, lock: str) -> Path:
        tests = "tests-" if lock.startswith("tests/") else ""
        return self.directory / f"{tests}lock.sha256"
