"""Counting the views of images: what an application imports is ``count_hit``."""

from maintenance.hits.counting import count_hit

__all__ = ["count_hit"]
