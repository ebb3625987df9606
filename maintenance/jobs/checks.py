"""send-checks: the state and what waits in the outbox, to Zabbix."""

import argparse
import time
from collections.abc import Mapping

from maintenance.errors import Busy, MonitoringError
from maintenance.jobs.checks_report import ChecksReport, Discovered
from maintenance.jobs.situation import STATE, Situation
from maintenance.jobs.upload_counts import fold
from maintenance.monitoring import discovery
from maintenance.monitoring.delivery import Delivery, pending
from maintenance.shell.handover import delivery
from maintenance.shell.job import Context, Job
from maintenance.shell.purging import purge
from maintenance.text import show
from maintenance.times import DAY, Deadline, epoch, iso

STATES = 2016  # that wait at most: a week of one every five minutes
AT_ONCE = 60.0  # seconds after which the rest of a long outbox is left to the next run
AGAIN = 3600.0 - 60  # seconds between discoveries; a minute for runs that start unevenly
PURGING = 30.0  # seconds for telling caches what other jobs had no time to tell
RUNS_KEPT = 30 * DAY


def checks(context: Context) -> ChecksReport:
    """Compute the state, discover, and empty the outbox."""
    report = ChecksReport()
    context.report = report
    options = context.options
    if options.print:
        options.dry_run = True  # nothing is sent, and so there is nothing to record
    now = time.time()
    if not options.dry_run:
        context.ledger.forget_runs(now - RUNS_KEPT)
        purge(context, PURGING)
        with context.going_on():
            report.folded = fold(context.config, context.ledger.uploads, now)
    if not context.config.zabbix.servers and not options.print:
        return report
    situation = Situation.of(context, now)
    if options.dry_run:
        report.form = options.print
        report.values = [*situation.discovered(), *pending(context.ledger.outbox, context.host),
                         *situation.told()]
    else:
        for part in situation.state:
            context.ledger.outbox.put(STATE, part, now, keep=STATES * len(situation.state))
        _send(context, situation, report)
    report.waiting, report.set_aside, _ = context.ledger.outbox_state()
    return report


def _send(context: Context, situation: Situation, report: ChecksReport) -> None:
    before = context.ledger.last_result("checks")
    turn = Deadline.after(context.config.zabbix.timeout)
    try:
        with delivery(context, turn, Deadline.after(AT_ONCE)) as outgoing:
            try:
                outgoing.bound()  # first: while Zabbix is away there is no second step
                report.discovery = _discover(context, situation, before, outgoing)
                outgoing.run()
            finally:
                report.take(outgoing)
    except Busy:
        context.hands_over = False
        context.log.info("another run is sending; the rest is left to it")
    except MonitoringError as error:
        context.hands_over = False  # once a run is enough
        context.trouble(str(error))
    else:
        _complain(context, before, report)


def _discover(context: Context, situation: Situation, before: Mapping[str, object],
              outgoing: Delivery) -> Discovered:
    """Tell Zabbix what there is: when that changed, once an hour, or when asked to."""
    now = time.time()
    mark = discovery.fingerprint(situation.rules)
    last = Discovered.of(before.get("discovery"))
    recent = last.sent is not None and 0 <= now - epoch(last.sent) < AGAIN
    if last.fingerprint == mark and recent and not context.options.discovery:
        return Discovered("current", mark, last.sent)
    if outgoing.send(situation.discovered()) < len(situation.rules):
        return Discovered("refused", mark, None)
    return Discovered("sent", mark, iso(now))


def _complain(context: Context, before: Mapping[str, object], report: ChecksReport) -> None:
    """Say what Zabbix refuses: always when it is everything, else when that is new."""
    refused = sorted(report.refused)
    if report.discovery.outcome == "refused":
        refused.append("discovery")
    report.refused_items = refused
    if not refused:
        return
    line = (f'{report.server}: refuses values of host "{show(context.host)}": {", ".join(refused)};'
            " is the template linked to it?")
    if report.sent == 0:
        context.trouble(line)
    elif refused != before.get("refused_items"):
        report.complaint = line


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--print", nargs="?", const="json", choices=("json", "sender"),
                        help="show all values instead of sending them: as JSON, or as"
                             " zabbix_sender -T -N -i reads them")
    parser.add_argument("--discovery", action="store_true",
                        help="send discovery now; otherwise when it changed, and hourly")


JOB = Job(script="send-checks", name="checks", run=checks, options=_options, changes=True,
          sections=("store", "clamav", "upload", "zabbix"),
          locked=lambda options: not options.print,
          purpose="Send the state, and what waits in the outbox, to Zabbix.")
