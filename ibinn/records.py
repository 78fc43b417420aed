"""What a server keeps of its answers and is told about them: frozen values, as on the wire.

No torch here, so that clients can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ibinn.errors import RequestError
from ibinn.types import Action, Guarantee, Prediction, Verdict, Versions


class TruthKind(StrEnum):
    """What kind of thing is true of an image."""

    CLASS = "class"
    """It shows a class, possibly one that the model does not know."""
    OUT_OF_SCOPE = "out_of_scope"
    """It shows nothing that the model is meant for."""
    UNREADABLE = "unreadable"
    """Nobody can tell."""


class Reaction(StrEnum):
    """What the person who gave a truth had done with the answer."""

    FOLLOWED = "followed"
    OVERRULED = "overruled"
    NOT_USED = "not_used"


class Selection(StrEnum):
    """Why an image was given to somebody to label."""

    ALL = "all"
    RANDOM = "random"
    """Drawn with a known chance."""
    FLAGGED = "flagged"
    UNCERTAIN = "uncertain"
    COMPLAINT = "complaint"
    OTHER = "other"


class FeedbackOutcome(StrEnum):
    """What a statement was beside those before it about the same answer."""

    FIRST = "first"
    """The only one that calibration figures count."""
    REPEATED = "repeated"
    """The same as the source's last one, or the same id again: nothing was changed."""
    CONFIRMED = "confirmed"
    """Another source says the same."""
    CORRECTED = "corrected"
    """The source says otherwise than before; its new statement holds."""
    CONFLICTING = "conflicting"
    """Another source says otherwise; both stand."""


class EntryKind(StrEnum):
    """What an entry of the ledger holds."""

    ANSWER = "answer"
    FEEDBACK = "feedback"
    ERASURE = "erasure"
    GUARANTEE = "guarantee"


class ImageKept(StrEnum):
    """Why an image is kept."""

    ALL = "all"
    FLAGGED = "flagged"
    """The verdict was not NOT_FLAGGED, or the decision not ACCEPT."""
    SAMPLED = "sampled"


class ImageState(StrEnum):
    """What became of an answer's image."""

    NOT_KEPT = "not_kept"
    KEPT = "kept"
    ERASED = "erased"
    """On request."""
    EXPIRED = "expired"
    """Its time was over, or the quota was full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is true of an image.

    Attributes:
        kind: Which of the three.
        class_name: Name of the class; empty for the other kinds.

    Raises:
        RequestError: A class without a name, or a name for another kind.
    """

    kind: TruthKind
    class_name: str = ""

    def __post_init__(self) -> None:
        if (self.kind is TruthKind.CLASS) != bool(self.class_name):
            raise RequestError(
                f"truth is {self.kind.value!r} with class name {self.class_name!r}; expected the "
                "name of a class for 'class', and none for 'out_of_scope' and 'unreadable'",
                field="truth",
            )

    @classmethod
    def of_class(cls, name: str) -> Truth:
        """The image shows this class."""
        return cls(kind=TruthKind.CLASS, class_name=name)

    @property
    def text(self) -> str:
        """In a word: the class's name, or the kind."""
        return self.class_name or self.kind.value


OUT_OF_SCOPE = Truth(kind=TruthKind.OUT_OF_SCOPE)
UNREADABLE = Truth(kind=TruthKind.UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a truth comes from.

    Attributes:
        source: Person, device or process that says so.
        saw_answer: Whether the person saw the answer before; None: not known.
        reaction: What the person did with it; None: not said.
        selection: Why the image was selected for labelling; None: not said.
        sampling_probability: Chance in (0, 1] with which it was to be selected; None: 1 where the
            selection is ALL, else not known.
    """

    source: str
    saw_answer: bool | None = None
    reaction: Reaction | None = None
    selection: Selection | None = None
    sampling_probability: float | None = None

    @property
    def weight(self) -> float | None:
        """1 / sampling probability; None where the chance is not known."""
        if self.sampling_probability is not None:
            return 1.0 / self.sampling_probability
        return 1.0 if self.selection is Selection.ALL else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A statement about an answer, as it is sent.

    Attributes:
        record_id: The answer's.
        truth: What is true of the image.
        provenance: Who says so, and how it came about.
        feedback_id: Names the statement, so that sending it again cannot count twice; empty: made
            of its content.
        receipt: The answer's (`ibinn.types.Receipt.token`); needed where its record was lost.
        labelled_time: When the truth was found; None: not said.
        comment: Free text.
    """

    record_id: str
    truth: Truth
    provenance: Provenance
    feedback_id: str = ""
    receipt: str = ""
    labelled_time: datetime | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What a server says of a statement once it is durable.

    Attributes:
        feedback_id: The statement's name.
        outcome: What it was beside those before it.
        revision: Which statement about this answer it is, from 1.
        record_known: False: the answer's record was lost, and its receipt was accepted instead.
    """

    feedback_id: str
    outcome: FeedbackOutcome
    revision: int
    record_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDigest:
    """An answer in short; what a receipt holds.

    Attributes:
        record_id: The answer's name.
        received_time: When the request was taken on (UTC).
        versions: Which model, calibration and policy.
        class_name: The most probable class.
        confidence: Its calibrated probability.
        verdict: What the tests said.
        action: What the policy made of it; None without one.
        sha256_bytes: Of the encoded image; empty where there were no bytes.
        sha256_pixels: Of the decoded pixels.
        p_value: Of the combined test; None where it gave none.
        group_id: The caller's name for what images belong together.
    """

    record_id: str
    received_time: datetime
    versions: Versions
    class_name: str
    confidence: float
    verdict: Verdict
    action: Action | None
    sha256_bytes: str
    sha256_pixels: str
    p_value: float | None
    group_id: str = ""

    @classmethod
    def of(cls, prediction: Prediction) -> AnswerDigest:
        """The short form of an answer with a receipt."""
        receipt = prediction.receipt
        assert receipt is not None
        return cls(
            record_id=receipt.record_id,
            received_time=receipt.received_time,
            versions=prediction.versions,
            class_name=prediction.top.name,
            confidence=prediction.top.probability,
            verdict=prediction.verdict,
            action=None if prediction.decision is None else prediction.decision.action,
            sha256_bytes=prediction.input.sha256_bytes,
            sha256_pixels=prediction.input.sha256_pixels,
            p_value=None if prediction.combined is None else prediction.combined.p_value,
            group_id=receipt.group_id,
        )

    def correct(self, truth: Truth) -> bool | None:
        """Whether the most probable class is the truth; None where there is none to hold it to.

        A class that the model does not know was answered wrongly. Images out of scope or unreadable
        have no right class: they say nothing about calibration over classes.
        """
        if truth.kind is not TruthKind.CLASS:
            return None
        return self.class_name == truth.class_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the ledger, as it is kept.

    Attributes:
        sequence: From 1, without gaps.
        kind: What `body` holds.
        record_id: Of the answer that it is about; empty for a guarantee.
        time: When it was appended (UTC).
        body: A protobuf message, see ``proto/ibinn/v1/record.proto``.
        previous_hash: Of the entry before; 64 zeros before the first.
        hash: See `ibinn.chain`.
    """

    sequence: int
    kind: EntryKind
    record_id: str
    time: datetime
    body: bytes
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEntry:
    """An answer on record: everything that was sent but the image.

    Attributes:
        prediction: The whole answer, whatever options shortened what was sent.
        caller: Who asked.
        method: ``Classify``, ``ClassifyStream``, ``Explain`` or ``ModelInfer``.
        group_id: The caller's name for what images belong together.
        bundle: Name of the bundle's folder.
        server: Which server process answered.
        image_kept: Why the image is kept; None: it is not.
    """

    prediction: Prediction
    caller: str
    method: str
    group_id: str
    bundle: str
    server: str
    image_kept: ImageKept | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackEntry:
    """A statement on record.

    Attributes:
        feedback_id: Its name.
        record_id: The answer's.
        truth: What is true.
        provenance: Who says so.
        labelled_time: When the truth was found; None: not said.
        comment: Free text.
        caller: Who sent it.
        outcome: What it was beside those before it.
        revision: Which statement about this answer it is, from 1.
        answer: The answer in short, as its record or its receipt has it.
        record_known: Whether the answer itself was on record then.
    """

    feedback_id: str
    record_id: str
    truth: Truth
    provenance: Provenance
    labelled_time: datetime | None
    comment: str
    caller: str
    outcome: FeedbackOutcome
    revision: int
    answer: AnswerDigest
    record_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureEntry:
    """An image was erased on request; the answer's entry stays.

    Attributes:
        sha256_bytes: Of the image.
        caller: Who asked for it.
        reason: Why.
        found: Whether there was a file.
    """

    sha256_bytes: str
    caller: str
    reason: str
    found: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GuaranteeEntry:
    """The guarantee of a calibration changed.

    Attributes:
        calibration: Digest of the calibration.
        guarantee: From now on.
        reason: Why, in words.
        detector: Which detector raised the alarm; empty where a person did it.
        caller: Who acknowledged; empty for an alarm.
    """

    calibration: str
    guarantee: Guarantee
    reason: str
    detector: str
    caller: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a store holds about one answer.

    Attributes:
        entry: As it is kept.
        answer: Its body, read.
        feedback: What was said about it, in order.
        image_state: What became of the image.
        image: Its encoded bytes, where they were asked for and are kept.
    """

    entry: Entry
    answer: AnswerEntry
    feedback: tuple[FeedbackEntry, ...]
    image_state: ImageState
    image: bytes | None = None
