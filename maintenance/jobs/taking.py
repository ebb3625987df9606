"""What a rescan takes out of a store, and what became of each infected image."""

import os
import time
from dataclasses import dataclass, field

from maintenance.errors import FileChanged, QuarantineError
from maintenance.jobs.rescan_report import Infected, RescanReport, Undone
from maintenance.ledger.images import Images
from maintenance.ledger.rows import ImageRow
from maintenance.settings import Store
from maintenance.shell.job import Context
from maintenance.store.brake import Braked, Intake, brake_of
from maintenance.store.identity import Stamp, key_of, stamp
from maintenance.store.intake import Finding, NotTaken
from maintenance.store.quarantine import Quarantine
from maintenance.store.tree import NotAnImage, Tree, Vanished
from maintenance.text import show
from maintenance.times import iso
from maintenance.verdict import Verdict


def wanted(context: Context) -> bool:
    """Tell whether infected images are to be taken."""
    action = context.options.action or context.config.rescan.action
    return action == "quarantine" and not context.options.dry_run


def settle(quarantine: Quarantine, images: Images, store: str) -> None:
    """Let the rows go of what a run took that was killed before it could say so.

    Before the walk: else a store whose only image was taken looks as if it were not mounted.
    """
    taken: set[tuple[bytes, int, int, int]] | None = None
    for row in images.infected():
        if taken is None:  # mostly nothing is infected, and no record has to be read
            taken = {(one.raw, one.inode, one.size, one.mtime_ns)
                     for one in (held.record for held in quarantine.held())
                     if one.store == store}
        if (row.path, *row.stamp[:3]) in taken:  # not only the inode: it may be another's now
            images.forget(row.key, row.stamp)


@dataclass(slots=True)
class Taking:
    """One run and one store. Without a quarantine, whatever is found is only reported."""

    context: Context
    store: Store
    images: Images
    report: RescanReport
    intake: Intake | None = None
    taken: int = 0
    vanished: int = 0
    stayed: dict[bytes, Infected] = field(default_factory=dict)  # by path, before the brake
    _run: str = field(default_factory=lambda: iso(time.time()) or "")
    _braked: bool = False

    @classmethod
    def into(cls, quarantine: Quarantine | None, context: Context, store: Store, images: Images,
             report: RescanReport) -> "Taking":
        """Return what takes images of ``store`` into ``quarantine``, as far as is wanted."""
        taking = cls(context, store, images, report)
        if quarantine is not None and wanted(context):
            limits = context.config.rescan
            taking.intake = Intake(quarantine, limits.quarantine_limit, limits.quarantine_max)
        return taking

    def meet(self, tree: Tree, path: bytes, scanned: Stamp, signature: str) -> Infected | None:
        """Take the infected image at ``path``, if it may be taken; say what became of it.

        Only the very file that was ``scanned`` is taken; None: nothing is there any
        more. Its row in the ledger goes after it: a run that is killed in between
        leaves that to the next.
        """
        action, ticket = "reported", None
        if self.intake is not None and tree.read_only:
            self._lose("on a read-only file system")
        if self._braked:
            action = "brake"
        elif self.intake is not None:
            try:
                ticket = self._take(tree, path, scanned, signature, self.intake)
                action = "quarantined"
            except Vanished:
                self.images.missing.vanished([key_of(path)])
                self.vanished += 1
                return None
            except Braked as brake:
                self._say_braked(str(brake))
                action = "brake"
            except (FileChanged, NotTaken, NotAnImage) as why:
                if path not in self.stayed:  # else it was met before in this run
                    self.report.left_undone(
                        Undone(self.store.name, show(path), f"not taken: {why}"))
            except QuarantineError as error:
                self._lose(str(error))
        met = Infected(self.store.name, show(path), signature, action, ticket)
        if ticket is None and self.intake is not None and not self._braked:
            self.stayed[path] = met
        return met

    def told(self, row: ImageRow) -> Infected:
        """Return what results say of an infected image that is still in the store.

        Once the brake is on, everything at the current generation was met and left: so
        a signature that matches a million images does not fill the memory with them.
        """
        braked = self._braked and row.generation == self.report.generation
        return self.stayed.get(row.path) or Infected(
            self.store.name, show(row.path), row.signature or "",
            "brake" if braked else "reported")

    def meet_known(self, tree: Tree, generation: int) -> None:
        """Meet what the ledger says is infected, unchanged and current."""
        if self.intake is None:
            return
        for row in self.images.with_verdict(Verdict.INFECTED):
            if row.generation == generation and row.path not in self.stayed:
                met = self.meet(tree, row.path, row.stamp, row.signature or "")
                if met is not None and met.ticket is not None:
                    self.report.found(met)

    def conclude(self) -> None:
        """Say it when the last image that was taken has put the brake on."""
        if self.intake is not None and self.taken and not self._braked:
            brake = brake_of(self.intake.quarantine, self.store.name)
            if brake.on:
                self._say_braked(brake.told(self.store.name))

    def _take(self, tree: Tree, path: bytes, scanned: Stamp, signature: str, intake: Intake) -> str:
        fd = tree.open(path)
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
        if stamp(info) != scanned:
            raise FileChanged("changed since it was scanned")
        finding = Finding(self.store.name, signature, self.report.generation,
                          f"{self.context.host} {self._run}")
        try:
            ticket = intake.take(tree.parent_of(path), path, info, finding)
        except OSError as error:
            raise NotTaken(error.strerror or str(error)) from None
        self.taken += 1
        self.images.forget(key_of(path), scanned)
        return ticket

    def _lose(self, why: str) -> None:
        self.intake = None
        self.context.trouble(f'store "{self.store.name}": {why}; infected images are only reported')

    def _say_braked(self, why: str) -> None:
        self._braked = True
        self.report.notices.append(f"{show(self.store.name)}: {why}")
