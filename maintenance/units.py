"""Durations, sizes and shares as an admin writes them."""

import re
from typing import ClassVar, Self


class Duration(float):
    """Seconds; read from and printed as "90s", "10m", "4h", "7d" or "0"."""

    example: ClassVar = 'a duration such as "90s", "10m", "4h" or "7d"'
    units: ClassVar = {"d": 86400, "h": 3600, "m": 60, "s": 1}

    def __new__(cls, value: str | float) -> Self:
        """Read a text or take seconds; ValueError says what is wrong."""
        number = _read(value, cls.units, cls.example)
        if number > 36500 * 86400:  # a date that long ago can still be computed
            raise ValueError(f'{value!r} is longer than "36500d"')
        return super().__new__(cls, number)

    def __str__(self) -> str:
        return _write(self, self.units) if self else "0"


class Timeout(Duration):
    """A duration one can wait for: above zero, at most the day that a socket takes."""

    def __new__(cls, value: str | float) -> Self:
        """Read a text or take seconds; ValueError says what is wrong."""
        self = super().__new__(cls, value)
        if 0 < self <= 86400:
            return self
        raise ValueError(f'{value!r} must be above zero and at most "1d"')


class Size(int):
    """Bytes, or pixels; read from and printed as "10M". K, M, G and T are powers of 1024."""

    example: ClassVar = 'a size such as "10M" or "2G"'
    units: ClassVar = {"T": 2**40, "G": 2**30, "M": 2**20, "K": 2**10, "": 1}

    def __new__(cls, value: str | int) -> Self:
        """Read a text or take a number; ValueError says what is wrong."""
        number = _read(value, cls.units, cls.example)
        if number >= 2**53:  # what a float no longer counts one by one, nor the system takes
            raise ValueError(f"{value!r} is larger than any file")
        return super().__new__(cls, number)

    def __str__(self) -> str:
        return _write(self, self.units) if self else "0"


class Share(float):
    """A part of one; read from and printed as "0.5%"."""

    example: ClassVar = 'a share such as "0.5%"'

    def __new__(cls, value: str | float) -> Self:
        """Read a text or take a fraction; ValueError says what is wrong."""
        part = _read(value, {"%": 1}, cls.example) / 100 if isinstance(value, str) else value
        if part > 1:
            raise ValueError(f"{value!r} is more than 100%")
        return super().__new__(cls, part)

    def __str__(self) -> str:
        return f"{self * 100:.12g}%"


def roughly(number: int) -> str:
    """Return bytes as a person reads them, such as 999, 1.2M or 340G."""
    for unit, worth in Size.units.items():
        if number >= worth > 1:
            part = number / worth
            return f"{part:.1f}{unit}" if part < 10 else f"{part:.0f}{unit}"
    return str(number)


def _read(value: str | float, units: dict[str, int], example: str) -> float:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([A-Za-z%]?)", value)
    if match and match[2] in units:
        return float(match[1]) * units[match[2]]
    if value == "0":
        return 0
    raise ValueError(f"{value!r} is not {example}")


def _write(number: float, units: dict[str, int]) -> str:
    unit = next((unit for unit, worth in units.items() if number % worth == 0), "s")
    return f"{number / units[unit]:.3f}".rstrip("0").rstrip(".") + unit
