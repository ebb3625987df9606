"""Alarms: what they wait for, and what they tell the person who is called at night."""

from template.parts import Trigger

AVERAGE, HIGH, INFO, WARNING = "AVERAGE", "HIGH", "INFO", "WARNING"

LOOK = "`imagewarden-store-status` shows where things stand, `imagewarden-doctor` what is broken."
LOG = "The log is /var/log/imagewarden/{job}.log."
RUNS = {
    "definitions": "`imagewarden-update-definitions`",
    "rescan": "`imagewarden-rescan-store`",
    "optimize": "`imagewarden-optimize-images --now`",
    "checks": "`imagewarden-send-checks`"}


def failed(job: str, what: str) -> Trigger:
    """Return the alarm for a run of ``job`` that failed."""
    return Trigger(
        f"failed[{job}]", f"Job {job}: the last run failed",
        f"length(last(@failure[{job}]))>0", AVERAGE,
        f"A run of {job} could not do its work. {what} The alarm's name ends with the reason.",
        f"{LOG.format(job=job)} `imagewarden-doctor` names the repair for what it finds. Then run"
        f" {RUNS.get(job, 'the job')} by hand; when it ends well, this alarm closes.",
        after=("nodata",) if job == "checks" else (), more=": {ITEM.VALUE1}")


def overdue(job: str, *, expected: bool) -> Trigger:
    """Return the alarm for a job that does not run, or not with success."""
    age = f'{{$IMAGEWARDEN.RUN.AGE:"{job}"}}'
    success = f"last(@last_success[{job}])"
    never = f" or ({success}=0 and count(@last_success[{job}],7d:now-{age})>0)"
    return Trigger(
        f"overdue[{job}]", f"Job {job}: no success for longer than {age}",
        f"({success}>0 and now()-{success}>{age}){never if expected else ''}", AVERAGE,
        f"The job {job} did not end well for longer than {age}, or never did, and no failed run was"
        " reported either: it is not started, always finds its lock held, or is killed.",
        f"Look into /etc/cron.d/imagewarden (or `systemctl list-timers 'imagewarden*'`) and"
        f" /var/log/imagewarden/{job}.log. Run {RUNS.get(job, 'the job')} by hand: it says what"
        " hinders it.",
        after=(f"failed[{job}]", "nodata"))


TRIGGERS = (
    Trigger(
        "nodata", "No data for longer than {$IMAGEWARDEN.NODATA}",
        "nodata(@state,{$IMAGEWARDEN.NODATA})=1", HIGH,
        "The host has told nothing for longer than {$IMAGEWARDEN.NODATA}. It is down, cron does"
        " not start send-checks, the network is cut, or Zabbix refuses what is sent.",
        "On the host, `imagewarden-send-checks` says what is wrong in one line, and"
        " `imagewarden-doctor` whether the server takes what is sent. Results wait there and"
        " arrive with their own time when it works again."),
    Trigger(
        "definitions.high",
        "Virus definitions are older than {$IMAGEWARDEN.DEFINITIONS.AGE.HIGH}",
        "last(@definitions.time)>0"
        " and now()-last(@definitions.time)>{$IMAGEWARDEN.DEFINITIONS.AGE.HIGH}", HIGH,
        "No newer definitions came for longer than {$IMAGEWARDEN.DEFINITIONS.AGE.HIGH}: what is"
        " new since then is found neither in uploads nor in the stores.",
        "`imagewarden-update-definitions` and /var/log/imagewarden/definitions.log say why: the"
        " mirror is out of reach, asks for patience (cool-down), or the disk is full.",
        after=("nodata",), opdata="{ITEM.LASTVALUE1}"),
    Trigger(
        "definitions.warn",
        "Virus definitions are older than {$IMAGEWARDEN.DEFINITIONS.AGE.WARN}",
        "last(@definitions.time)>0"
        " and now()-last(@definitions.time)>{$IMAGEWARDEN.DEFINITIONS.AGE.WARN}", WARNING,
        "No newer definitions came for longer than {$IMAGEWARDEN.DEFINITIONS.AGE.WARN}.",
        "No haste: `imagewarden-update-definitions` and /var/log/imagewarden/definitions.log say"
        " why.", after=("definitions.high", "failed[definitions]", "overdue[definitions]",
                        "nodata"), opdata="{ITEM.LASTVALUE1}"),
    failed("definitions", "The definitions stay as they are."),
    failed("rescan", "Images keep the verdicts that they had."),
    failed("optimize", "Nothing was lost: an image is the old or the new one."),
    failed("checks", "Results may wait."),
    overdue("definitions", expected=True),
    overdue("rescan", expected=True),
    overdue("optimize", expected=False),
    overdue("checks", expected=True),
    Trigger(
        "undone[rescan]",
        'Rescan: more than {$IMAGEWARDEN.UNDONE.MAX:"rescan"} images could not be checked',
        'last(@undone[rescan])>{$IMAGEWARDEN.UNDONE.MAX:"rescan"}', WARNING,
        "The last rescan has no verdict on these images: too large, not readable, changed while"
        " they were read, or the engine did not answer.",
        "/var/log/imagewarden/rescan.log names each with its reason. When it is always the engine:"
        " `imagewarden-doctor`. When it is their size: [clamav] max_file_size.",
        after=("failed[rescan]",), opdata="{ITEM.LASTVALUE1}"),
    Trigger(
        "undone[optimize]",
        'Optimise: more than {$IMAGEWARDEN.UNDONE.MAX:"optimize"} images could not be worked on',
        'last(@undone[optimize])>{$IMAGEWARDEN.UNDONE.MAX:"optimize"}', WARNING,
        "The last night could not work on these images; they are untouched. A few damaged ones are"
        " normal and are named once.",
        "/var/log/imagewarden/optimize.log names each with its reason. When all have the same:"
        " `imagewarden-doctor`.", after=("failed[optimize]",), opdata="{ITEM.LASTVALUE1}"),
    *(Trigger(
        f"left[{job}]",
        f'{title}: images are left for longer than {{$IMAGEWARDEN.LEFT.AGE:"{job}"}}',
        f'min(@left[{job}],{{$IMAGEWARDEN.LEFT.AGE:"{job}"}})>'
        f'{{$IMAGEWARDEN.LEFT.MAX:"{job}"}} and'
        f' count(@left[{job}],7d:now-{{$IMAGEWARDEN.LEFT.AGE:"{job}"}})>0', WARNING,
        f'For longer than {{$IMAGEWARDEN.LEFT.AGE:"{job}"}} every run has left more than'
        f' {{$IMAGEWARDEN.LEFT.MAX:"{job}"}} images that are due: the work does not get done in'
        " the time that it has.", todo, after=(f"failed[{job}]",), opdata="{ITEM.LASTVALUE1}")
      for job, title, todo in (
          ("rescan", "Rescan", "Give it more time ([rescan] time_limit, window) or let the system's"
           " clamd do it (docs/configuration.md). During the first nights of a large store this is"
           " normal: `imagewarden-store-status` shows how far it is."),
          ("optimize", "Optimise", "Widen [optimize] window, or set png = \"off\", where most of"
           " the time goes. During the first nights of a large store this is normal."))),
    Trigger(
        "brake", "Quarantine: the brake is on",
        'last(@quarantine.brake)<>"[]"', HIGH,
        "So many images were to be taken into quarantine that nothing more is taken from these"
        " stores: either one bad signature calls everything infected, or there is an outbreak."
        " What is infected beyond it is still being served.",
        "`imagewarden-quarantine list` shows the signatures. A wrong one: put its name into a local"
        " .ign2 file beside the databases, then `imagewarden-quarantine restore TICKET`. A right"
        " one, or when that is done: `imagewarden-quarantine release --store NAME`; the next"
        " rescan goes on. This alarm closes with the brake.", more=": {ITEM.VALUE1}"),
    Trigger(
        "outbox", "More than {$IMAGEWARDEN.OUTBOX.MAX} results wait for Zabbix",
        "last(@outbox.waiting)>{$IMAGEWARDEN.OUTBOX.MAX}", WARNING,
        "Results of this host do not reach Zabbix as fast as they come about: it refuses some (an"
        " item is missing or disabled), or was away for long and they are just arriving.",
        "`imagewarden-send-checks --json` names what is refused. After an outage wait ten minutes:"
        " it empties by itself.", opdata="{ITEM.LASTVALUE1}"),
    Trigger(
        "dropped", "Results for Zabbix were dropped", "last(@checks.dropped)>0", INFO,
        "Zabbix did not take these results for a month, or there were too many: history has a"
        " hole, the stores do not.",
        "Nothing for the store. The alarm closes with the next run of send-checks.",
        opdata="{ITEM.LASTVALUE1}"),
    Trigger(
        "upload.off", "Uploads are not scanned: the switch is off",
        "last(@upload.enabled)=0 and {$IMAGEWARDEN.UPLOAD.WANTED}=1", WARNING,
        "[upload] enabled = false: the application saves uploads that nobody has looked at. Only"
        " the next rescan checks them.",
        "Switch it on in /etc/imagewarden.toml when whatever it was switched off for is over; no"
        " restart is needed. A host without uploads: set {$IMAGEWARDEN.UPLOAD.WANTED} to 0 for it.",
        after=("nodata",)),
    Trigger(
        "upload.away", "Uploads cannot be scanned: clamd does not answer",
        "last(@upload.enabled)=1 and max(@upload.engine,{$IMAGEWARDEN.UPLOAD.AGE})=0"
        " and {$IMAGEWARDEN.UPLOAD.WANTED}=1", HIGH,
        "The clamd that uploads ask did not answer for {$IMAGEWARDEN.UPLOAD.AGE}. By [upload]"
        " when_unavailable uploads are refused, or saved without a look at them.",
        "`systemctl restart clamav-daemon`, then /var/log/clamav/clamav.log; `imagewarden-doctor`"
        " says when it answers. A host without uploads: set {$IMAGEWARDEN.UPLOAD.WANTED} to 0 for"
        " it.", after=("nodata",)),
    Trigger(
        "hits", "Hits wait for longer than {$IMAGEWARDEN.HITS.AGE}",
        "last(@hits.waiting)>0 and now()-last(@hits.waiting)>{$IMAGEWARDEN.HITS.AGE}", WARNING,
        "The application counts hits and nobody brings them into the database: the spool grows."
        " No hit is lost as long as it has room.",
        "`imagewarden-flush-hits` says why: the database is away, or cron does not start it (a line"
        " for it stands in docs/hits.md).", after=("nodata",), opdata="{ITEM.LASTVALUE1}"),
    Trigger(
        "upload.old", "Uploads are scanned with definitions that are too old",
        "last(@upload.engine_old)=1 and {$IMAGEWARDEN.UPLOAD.WANTED}=1", HIGH,
        "The clamd that uploads ask works with definitions that are older than those on disk by"
        " more than [definitions] fail_age: what is new since then is not found in uploads.",
        "`systemctl restart clamav-daemon`; /var/log/clamav/clamav.log says why it did not"
        " reload.", after=("nodata", "upload.away")),
    Trigger(
        "upload.unknown",
        "More than {$IMAGEWARDEN.UPLOAD.UNKNOWN.MAX} uploads of an hour got no verdict",
        "max(@upload.unknown,1h)-min(@upload.unknown,1h)>{$IMAGEWARDEN.UPLOAD.UNKNOWN.MAX}",
        WARNING,
        "clamd did not answer in time, not at all, or reached a limit. By [upload]"
        " when_unavailable these uploads were refused, or saved without a look at them.",
        "`imagewarden-store-status --json` counts the reasons under upload. For time-outs look at"
        " the host's load and at [upload] timeout, for limits at `imagewarden-doctor`.",
        after=("nodata", "upload.away")),
    Trigger(
        "sandbox", "Images are parsed without a sandbox",
        'last(@optimize.sandbox)="off" and {$IMAGEWARDEN.SANDBOX.WANTED}=1', WARNING,
        "The last night's images were read under limits only: bubblewrap is not installed, not"
        " permitted here, or switched off. A hostile image has more to hold on to.",
        "`apt-get install bubblewrap`; `imagewarden-doctor` says whether it works. Where it cannot:"
        " set {$IMAGEWARDEN.SANDBOX.WANTED} to 0 for this host."),
)

STORE_TRIGGERS = (
    Trigger(
        "found", "Store {#STORE}: infected images found",
        "length(last(@rescan.found[{#STORE}]))>0", HIGH,
        "A rescan found infected images in the store {#STORE}. With [rescan] action ="
        " \"quarantine\" they were taken out; else they are still being served.",
        "`imagewarden-quarantine list` and `imagewarden-store-status`; /var/log/imagewarden/"
        "rescan.log names image and signature. Look at one: `imagewarden-quarantine show TICKET`."
        " Taken by mistake: `imagewarden-quarantine restore TICKET`. Find out how it came in."
        " Close this alarm by hand when it is dealt with: it stays until then.",
        more=": {ITEM.VALUE1}", by_hand=True),
    Trigger(
        "infected", "Store {#STORE}: infected images are in it",
        "last(@store.infected[{#STORE}])>0", HIGH,
        "Infected images lie in the store {#STORE} and can be fetched by its visitors.",
        "`imagewarden-rescan-store --store NAME --action quarantine` takes them out;"
        " `imagewarden-quarantine list` shows what was taken. Close this alarm by hand.",
        after=("found",), opdata="{ITEM.LASTVALUE1}", by_hand=True),
    Trigger(
        "unknown",
        'Store {#STORE}: images without a verdict for longer than'
        ' {$IMAGEWARDEN.UNCHECKED.AGE:"{#STORE}"}',
        'min(@store.unknown[{#STORE}],{$IMAGEWARDEN.UNCHECKED.AGE:"{#STORE}"})>0 and'
        ' count(@store.unknown[{#STORE}],7d:now-{$IMAGEWARDEN.UNCHECKED.AGE:"{#STORE}"})>0',
        WARNING,
        "For so long there was no moment without images in the store {#STORE} about which the"
        " engine could say nothing. They do not count as clean.",
        "`imagewarden-rescan-store --store NAME` asks again and names them with the reason: larger"
        " than [clamav] max_file_size, not readable, an engine that does not answer.",
        after=("undone[rescan]", "failed[rescan]", "overdue[rescan]"), opdata="{ITEM.LASTVALUE1}"),
    Trigger(
        "never",
        'Store {#STORE}: images never checked for longer than'
        ' {$IMAGEWARDEN.UNCHECKED.AGE:"{#STORE}"}',
        "last(@store.never[{#STORE}])>0 and now()-last(@store.never_since[{#STORE}])>"
        '{$IMAGEWARDEN.UNCHECKED.AGE:"{#STORE}"}', WARNING,
        "No engine has ever looked at these images of the store {#STORE} in their present form.",
        "`imagewarden-rescan-store --store NAME` checks them first of all. During the first nights"
        " of a large store this is normal: `imagewarden-store-status` shows how far it is.",
        after=("left[rescan]", "failed[rescan]", "overdue[rescan]", "nodata"),
        opdata="{ITEM.LASTVALUE1}"),
    Trigger(
        "shrink", "Store {#STORE}: it lost many images",
        "last(@store.previous_images[{#STORE}])>0 and last(@store.images[{#STORE}])<"
        "last(@store.previous_images[{#STORE}])*"
        '(1-{$IMAGEWARDEN.SHRINK.SHARE:"{#STORE}"})', AVERAGE,
        "The store {#STORE} has fewer images than at the complete rescan before, by more than the"
        ' share {$IMAGEWARDEN.SHRINK.SHARE:"{#STORE}"}: somebody deleted them, or a part of it is'
        " not mounted.",
        "Look whether they were to go. If not: what is mounted (`findmnt`), then the backup. The"
        " alarm closes with the next complete rescan, which takes what it meets for granted.",
        opdata="{ITEM.LASTVALUE2} of {ITEM.LASTVALUE1}"),
)

JOB_TRIGGERS = (
    failed("{#JOB}", "What it does is not done."),
    overdue("{#JOB}", expected=False),
)
