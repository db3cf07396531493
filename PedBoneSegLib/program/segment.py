"""The verb `segment`: one input to one file. A folder of inputs is in `batch`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..files import as_private_as, sweep_partials
from ..formats.names import OUTPUT_TAG, check_output, map_suffixes
from ..progress import Progress, no_progress
from .fields import check_fields
from .inputs import case_name
from .session import Session

if TYPE_CHECKING:
    from ..results.documents import Document

SIDES = ("left", "right")


@dataclass(frozen=True)
class SegmentOptions:
    """The options of `segment`, by the command line's names."""

    input: str
    output: str | None = None
    joint: str = "auto"
    model: str | None = None
    side: str | None = None
    device: str = "auto"
    series: str | None = None
    frame: int | None = None
    probabilities: str | None = None
    uncertainty: str | None = None
    overwrite: bool = False
    max_voxels: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            expected: Any = field.type
            if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
                name = getattr(expected, "__name__", str(expected))
                raise BadInput(f"{field.name} is {value!r}", f"it must be of the type {name}")
        if self.side not in (None, *SIDES):
            raise BadInput(f"side is {self.side!r}", "it must be left or right")

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "SegmentOptions":
        """From the fields of a request. BadInput if a field is unknown or the input is missing."""
        return cls(**check_fields(request, [field.name for field in fields(cls)], ["input"]))

    @property
    def source(self) -> Path:
        return Path(self.input)

    @property
    def target(self) -> Path:
        """The file for the labels: by default NAME_bones.nii.gz beside the input."""
        return Path(self.output) if self.output else self.source.parent / f"{case_name(self.source)}{OUTPUT_TAG}.nii.gz"

    @property
    def maps(self) -> dict[str, Path]:
        """The files for the 8-bit maps that are wanted: `probabilities`, `uncertainty`."""
        return {name: Path(path) for name in ("probabilities", "uncertainty") if (path := getattr(self, name))}

    def identity(self) -> dict[str, Any]:
        """The options that decide the result, together with the input and the model."""
        others = ("input", "output", "overwrite", "model", "max_voxels")
        return {key: value for key, value in asdict(self).items() if key not in others}


def segment(
    session: Session,
    options: SegmentOptions,
    progress: Progress = no_progress,
    on_detection: "Callable[[Document], None]" = lambda document: None,
) -> "Document":
    """Segments one input, writes the files and returns the `segment` object.

    All that can be refused before the work starts is refused then. `on_detection` is called with the `detect` object
    before the segmentation starts. The files are closed to everyone to whom the input is closed.
    """
    _check_outputs(options)
    with as_private_as(options.source):
        return _segment(session, options, progress, on_detection)


def _segment(
    session: Session, options: SegmentOptions, progress: Progress, on_detection: "Callable[[Document], None]"
) -> "Document":
    from ..formats.reading import read_volume
    from ..results.documents import detect_document, segment_document

    target, maps = options.target, options.maps
    progress(0.0, "reading")
    volume = read_volume(options.source, options.series, options.frame, options.max_voxels)
    progress(0.04, "loading the model")
    model = session.model(options.model, options.device)
    result = model.segment(
        volume,
        options.joint,
        side=options.side,
        doubt="uncertainty" in maps,
        probabilities="probabilities" in maps,
        scratch=next((path.parent for path in maps.values()), None),
        progress=lambda fraction, stage: progress(0.08 + 0.84 * fraction, stage),
        on_detection=lambda detection: on_detection(detect_document(detection)),
    )
    progress(0.93, "writing")
    if "probabilities" in maps:
        result.save_probabilities(maps["probabilities"], overwrite=True)
    if "uncertainty" in maps:
        result.save_uncertainty(maps["uncertainty"], overwrite=True)
    result.save(target, overwrite=True)
    progress(1.0, "done")
    return segment_document(result, target)


def _check_outputs(options: SegmentOptions) -> None:
    """Raises BadInput if an output cannot be written; removes what a killed run left behind."""
    target, maps = options.target, options.maps
    check_output(target, options.source, options.overwrite)
    for path in maps.values():
        check_output(path, options.source, options.overwrite, map_suffixes())
    if len({path.absolute() for path in (target, *maps.values())}) <= len(maps):
        raise BadInput("two outputs have the same name", "give each its own")
    for folder in {path.parent for path in (target, *maps.values())}:
        sweep_partials(folder)
