"""What a running ClamAV program was told, read the way the program itself reads it."""

from collections.abc import Sequence


def option(words: Sequence[str], name: str, short: str = "") -> str | None:
    """Return the value of ``--name`` in a command line, None when it has none.

    As tried with clamd and freshclam 1.4: the first of several counts, a long
    name may be cut short, and nothing after ``--`` is an option.
    """
    for at, word in enumerate(words[1:], 1):
        if word == "--":
            break
        long, equals, value = word.partition("=")
        following = words[at + 1] if at + 1 < len(words) else None
        if len(long) > 2 and f"--{name}".startswith(long):
            return value if equals else following
        if short and word.startswith(f"-{short}"):
            return word[2:] or following
    return None
