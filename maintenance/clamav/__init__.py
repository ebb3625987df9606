"""Talking to ClamAV: databases, freshclam, clamd."""
