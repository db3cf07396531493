"""The panel: eight sections of one conversation, and what they share."""

from .batch import BatchSection
from .correct import CorrectSection
from .dependencies import SetupSection
from .keep import KeepSection
from .logic import PedBoneSegLogic
from .measure import MeasureSection
from .models import ModelSection
from .review import ReviewSection
from .segment import SegmentSection


class Panel:
    """`ui` holds the widgets of PedBoneSeg.ui, `parameters` the scene's parameter node (None while it closes)."""

    def __init__(self, ui, logic: PedBoneSegLogic, topWidget) -> None:
        self.ui, self.logic, self.topWidget = ui, logic, topWidget
        self.parameters, self._sections = None, ()
        self.setup = SetupSection(self)
        self.models = ModelSection(self)
        self.segment = SegmentSection(self)
        self.review = ReviewSection(self)
        self.correct = CorrectSection(self)
        self.measure = MeasureSection(self)
        self.keep = KeepSection(self)
        self.batch = BatchSection(self)
        self._sections = (self.models, self.segment, self.review, self.correct, self.measure, self.keep, self.batch)

    def setParameters(self, parameters) -> None:
        self.parameters = parameters
        self.parametersChanged()

    def parametersChanged(self) -> None:
        """Follows every change of the parameter node: the user's choices, a loaded scene, deleted nodes."""
        for section in self._sections:
            section.follow()

    @property
    def segmentation(self):
        return self.parameters.segmentation if self.parameters else None

    @property
    def busy(self) -> bool:
        return self.segment.running or self.batch.running

    def enter(self) -> None:
        self.setup.ready()
        self.correct.enter()
        self.review.setKeysEnabled(True)

    def exit(self) -> None:
        self.review.setKeysEnabled(False)
        self.correct.exit()

    def sceneCloses(self) -> None:
        self.segment.abandon()
        self.correct.sceneCloses()

    def close(self) -> None:
        self.segment.abandon()
        for section in (self.batch, self.setup, self.review, self.correct):
            section.close()
