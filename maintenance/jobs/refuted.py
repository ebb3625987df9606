"""What a dry run found the ledger to be wrong about; the ledger itself stays as it is."""

from typing import Self

from maintenance.ledger.images import Images
from maintenance.ledger.rows import Need
from maintenance.spool import Spool
from maintenance.store.merge import Difference

BATCH = 500  # keys of one query


class Refuted:
    """Corrects counts of the ledger by what the walk has met; memory is flat."""

    def __init__(self) -> None:
        """Begin with a ledger that is right."""
        self._changed = 0
        self._wrong, self._back = Spool[bytes](), Spool[bytes]()

    def __enter__(self) -> Self:
        """Return the correction itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget what was noted."""
        self._wrong.clear()
        self._back.clear()

    def note(self, one: Difference) -> None:
        """Remember where the ledger is wrong."""
        self._changed += len(one.changed)
        self._wrong.put([image[0] for image in one.changed] + [key for key, _ in one.gone])
        self._back.put(one.back)

    def correction(self, images: Images, need: Need) -> int:
        """Return how many more images are due than the ledger says.

        A new or changed image is due; a row that it refutes, or that of an image that is
        gone, is not, whatever it says; and one that is back is due if it was.
        """
        wrong = sum(images.count_due_among(keys, need, missing=False)
                    for keys in self._wrong.batches(BATCH))
        back = sum(images.count_due_among(keys, need, missing=True)
                   for keys in self._back.batches(BATCH))
        return self._changed - wrong + back
