"""Kinds of text settings: what each may look like, and which part of it is a secret."""

from typing import Annotated, Literal

from msgspec import Meta


def _like(pattern: str, example: str, *, private: str = "") -> Meta:
    return Meta(pattern=rf"\A(?:@/.*|{pattern})\Z", description=example, extra={"private": private})


_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)"
TCP = rf"tcp://({_HOST}):({_PORT})"

# Annotated kinds: `description` completes "expected …"; a private value is never printed whole.
Name = Annotated[str, _like(r"(?!\.{1,2}\Z)[^/]{1,64}", '1 to 64 characters without "/"')]
Socket = Annotated[str, _like(rf"/[^\0]+|{TCP}", 'a path, or such as "tcp://127.0.0.1:3310"')]
Server = Annotated[str, _like(rf"{_HOST}(:{_PORT})?", 'a text such as "127.0.0.1:10051"')]
Window = Annotated[
    str, _like(rf"|(?!(.{{5}})-\1\Z){_CLOCK}-{_CLOCK}", 'a text such as "03:00-05:30"')
]
Times = Annotated[str, _like(rf"every [1-9][0-9]{{0,3}}[mh]|{_CLOCK}", '"every 5m" or "03:00"')]
Mode = Annotated[str, _like("0?[0-7]{3}", 'a text such as "0644"')]
Mirror = Annotated[str, _like(r"[^\s/@]+|https?://\S+", "a host or an http URL", private="url")]
Source = Annotated[str, _like(r"(https?|file)://\S+", "an http or file URL", private="url")]
Url = Annotated[str, _like(r"https?://\S+", "an http URL", private="path")]
MaybeUrl = Annotated[str, _like(r"|https?://\S+", 'an http URL or ""', private="url")]
Database = Annotated[str, _like(r"|[a-z][a-z0-9_+]*://.*", "a database URL", private="url")]
Identity = Annotated[str, Meta(description="a text", extra={"private": "whole"})]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1, description="a whole number, 0 or above")]
Natural = Annotated[int, Meta(ge=1, le=2**31 - 1, description="a whole number above 0")]
Quality = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
Load = Annotated[float, Meta(ge=0, description="a number, 0 or above")]
Job = Literal["definitions", "rescan", "optimize", "checks", "hits", "upload"]
