"""The panel: its sections, and what they share."""

from . import views
from .logic import PedBoneSegLogic
from .sections.batch import BatchSection
from .sections.correct import CorrectSection
from .sections.measure import MeasureSection
from .sections.model import ModelSection
from .sections.review import ReviewSection
from .sections.save import SaveSection
from .sections.segment import SegmentSection
from .sections.setup import SetupSection
from .sections.training import TrainingSection


class Panel:
    """`ui` holds the widgets of PedBoneSeg.ui, `parameters` the scene's parameter node (None while it closes)."""

    def __init__(self, ui, logic: PedBoneSegLogic, topWidget) -> None:
        self.ui, self.logic, self.topWidget = ui, logic, topWidget
        self.parameters, self._sections, self._shown = None, (), None
        self.setup = SetupSection(self)
        self.models = ModelSection(self)
        self.segment = SegmentSection(self)
        self.review = ReviewSection(self)
        self.correct = CorrectSection(self)
        self.measure = MeasureSection(self)
        self.save = SaveSection(self)
        self.training = TrainingSection(self)
        self.batch = BatchSection(self)
        self._sections = (self.models, self.segment, self.review, self.correct, self.measure, self.save, self.training,
                          self.batch)  # fmt: skip

    def setParameters(self, parameters) -> None:
        """Shows the choices of a scene; its views are as they were saved, and are left alone."""
        self.parameters = parameters
        self._shown = (parameters.volume, parameters.segmentation) if parameters else None
        self.parametersChanged()

    def parametersChanged(self) -> None:
        """Called on every change of the parameter node: the user's choices, a loaded scene, deleted nodes."""
        for section in self._sections:
            section.update()
        self._updateViews()

    def _updateViews(self) -> None:
        """The views show the chosen volume with its chosen result alone, once when the choice changes."""
        if self.parameters is None:
            return
        volume, segmentation = self.parameters.volume, self.parameters.segmentation
        if self._shown is not None and self._shown != (volume, segmentation):
            if volume is not None:
                views.showVolume(volume)
                views.showResultAlone(segmentation)
        self._shown = volume, segmentation

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
        self._closeTasks()
        self.correct.sceneCloses()

    def close(self) -> None:
        self._closeTasks()
        for section in (self.batch, self.setup, self.review, self.correct):
            section.close()

    def _closeTasks(self) -> None:
        self.segment.abandon()
        for section in (self.measure, self.save, self.training):
            section.close()
