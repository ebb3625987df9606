"""doctor: what the configuration needs, one row each, with the repair."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from tabulate import tabulate

from maintenance.errors import Exit
from maintenance.jobs import examinations, examinations_clamav, host
from maintenance.jobs.examinations import Finding
from maintenance.jobs.hits_examination import hits
from maintenance.jobs.zabbix_examination import zabbix
from maintenance.shell.job import Context, Job

EXAMINATIONS: tuple[Callable[[Context], Iterator[Finding]], ...] = (
    examinations.programs, examinations.image_tools, examinations.directories, examinations.stores,
    examinations.quarantines, examinations_clamav.definitions, examinations_clamav.databases,
    examinations_clamav.engine, examinations_clamav.uploads, examinations.ledger,
    zabbix, hits, host.sandbox, host.confinement, host.timetable)


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """One finding for each thing that was examined."""

    findings: tuple[Finding, ...]

    def status(self) -> Exit:
        """Return 1 when something that is needed does not work."""
        bad = any(one.state == "failed" for one in self.findings)
        return Exit.FAILED if bad else Exit.DONE

    def members(self) -> dict[str, object]:
        """Return the findings."""
        return {"checks": [asdict(one) for one in self.findings]}

    def summary(self) -> Iterator[str]:
        """Yield a table, then the repairs."""
        yield tabulate([[one.state, one.check, one.detail] for one in self.findings],
                       tablefmt="plain", disable_numparse=True)
        for one in self.findings:
            if one.repair:
                yield f"repair {one.check}: {one.repair}"

    def alerts(self) -> Iterator[str]:
        """Yield nothing: what is shown says it all."""
        yield from ()


def doctor(context: Context) -> DoctorReport:
    """Examine everything; one failure does not hide the next."""
    return DoctorReport(tuple(one for examine in EXAMINATIONS for one in examine(context)))


JOB = Job(script="doctor", name="doctor", run=doctor, records=False, shows=True,
          sections=("store", "clamav", "definitions", "upload", "zabbix", "hits"),
          purpose="Check every dependency and permission that the configuration needs.")
