"""Things that wait in a file come out as they went in."""

import os

from hypothesis import given
from hypothesis import strategies as st

from maintenance.spool import Spool

THINGS = st.lists(st.one_of(st.binary(), st.text(), st.integers(), st.floats(allow_nan=False),
                            st.none(), st.tuples(st.binary(), st.none() | st.integers())))


@given(batches=st.lists(THINGS), size=st.integers(1, 5))
def test_what_waits_comes_out_in_order_and_in_any_portions(batches, size):
    everything = [thing for batch in batches for thing in batch]
    with Spool() as spool:
        for batch in batches:
            spool.put(batch)
            assert list(spool) == everything[:spool.waiting]
        assert spool.waiting == len(everything)
        next(iter(spool), None)
        spool.put([b"later"])
        everything.append(b"later")
        portions = list(spool.batches(size))
        assert [thing for portion in portions for thing in portion] == everything
        assert {len(portion) for portion in portions[:-1]} <= {size}
        spool.clear()
        assert (list(spool), spool.waiting) == ([], 0)
        spool.put([b"again"])
        assert list(spool) == [b"again"]


def test_nothing_takes_no_file_and_the_file_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    with Spool() as spool:
        spool.put([])
        assert list(spool) == []
        assert len(os.listdir("/proc/self/fd")) == before
        spool.put([1])
        assert len(os.listdir("/proc/self/fd")) == before + 1
        assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == before
