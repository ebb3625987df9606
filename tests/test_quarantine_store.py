"""The quarantine itself: taking, holding, settling, braking, on real file systems."""

import pytest

from maintenance.store.brake import Braked, Intake, brake_of, release
from maintenance.store.intake import Finding
from maintenance.store.quarantine import Quarantine
from maintenance.store.tree import Tree

FINDING = Finding("uploads", "Test.Bad", 1)


def test_the_limit_puts_the_brake_on_until_it_is_released(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    infos = {}
    for name in (b"a", b"b", b"c"):
        (store / name.decode()).write_bytes(b"bad")
        infos[name] = (store / name.decode()).stat()
    with Tree(store) as tree, Quarantine.open(tmp_path / "q", make=True) as quarantine:
        intake = Intake(quarantine, 2, 1000)
        tickets = [intake.take(tree.parent_of(name), name, infos[name], FINDING)
                   for name in (b"a", b"b")]
        assert [one.ticket for one in quarantine.held()] == tickets
        with pytest.raises(Braked):
            Intake(quarantine, 2, 1000).take(tree.parent_of(b"c"), b"c", infos[b"c"], FINDING)
        assert release(quarantine, "uploads")
        assert not brake_of(quarantine, "uploads").on
        Intake(quarantine, 2, 1000).take(tree.parent_of(b"c"), b"c", infos[b"c"], FINDING)
    assert not list(store.iterdir())
