"""What Zabbix is told, and which members of it become items of their own."""

from template.parts import Graph, Item, Master, Rule
from template.triggers import JOB_TRIGGERS, STORE_TRIGGERS

KNOWN = ("definitions", "rescan", "optimize", "checks")  # jobs whose runs have items from the start
EXPECTED = ("definitions", "rescan", "checks")  # of these, missed also before they ever ran

# The signed databases are as old as the newest build among them (main is built once in
# years, daily every day); the unsigned ones as the last time freshclam confirmed them.
DEFINITIONS_TIME = """\
var signed = [], daily = [], times = [];
JSON.parse(value).forEach(function (one) {
    var built = Date.parse(one.built), checked = Date.parse(one.checked);
    if (!isNaN(built)) {
        signed.push(built);
        if (/^daily\\./.test(one.name)) {
            daily.push(built);
        }
    } else if (!isNaN(checked)) {
        times.push(checked);
    }
});
if (signed.length) {
    times.push(Math.max.apply(null, daily.length ? daily : signed));
}
return times.length ? Math.min.apply(null, times) / 1000 : 0;"""
DATABASE_TIME = """\
var one = JSON.parse(value), at = Date.parse(one.built);
at = isNaN(at) ? Date.parse(one.checked) : at;
return isNaN(at) ? 0 : at / 1000;"""
# Where nobody says since when, it is as long as can be: better one alarm too many.
NEVER_SINCE = """\
var one = JSON.parse(value), at = Date.parse(one.never_since);
return !one.never ? 0 : isNaN(at) ? 1 : at / 1000;"""

# One text for alarm and reason: values of two items need not arrive in the same moment.
# send-checks that met no server tells of it when the server is back: no alarm any more.
FAILURE = """\
var run = JSON.parse(value);
if (run.outcome !== 'failed' || run.job === 'checks' && !run.server) {
    return '';
}
return run.error || 'no reason given';"""
FOUND = """\
var count = 0, images = [];
JSON.parse(value).forEach(function (one) {
    count += typeof one.infected === 'number' ? one.infected : 0;
    if (one.signature) {
        images.push(one.path + ' (' + one.signature + ')');
    }
});
count = count || images.length;
return count ? count + ': ' + images.slice(0, 10).join(', ') : '';"""


def run(job: str) -> Master:
    """Return the item for the runs of a job."""
    return Master(f"run[{job}]", f"Run: {job}", "The JSON result of each finished run, whole.")


def of_run(job: str) -> tuple[Item, ...]:
    """Return what every run of a job tells."""
    master, jobs = f"run[{job}]", f'$.jobs[?(@.job=="{job}")]'
    return (
        Item(f"outcome[{job}]", f"Outcome: {job}", master, "$.outcome", "word"),
        Item(f"failure[{job}]", f"Why the last run failed: {job}", master, "", "text",
             script=FAILURE),
        Item(f"seconds[{job}]", f"Run time: {job}", master, "$.seconds", "share", "s"),
        Item(f"last_success[{job}]", f"Last success: {job}", "state",
             f"{jobs}.last_success.first()", "time"))


UPLOADS = (
    ("clean", "clean so far"), ("infected", "infected so far"),
    ("unknown", "without a verdict so far"), ("refused", "refused by a rule so far"),
    ("off", "not scanned so far, by the switch"),
    ("accepted", "accepted without a verdict so far"),
    ("observed", "accepted so far because of observe"))

STATE = Master("state", "State", "The JSON of store-status, every five minutes.", history="7d")
MASTERS = (STATE, *(run(job) for job in KNOWN))

ITEMS = (
    Item("definitions.generation", "Definitions: generation", "state", "$.definitions.generation",
         otherwise="0"),
    Item("definitions.time", "Definitions: built, or confirmed", "state",
         "$.definitions.databases", "time", script=DEFINITIONS_TIME),
    Item("outbox.waiting", "Outbox: waiting", "state", "$.outbox.waiting"),
    Item("outbox.set_aside", "Outbox: set aside", "state", "$.outbox.set_aside"),
    Item("outbox.oldest", "Outbox: oldest", "state", "$.outbox.oldest", "time"),
    Item("quarantine.held", "Quarantine: images", "state", "$.quarantine.held"),
    Item("quarantine.bytes", "Quarantine: size", "state", "$.quarantine.bytes", units="B"),
    Item("quarantine.brake", "Quarantine: stores whose brake is on", "state",
         "$.quarantine.brake", "text", otherwise="[]"),
    Item("upload.enabled", "Uploads: scanning is on", "state", "$.upload.enabled", "flag"),
    Item("upload.engine", "Uploads: clamd answers", "state", "$.upload.engine", "flag"),
    Item("hits.total", "Hits: counted", "state", "$.hits.total", otherwise="0"),
    Item("hits.spool", "Hits: size of the spool", "state", "$.hits.spool_bytes", units="B"),
    Item("hits.waiting", "Hits: waiting since", "state", "$.hits.waiting_since", "time"),
    Item("upload.engine_old", "Uploads: clamd's definitions are too old", "state",
         "$.upload.engine_old", "flag", otherwise="false"),
    Item("upload.last_ok", "Uploads: last scanned", "state", "$.upload.last_ok", "time"),
    *(Item(f"upload.{kind}", f"Uploads: {words}", "state", f"$.upload.counts.{kind}")
      for kind, words in UPLOADS),
    *(Item(f"upload.seconds.{one}", f"Uploads: scan time, {one} of a day", "state",
           f"$.upload.seconds.{one}", "share", "s", otherwise="0")
      for one in ("p50", "p95", "p99")),
    *(item for job in KNOWN for item in of_run(job)),
    Item("definitions.freshclam", "Definitions: freshclam's outcome", "run[definitions]",
         "$.freshclam.outcome", "word"),
    Item("definitions.engine", "Definitions: loaded by clamd", "run[definitions]", "$.engine",
         "word"),
    Item("rescan.full", "Rescan: images scanned in full", "run[rescan]", "$.stores[*].full.sum()"),
    Item("rescan.delta", "Rescan: images scanned against what is new", "run[rescan]",
         "$.stores[*].delta.sum()"),
    Item("rescan.current", "Rescan: images already current", "run[rescan]",
         "$.stores[*].current.sum()"),
    Item("rescan.bytes", "Rescan: bytes scanned", "run[rescan]", "$.bytes", units="B"),
    Item("rescan.infected", "Rescan: infected images", "run[rescan]", "$.infected_total"),
    Item("undone[rescan]", "Undone: rescan", "run[rescan]", "$.undone_total"),
    Item("left[rescan]", "Left: rescan", "run[rescan]", "$.stores[*].left.sum()"),
    Item("optimize.shrunk", "Optimise: images made smaller", "run[optimize]",
         "$.stores[*].shrunk.sum()"),
    Item("optimize.kept", "Optimise: images kept as they are", "run[optimize]",
         "$.stores[*].kept.sum()"),
    Item("optimize.current", "Optimise: images already small", "run[optimize]",
         "$.stores[*].current.sum()"),
    Item("optimize.before", "Optimise: bytes before", "run[optimize]", "$.bytes_before", units="B"),
    Item("optimize.after", "Optimise: bytes after", "run[optimize]", "$.bytes_after", units="B"),
    Item("optimize.saved", "Optimise: bytes saved", "run[optimize]", "$.bytes_saved", "share", "B",
         trends="1825d"),
    Item("optimize.sandbox", "Optimise: sandbox", "run[optimize]", "$.sandbox", "word"),
    Item("undone[optimize]", "Undone: optimise", "run[optimize]", "$.undone_total"),
    Item("left[optimize]", "Left: optimise", "run[optimize]", "$.left"),
    Item("checks.sent", "Checks: results sent", "run[checks]", "$.sent"),
    Item("checks.dropped", "Checks: results dropped", "run[checks]", "$.dropped"),
)


def _of_store(member: str, name: str, kind: str = "number", units: str = "",
              otherwise: str | None = None) -> Item:
    return Item(f"store.{member}[{{#STORE}}]", f"Store {{#STORE}}: {name}", "state",
                f'$.stores[?(@.name=="{{#STORE}}")].{member}.first()', kind, units, otherwise,
                trends="1825d" if units == "B" else "365d")


STORES = Rule(
    "stores", "Stores", "One for each store of the configuration.",
    items=(
        _of_store("images", "images"),
        _of_store("clean_current", "clean by the definitions of now"),
        _of_store("clean_older", "clean by older definitions"),
        _of_store("unknown", "without a verdict"),
        _of_store("infected", "infected"),
        _of_store("never", "never checked"),
        Item("store.never_since[{#STORE}]", "Store {#STORE}: never checked, since", "state",
             '$.stores[?(@.name=="{#STORE}")].first()', "time", script=NEVER_SINCE),
        _of_store("quarantined", "in quarantine"),
        _of_store("previous_images", "images at the rescan before", otherwise="0"),
        _of_store("oldest_check", "oldest check", "time"),
        _of_store("bytes", "size", units="B"),
        _of_store("bytes_saved", "bytes saved", "share", "B"),
        Item("rescan.found[{#STORE}]", "Store {#STORE}: infected images in the last run",
             "run[rescan]", '$..[?(@.name=="{#STORE}" || @.store=="{#STORE}")]', "text",
             script=FOUND)),
    triggers=STORE_TRIGGERS,
    graphs=(
        Graph("Store {#STORE}: coverage", (
            ("store.clean_current[{#STORE}]", "43A047"), ("store.clean_older[{#STORE}]", "C0CA33"),
            ("store.never[{#STORE}]", "757575"), ("store.unknown[{#STORE}]", "FB8C00"),
            ("store.infected[{#STORE}]", "E53935")), stacked=True),
        Graph("Store {#STORE}: size and what was saved", (
            ("store.bytes[{#STORE}]", "1E88E5"), ("store.bytes_saved[{#STORE}]", "43A047")))))

DATABASES = Rule(
    "databases", "Databases", "One for each signature database.",
    items=(
        Item("database.version[{#DATABASE}]", "Database {#DATABASE}: version", "state",
             '$.definitions.databases[?(@.name=="{#DATABASE}")].version.first()', "word",
             otherwise=""),
        Item("database.signatures[{#DATABASE}]", "Database {#DATABASE}: signatures", "state",
             '$.definitions.databases[?(@.name=="{#DATABASE}")].signatures.first()'),
        Item("database.time[{#DATABASE}]", "Database {#DATABASE}: built, or confirmed", "state",
             '$.definitions.databases[?(@.name=="{#DATABASE}")].first()', "time",
             script=DATABASE_TIME)))

JOBS = Rule(
    "jobs", "Jobs",
    "One for each job that has run, but those that the template knows by name.",
    without=("{#JOB}", f"^({'|'.join(KNOWN)})$"),
    masters=(run("{#JOB}"),), items=of_run("{#JOB}"), triggers=JOB_TRIGGERS)

RULES = (STORES, DATABASES, JOBS)

GRAPHS = (
    Graph("A night: images optimised", (
        ("optimize.shrunk", "43A047"), ("optimize.kept", "757575"), ("undone[optimize]", "FB8C00"),
        ("left[optimize]", "1E88E5"))),
    Graph("A night: bytes saved", (
        ("optimize.before", "90A4AE"), ("optimize.after", "1E88E5"), ("optimize.saved", "43A047"))),
    Graph("A night: images rescanned", (
        ("rescan.full", "1E88E5"), ("rescan.delta", "43A047"), ("left[rescan]", "757575"),
        ("undone[rescan]", "FB8C00"))),
    Graph("Run times", (
        ("seconds[definitions]", "8E24AA"), ("seconds[rescan]", "1E88E5"),
        ("seconds[optimize]", "43A047"), ("seconds[checks]", "757575"))),
    Graph("Bytes saved, by run", (("optimize.saved", "43A047"),)),
    Graph("Upload scan times", (
        ("upload.seconds.p50", "43A047"), ("upload.seconds.p95", "FB8C00"),
        ("upload.seconds.p99", "E53935"))),
    Graph("Outbox", (("outbox.waiting", "1E88E5"), ("outbox.set_aside", "FB8C00"))),
)
