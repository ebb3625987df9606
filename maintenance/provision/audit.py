"""Known vulnerabilities in the locked packages, as far as PyPI tells them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.provision.children import run

NAMED = 5  # packages that a remark names


def audit(python: Path, locks: Sequence[Path]) -> str:
    """Look the locked packages up and return a remark; raises ToolError for a vulnerability.

    Not having been able to look is a remark that starts with WARNING: a check
    must work without the network, but never call unaudited packages sound.
    """
    with tempfile.TemporaryDirectory(prefix="imagewarden-audit-") as scratch:
        report = Path(scratch, "report.json")
        argv: list[str | Path] = [
            python, "-I", "-m", "pip_audit", "--require-hashes", "--disable-pip",
            "--progress-spinner=off", "--format=json", "--output", report]
        for lock in locks:
            argv += ["--requirement", lock]
        with Path(scratch, "output").open("w+", encoding="utf-8", errors="replace") as output:
            status = run(argv, output)
            output.seek(0)
            lines = output.read().split("\n")
        if not report.exists():
            reason = next(filter(None, reversed(lines)), f"status {status}")
            return f"WARNING: nothing was audited: {reason.strip()[:200]}"
        return judge(report.read_text(encoding="utf-8"))


def judge(report: str) -> str:
    """Return the remark on pip-audit's JSON report; raises ToolError for a vulnerability."""
    packages = {package["name"]: package for package in json.loads(report)["dependencies"]}
    bad = [f"{name} {package['version']}: {', '.join(hole['id'] for hole in package['vulns'])}"
           for name, package in packages.items() if package.get("vulns")]
    if bad:
        raise ToolError(f"known vulnerabilities: {'; '.join(bad)}")
    skipped = [name for name, package in packages.items() if "skip_reason" in package]
    audited = f"{len(packages) - len(skipped)} of {len(packages)} packages audited"
    if not skipped:
        return audited
    named = ", ".join(skipped[:NAMED]) + (", …" if len(skipped) > NAMED else "")
    return f"WARNING: only {audited}; PyPI does not know the rest: {named}"
