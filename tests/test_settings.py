"""Settings: how values are read and written, and how they have to agree."""

import copy
import pickle
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.errors import ConfigError
from maintenance.settings import Clamav, Config, Duration, Share, Size, Store, Timeout, Zabbix

UPLOADS = Store(name="uploads", path=Path("/srv/uploads"))
CONFIG = Config(state=Path("/var/lib/imagewarden"), store=(UPLOADS,))


@pytest.mark.parametrize(("text", "seconds"), [
    ("0", 0), ("0s", 0), ("90s", 90), ("10m", 600), ("4h", 14400), ("7d", 604800),
    ("0.5s", 0.5), ("1.5h", 5400), ("36500d", 36500 * 86400),
])
def test_a_duration_is_seconds(text, seconds):
    assert Duration(text) == seconds


@pytest.mark.parametrize("text", [
    "", "90", "4 apples", "s", "-1s", "+1s", "1e3s", "nan", "inf", "1w", "1S", " 1s", "1s ", "1s\n",
    "1m30s", "٣s", "1.s", ".5s", "0.0001s", "1_0s", "1\0s",
])
def test_what_is_no_duration_is_refused_and_quoted(text):
    with pytest.raises(ValueError, match="is not a duration such as") as refused:
        Duration(text)
    assert str(refused.value).startswith(repr(text))


@pytest.mark.parametrize("text", ["36501d", "999999999999d"])
def test_a_duration_beyond_all_dates_is_refused(text):
    with pytest.raises(ValueError, match='is longer than "36500d"'):
        Duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "2d"])
def test_a_timeout_has_to_be_one_that_a_socket_can_wait_for(text):
    with pytest.raises(ValueError, match='must be above zero and at most "1d"'):
        Timeout(text)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0"), (1, "1s"), (90, "90s"), (120, "2m"), (3600, "1h"), (86400, "1d"), (604800, "7d"),
    (0.25, "0.25s"), (36000, "10h"),
])
def test_a_duration_prints_as_an_admin_would_write_it(seconds, text):
    assert str(Duration(seconds)) == f"{Duration(seconds)}" == text


@given(st.integers(0, 36500 * 86400 * 1000) | st.integers(0, 36500).map(lambda d: d * 86400000))
def test_a_duration_survives_being_written_and_read(milliseconds):
    seconds = milliseconds / 1000
    assert Duration(str(Duration(seconds))) == seconds


@pytest.mark.parametrize(("text", "number"), [
    ("0", 0), ("512", 512), ("1K", 1024), ("10M", 10 * 2**20), ("2G", 2 * 2**30),
    ("1.5G", 3 * 2**29), ("1T", 2**40),
])
def test_a_size_is_bytes_in_powers_of_1024(text, number):
    assert Size(text) == number


@pytest.mark.parametrize("text", ["", "M", "10 M", "10MB", "10m", "-1", "1e3", "10%", "10M\n"])
def test_what_is_no_size_is_refused_and_quoted(text):
    with pytest.raises(ValueError, match='is not a size such as "10M" or "2G"') as refused:
        Size(text)
    assert str(refused.value).startswith(repr(text))


def test_a_size_no_file_can_have_is_refused():
    with pytest.raises(ValueError, match="larger than any file"):
        Size("999999999999999T")


@given(st.integers(0, 10**15 - 1)
       | st.builds(lambda n, unit: n * unit, st.integers(0, 8191), st.sampled_from(
           [2**10, 2**20, 2**30, 2**40])))
def test_a_size_survives_being_written_and_read(number):
    assert Size(str(Size(number))) == number


@given(st.integers(0, 100_000))
def test_a_share_survives_being_written_and_read(thousandths):
    text = f"{thousandths / 1000:.3f}%"
    assert Share(str(Share(text))) == Share(text)


def test_a_share_is_a_part_of_one():
    assert (Share("0.5%"), Share("100%"), str(Share("0.5%"))) == (0.005, 1.0, "0.5%")
    with pytest.raises(ValueError, match="'100.001%' is more than 100%"):
        Share("100.001%")
    with pytest.raises(ValueError, match="'0.5' is not a share such as \"0.5%\""):
        Share("0.5")


@pytest.mark.parametrize("value", [Duration("4h"), Timeout("3s"), Size("10M"), Share("0.5%")])
def test_a_value_can_be_copied_to_another_process(value):
    for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert twin == value
        assert type(twin) is type(value)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        CONFIG.rescan.action = "quarantine"


def test_places_follow_from_state_unless_they_are_set():
    assert CONFIG.quarantine_of(UPLOADS) == Path("/var/lib/imagewarden/quarantine/uploads")
    assert CONFIG.own_databases == Path("/var/lib/imagewarden/databases")
    assert CONFIG.upload_spool == Path("/var/lib/imagewarden/spool/upload")
    assert CONFIG.hits_spool == Path("/var/lib/imagewarden/spool/hits")
    assert CONFIG.hits_database == "sqlite:////var/lib/imagewarden/hits.sqlite"
    elsewhere = msgspec.structs.replace(
        CONFIG,
        store=(msgspec.structs.replace(UPLOADS, quarantine=Path("/srv/q")),),
        upload=msgspec.structs.replace(CONFIG.upload, spool=Path("/run/u")),
        hits=msgspec.structs.replace(CONFIG.hits, spool=Path("/run/h"), database="sqlite:///x"),
    )
    assert elsewhere.quarantine_of(elsewhere.store[0]) == Path("/srv/q")
    assert (elsewhere.upload_spool, elsewhere.hits_spool) == (Path("/run/u"), Path("/run/h"))
    assert elsewhere.hits_database == "sqlite:///x"


@pytest.mark.parametrize(("socket", "address"), [
    ("/run/clamd", Path("/run/clamd")),
    ("tcp://127.0.0.1:3310", ("127.0.0.1", 3310)),
    ("tcp://[::1]:3310", ("::1", 3310)),
    ("tcp://clamd.example:65535", ("clamd.example", 65535)),
])
def test_an_engines_address_is_a_path_or_a_host_with_its_port(socket, address):
    assert Clamav(socket=socket).address == address


def store(name="other", path="/srv/other", **settings):
    return Store(name=name, path=Path(path),
                 **{key: value if key == "max_side" else Path(value)
                    for key, value in settings.items()})


@pytest.mark.parametrize(("stores", "line"), [
    ([], "store: at least one [[store]] is required"),
    ([UPLOADS, store("uploads")], 'store "uploads": name: another store has it too'),
    ([UPLOADS, store(path="/srv/uploads")],
     'store "uploads": path: /srv/uploads lies inside the path of store "other"'),
    ([UPLOADS, store(path="/srv/uploads/deep/er")],
     'store "uploads": path: /srv/uploads contains the path of store "other"'),
    ([store(quarantine="/srv/other/q")],
     'store "other": quarantine: /srv/other/q lies inside the path of store "other"'),
    ([store(quarantine="/srv/other")],
     'store "other": quarantine: /srv/other lies inside the path of store "other"'),
    ([store(quarantine="/srv")],
     'store "other": quarantine: /srv contains the path of store "other"'),
    ([UPLOADS, store(quarantine="/srv/uploads/q")],
     'store "other": quarantine: /srv/uploads/q lies inside the path of store "uploads"'),
    ([store(path="/var/lib/imagewarden")],
     'store "other": quarantine: /var/lib/imagewarden/quarantine/other lies inside the path of '
     'store "other"'),
    ([store(originals="/srv/other/o")],
     'store "other": originals: /srv/other/o lies inside the path of store "other"'),
])
def test_stores_and_what_leaves_them_must_lie_apart(stores, line):
    with pytest.raises(ConfigError) as refused:
        Config(state=Path("/var/lib/imagewarden"), store=tuple(stores))
    assert str(refused.value) == line


def test_stores_whose_names_only_begin_alike_lie_apart():
    neighbours = (UPLOADS, store(path="/srv/uploads2", quarantine="/srv/uploads.q"))
    assert Config(state=Path("/s"), store=neighbours).store == neighbours


def test_lossy_steps_need_a_place_for_originals():
    with pytest.raises(ConfigError, match='^store "other": originals: required for lossy steps$'):
        store(max_side=100)
    assert store(max_side=100, originals="/srv/o").max_side == 100


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "\u202e"])
def test_a_store_name_has_to_be_printable_and_the_complaint_is(name):
    with pytest.raises(ConfigError, match="name: must be printable") as refused:
        store(name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("settings", "line"), [
    ({"tls": "psk"}, 'zabbix.psk_identity: required with tls = "psk"'),
    ({"tls": "psk", "psk_identity": "x"}, 'zabbix.psk_file: required with tls = "psk"'),
    ({"tls": "cert"}, 'zabbix.ca_file: required with tls = "cert"'),
    ({"tls": "cert", "ca_file": Path("/c"), "key_file": Path("/k")},
     'zabbix.cert_file: required with tls = "cert"'),
])
def test_encryption_needs_its_files(settings, line):
    with pytest.raises(ConfigError) as refused:
        Zabbix(**settings)
    assert str(refused.value) == line
