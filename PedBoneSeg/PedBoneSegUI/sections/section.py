"""What the sections of the panel have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

from PedBoneSegLib.errors import PedBoneSegError


class Section:
    """`line` is the label that tells the user what a click has done."""

    def __init__(self, panel, line) -> None:
        self.panel, self.ui, self.logic, self._line = panel, panel.ui, panel.logic, line

    def update(self) -> None:
        """Adapts the widgets to the user's choices, the scene, and what is running."""

    def say(self, text: str) -> None:
        self._line.setText(text)

    @contextmanager
    def reporting(self, sentence: str) -> Iterator[None]:
        """A foreseeable failure in the block is shown as `sentence` with its {reason}; a bug is passed on."""
        try:
            yield
        except (PedBoneSegError, OSError, RuntimeError) as error:
            self.say(sentence.format(reason=getattr(error, "strerror", None) or error))
