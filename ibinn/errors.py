"""The exceptions of the library, one tree.

    IbinnError
    ├── ImageError                an image that cannot be classified
    │   ├── ImageTooLargeError        over a limit on bytes, pixels or sides
    │   └── ImageDecodeError          empty, truncated, not an image, format not allowed
    ├── BundleError               a model bundle that cannot be used
    │   ├── BundleNotFoundError       no bundle at that path
    │   ├── BundleIntegrityError      a file's sha256 is not the manifest's
    │   ├── BundleFormatError         unknown format version, missing or malformed entry
    │   └── BundleSignatureError      no signature, or none of a key that is trusted
    ├── ConfigError               a setting, recipe, key or value that is not valid
    │   └── AlphaTooSmallError        significance below the smallest attainable p-value
    ├── DataError                 a data set that cannot be used as it is
    ├── PolicyError               a policy that cannot be used
    │   ├── PolicyFormatError         unknown format version, changed, missing or malformed entry
    │   ├── PolicyMismatchError       made for other classes, weights or another calibration
    │   └── NotCertifiableError       no threshold keeps the risk asked for
    ├── NotCalibratedError        the bundle holds no reference scores for what was asked
    ├── NotExplainableError       this network has no exact heatmap
    ├── UnknownClassError         a class the model does not know
    ├── RequestError              an option of a request that is not valid
    ├── UnknownModelError         a model or bundle that the server does not have
    ├── UnknownRecordError        an answer that the server has no record of
    ├── LedgerError               records whose hash chain is broken, or that do not read
    ├── CandidateRefusedError     a bundle that may not become the default
    ├── NotPossibleError          nothing to do it with: no previous model, no shadow
    ├── AccessError               a caller that may not do this
    │   ├── UnauthenticatedError      no token or certificate, or one that is not known
    │   └── ForbiddenError            one without the role that the call needs
    ├── TurnedAwayError           a request that the server does not take on or gives up
    │   ├── QueueFullError            too many requests are pending, or the answer would be late
    │   │   └── RateLimitedError          the caller asks for more than its share
    │   ├── NotServingError           no model is loaded yet, or the server is stopping
    │   │   └── RecordsUnavailableError   the records cannot be reached now
    │   └── ExpiredError              the time ran out before the answer
    ├── TrainingError             a run that cannot go on
    │   ├── NonFiniteLossError        the loss or a gradient is not finite
    │   └── CheckpointError           a checkpoint that does not fit the run
    └── RemoteError               what a server answered instead of a result (`ibinn.client`)
        ├── InvalidImageError         INVALID_ARGUMENT
        ├── NotFoundError             NOT_FOUND
        ├── OverloadedError           RESOURCE_EXHAUSTED
        ├── UnavailableError          UNAVAILABLE
        ├── DeadlineError             DEADLINE_EXCEEDED
        ├── PreconditionError         FAILED_PRECONDITION
        ├── NotAuthenticatedError     UNAUTHENTICATED
        ├── NotAllowedError           PERMISSION_DENIED
        └── InternalServerError       INTERNAL and every other status

Every message says what, got, expected, and what to do. This module imports nothing.
"""


class IbinnError(Exception):
    """Base of every error that `ibinn` raises on purpose."""


class ImageError(IbinnError):
    """An image that cannot be classified.

    Args:
        message: What is wrong, the value found, the value expected, what to do.
        field: The request field at fault, as on the wire (``image``, ``image.width``).
    """

    def __init__(self, message: str, *, field: str = "image") -> None:
        super().__init__(message)
        self.field = field


class ImageTooLargeError(ImageError):
    """An image over a limit on bytes, pixels or sides; raised before it is decoded."""


class ImageDecodeError(ImageError):
    """Bytes that are empty, truncated, not an image, or of a format that is not allowed."""


class BundleError(IbinnError):
    """A model bundle that cannot be used."""


class BundleNotFoundError(BundleError):
    """There is no bundle at the path."""


class BundleIntegrityError(BundleError):
    """A file of the bundle does not have the sha256 that its manifest states."""


class BundleFormatError(BundleError):
    """A bundle of another format version, or with a missing or malformed entry."""


class BundleSignatureError(BundleError):
    """A bundle without a signature, or with none of a trusted key over its manifest."""


class ConfigError(IbinnError):
    """A setting, recipe, key or value that is not valid."""


class AlphaTooSmallError(ConfigError):
    """A significance below the smallest p-value that the calibration images can give.

    Args:
        alpha: The significance asked for.
        calibration_count: Number n of calibration images there are.
        needed: Number of calibration images that α needs, ``ceil(1/alpha) - 1``
            (twice that for a two-tailed test).
        confidence: Over calibration sets, where α is to hold with confidence; None where it is to
            hold on average.
    """

    def __init__(
        self,
        *,
        alpha: float,
        calibration_count: int,
        needed: int,
        confidence: float | None = None,
    ) -> None:
        wanted = "" if confidence is None else f" with confidence {confidence:g}"
        super().__init__(
            f"significance α = {alpha:g} cannot be tested{wanted}: {calibration_count} calibration "
            f"images are available, {needed} are needed; use a larger α or add "
            f"{needed - calibration_count} calibration images"
        )
        self.alpha = alpha
        self.calibration_count = calibration_count
        self.needed = needed


class DataError(IbinnError):
    """A data set that cannot be used as it is."""


class PolicyError(IbinnError):
    """A policy that cannot be used."""


class PolicyFormatError(PolicyError):
    """A policy file of another format version, changed by hand, or with a malformed entry."""


class PolicyMismatchError(PolicyError):
    """A policy for other classes, weights or another calibration than those in use."""


class NotCertifiableError(PolicyError):
    """No threshold keeps the risk asked for with the confidence asked for.

    Args:
        message: What was tried, what was found, what to do.
        count: Number of held-out images there were.
        needed: About how many would do, or None where more images alone would not.
    """

    def __init__(self, message: str, *, count: int, needed: int | None) -> None:
        super().__init__(message)
        self.count = count
        self.needed = needed


class NotCalibratedError(IbinnError):
    """The bundle holds no calibration scores for what was asked."""


class NotExplainableError(IbinnError):
    """This network has no heatmap that adds up to its answer."""


class UnknownClassError(IbinnError):
    """A class that the model does not know."""


class RequestError(IbinnError):
    """An option of a request that is not valid.

    Args:
        message: What is wrong, the value found, the value expected, what to do.
        field: The request field at fault, as on the wire (``classes``).
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class UnknownModelError(IbinnError):
    """A model or bundle that the server does not have."""


class UnknownRecordError(IbinnError):
    """An answer that the server has no record of."""


class LedgerError(IbinnError):
    """Records whose hash chain is broken, that do not read, or a schema that this version does not
    know."""


class CandidateRefusedError(IbinnError):
    """A bundle that may not become the default model.

    Args:
        message: What was refused, and why.
        reasons: Every reason, a sentence each, with its figures.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


class NotPossibleError(IbinnError):
    """What was asked has nothing to be done with: no previous model, no models folder."""


class AccessError(IbinnError):
    """A caller that may not do what it asks."""


class UnauthenticatedError(AccessError):
    """No token or certificate, or one that the server does not know."""


class ForbiddenError(AccessError):
    """A token or certificate without the role that the call needs."""


class TurnedAwayError(IbinnError):
    """A request that the server does not take on or gives up, whatever the image."""


class QueueFullError(TurnedAwayError):
    """Too many requests are pending, or this one would be answered too late.

    Args:
        message: How many, and the limit.
        retry_after_s: Seconds after which another try is likely to be taken on.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(QueueFullError):
    """The caller asks for more than its share."""


class NotServingError(TurnedAwayError):
    """No model is loaded yet, or the server is stopping."""


class RecordsUnavailableError(NotServingError):
    """The database of the records cannot be reached, or is too slow; another try may succeed."""


class ExpiredError(TurnedAwayError):
    """The time for the answer ran out; a waiting image is not computed."""


class TrainingError(IbinnError):
    """A training run that cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss or the gradient norm is not finite; the optimizer did not move."""


class CheckpointError(TrainingError):
    """A checkpoint that is damaged or does not belong to this run."""


class RemoteError(IbinnError):
    """A server's answer that is not a result; `ibinn.client` raises these.

    Args:
        message: The server's message.
        code: Name of the gRPC status, such as ``INVALID_ARGUMENT``.
        retry_after_s: Seconds after which the server suggests another try, if it did.
        reason: The server's name for the cause, such as ``QUEUE_FULL``; empty if it gave none.
        request_id: The request's name in the server's logs; empty if it gave none.
        reasons: Every single reason, where the server gave several.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retry_after_s: float | None = None,
        reason: str = "",
        request_id: str = "",
        reasons: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        self.reason = reason
        self.request_id = request_id
        self.reasons = reasons


class InvalidImageError(RemoteError):
    """INVALID_ARGUMENT: the image or an option was refused."""


class NotFoundError(RemoteError):
    """NOT_FOUND: the model, class or record is unknown to the server."""


class OverloadedError(RemoteError):
    """RESOURCE_EXHAUSTED: the server is full or too slow for the time given, or the caller asks
    more than its share; try again after ``retry_after_s``."""


class UnavailableError(RemoteError):
    """UNAVAILABLE: no server there, or it is draining or has no model."""


class DeadlineError(RemoteError):
    """DEADLINE_EXCEEDED: the answer did not come within the time given."""


class PreconditionError(RemoteError):
    """FAILED_PRECONDITION: this model cannot do what was asked."""


class NotAuthenticatedError(RemoteError):
    """UNAUTHENTICATED: no token, or one that the server does not know."""


class NotAllowedError(RemoteError):
    """PERMISSION_DENIED: the token lacks the role that the call needs."""


class InternalServerError(RemoteError):
    """INTERNAL and every other status: a fault of the server, with its incident id."""
