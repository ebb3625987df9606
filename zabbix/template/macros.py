"""Every threshold, and what it is unless a host says otherwise."""

from template.parts import Macro

MACROS = (
    Macro("DEFINITIONS.AGE.WARN", "2d", "Age of the definitions that is a warning."),
    Macro("DEFINITIONS.AGE.HIGH", "7d", "Age of the definitions that is an alarm."),
    Macro("NODATA", "30m", "Silence of a host that is an alarm; the state comes every 5 minutes."),
    Macro("RUN.AGE", "2d", "How long a job may be without success. Context: the job."),
    Macro("RUN.AGE", "6h", "It runs every hour.", "definitions"),
    Macro("RUN.AGE", "1h", "It runs every 5 minutes.", "checks"),
    Macro("RUN.AGE", "1h", "It runs every minute.", "hits"),
    Macro("UNCHECKED.AGE", "2d",
          "How long images may be without a verdict, or never checked. Context: the store."),
    Macro("SHRINK.SHARE", "0.1",
          "The share of its images that a store may lose between two rescans. Context: the store."),
    Macro("OUTBOX.MAX", "1000", "Results that may wait on the host; an outage of a day is 600."),
    Macro("UNDONE.MAX", "100", "Images that a run may leave undone. Context: the job."),
    Macro("UNDONE.MAX", "10", "Images without a verdict that are an alarm at once.", "rescan"),
    Macro("LEFT.MAX", "1000", "Images that may be left when time is up. Context: the job."),
    Macro("LEFT.AGE", "3d", "How long more than that may be left. Context: the job."),
    Macro("LEFT.AGE", "14d", "A large store takes a dozen nights at first.", "optimize"),
    Macro("UPLOAD.WANTED", "1", "0: this host need not scan uploads."),
    Macro("UPLOAD.AGE", "10m", "How long the clamd of the uploads may be silent."),
    Macro("HITS.AGE", "15m", "How long hits may wait to be counted."),
    Macro("UPLOAD.UNKNOWN.MAX", "10", "Uploads of an hour that may be without a verdict."),
    Macro("SANDBOX.WANTED", "1", "0: this host need not have a sandbox."),
)
