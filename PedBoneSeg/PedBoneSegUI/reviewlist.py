"""The slices of a result, in order of expected errors."""

from slicer.i18n import tr as _

from . import segmentations


class ReviewList:
    """Walks through the worker's list. What was seen is kept in the segmentation's memory, and so in the scene.

    A position counts in this list; `index` is the slice's number on the volume's own grid, across `axis`.
    """

    def __init__(self, segmentation) -> None:
        self.segmentation = segmentation
        memory = segmentations.memoryOf(segmentation)
        self.slices: list[dict] = memory.get("slices") or []
        self.shares = [float(entry.get("share") or 0.0) for entry in self.slices]
        self.axis: int = memory.get("axis", 2)
        self.seen: list[int] = list(memory.get("seen") or [])  # positions that were shown
        # Positions that were accepted; scenes saved by older versions have them under "right".
        self.accepted: list[int] = list(memory.get("accepted", memory.get("right")) or [])
        self.position = int(memory.get("position", -1))

    @property
    def current(self) -> dict | None:
        return self.slices[self.position] if 0 <= self.position < len(self.slices) else None

    @property
    def index(self) -> int:
        return self.current["index"]

    def goTo(self, position: int) -> None:
        """Moves to a position of the list, not beyond its ends, and marks the slice as seen."""
        if self.slices:
            self.position = min(max(position, 0), len(self.slices) - 1)
            if self.position not in self.seen:
                self.seen.append(self.position)
            segmentations.remember(self.segmentation, seen=self.seen, accepted=self.accepted, position=self.position)

    def accept(self) -> None:
        """Marks the current slice as accepted and moves to the next one that is not accepted yet."""
        if self.current is not None and self.position not in self.accepted:
            self.accepted.append(self.position)
        left = [position for position in range(len(self.slices)) if position not in self.accepted]
        self.goTo(next((position for position in left if position > self.position), left[0] if left else self.position))

    @property
    def complete(self) -> bool:
        return bool(self.slices) and set(self.accepted) >= set(range(len(self.slices)))

    @property
    def shareSeen(self) -> float:
        """The expected part of all errors that lies in the slices seen so far, 0 to 1."""
        before = [0.0, *self.shares]
        return sum(share - before[position] for position, share in enumerate(self.shares) if position in self.seen)

    def text(self, view: str) -> str:
        """What to show about the current slice; `view` says where it is seen ("Red 12.0 mm")."""
        if not self.slices:
            return _("This result has no list of doubtful slices; check all slices.")
        if self.current is None:
            count = next((n for n, share in enumerate(self.shares, 1) if share >= 0.8), len(self.shares))
            text = _("{n} of {all} slices hold {share} % of the likely errors; Next shows the first.")
            return text.format(n=count, all=len(self.shares), share=round(100 * self.shares[count - 1]))
        state = _("looks right") if self.position in self.accepted else _("not judged yet")
        parts = [_("Slice {k} of {n}").format(k=self.position + 1, n=len(self.slices)), view, state,
                 _("{share} % of the likely errors seen").format(share=round(100 * self.shareSeen))]  # fmt: skip
        return " · ".join(filter(None, parts))
