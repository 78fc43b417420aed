"""What the server does about drift: it watches, says so in every answer, and asks for a person.

`watch` hears of every answer and is asked for the guarantee; `watching` feeds the detectors of one
calibration (`ibinn.drift`) in a thread; `guarantees` holds whether the guarantee stands, in the
ledger where there is one; `saved` is what a restart finds again; `sentinels` sends held-out images
through the whole path.
"""

from service.drift.watch import DriftWatch

__all__ = ["DriftWatch"]
