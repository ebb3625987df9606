"""What Zabbix makes items for: stores, databases and jobs."""

import hashlib
import json
from collections.abc import Mapping, Sequence

ALWAYS = ("definitions", "rescan", "checks")  # jobs that are missed also before they ever ran


def rules(state: Mapping[str, object]) -> dict[str, str]:
    """Return the values of the discovery rules, by key, for a state as store-status has it.

    Macros hold names exactly as the state does, so that a JSONPath which compares
    them finds its entry.
    """
    definitions = state["definitions"]
    databases = definitions["databases"] if isinstance(definitions, Mapping) else []
    ran = _names(state["jobs"], "job")
    jobs = [*ALWAYS, *(job for job in ran if job not in ALWAYS)]
    found = {"stores": ("{#STORE}", _names(state["stores"], "name")),
             "databases": ("{#DATABASE}", _names(databases, "name")), "jobs": ("{#JOB}", jobs)}
    return {f"imagewarden.{rule}": json.dumps([{macro: name} for name in names],
                                              ensure_ascii=False)
            for rule, (macro, names) in found.items()}


def fingerprint(found: Mapping[str, str]) -> str:
    """Return what changes when anything in ``found`` does."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _names(rows: object, member: str) -> Sequence[str]:
    return [str(row[member]) for row in rows if isinstance(row, Mapping)] if isinstance(
        rows, Sequence) else []
