"""The Open Inference Protocol beside our own, so that clients of other servers work unchanged.

    inputs      request -> checked images
    outputs     answers -> tensors
    naming      name and version -> one of the loaded models
    parameters  what may stand beside tensors
    facade      the protocol's methods

Every image takes the same path as a call of `Classify`: same queue, same policy, same limits.
Nothing in a request can change a verdict or a decision.
"""

from service.oip.facade import SERVICE_NAME, oip_routes

__all__ = ["SERVICE_NAME", "oip_routes"]
