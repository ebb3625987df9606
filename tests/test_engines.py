"""The engine of a run, while what is on disk does not keep still."""

from contextlib import contextmanager

import pytest

from maintenance import config as configuration
from maintenance.jobs import engines
from maintenance.jobs.engines import DefinitionsMoved, proven_engine
from maintenance.jobs.generation import on_disk
from tests.site import LATER, body_signature

pytestmark = pytest.mark.server


@pytest.fixture
def loads(site, monkeypatch):
    """Functions to be called while an engine loads; what is left of them was not."""
    meddling, real = [], engines.private_engine

    @contextmanager
    def meddled_with(*how):
        with real(*how) as clamd:
            if meddling:
                meddling.pop(0)()
            yield clamd

    monkeypatch.setattr(engines, "private_engine", meddled_with)
    site.update()
    return meddling


def replace(site, content):
    """Write the database as freshclam does: a new file under the old name."""
    draft = site.databases / "tmp.draft"
    draft.write_text(content)
    draft.replace(site.databases / "test.ndb")


def test_what_was_written_anew_and_is_the_same_is_loaded_again(site, loads):
    same = (site.databases / "test.ndb").read_text()
    loads += [lambda: replace(site, same)] * 2
    config = configuration.load(str(site.config), ("clamav",))
    with proven_engine(config, on_disk(config)) as engine:
        assert engine.clamd.answers()
    assert loads == []


def test_what_became_another_is_not_scanned_with(site, loads):
    loads.append(lambda: replace(site, body_signature("Test.Later", LATER)))
    config = configuration.load(str(site.config), ("clamav",))
    with pytest.raises(DefinitionsMoved), proven_engine(config, on_disk(config)):
        pass
