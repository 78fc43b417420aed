"""From options to the messages that ask for them."""

from __future__ import annotations

from ibinn import types
from ibinn.v1 import classification_service_pb2 as service

_HEATMAP_SIZES = {
    types.HeatmapSize.GRID: service.HEATMAP_SIZE_GRID,
    types.HeatmapSize.IMAGE: service.HEATMAP_SIZE_IMAGE,
}


def explain_request(image: bytes, options: types.ExplainOptions) -> service.ExplainRequest:
    """The request for an explanation."""
    contrast = options.contrast
    return service.ExplainRequest(
        image=image,
        classes=options.classes,
        contrast=None
        if contrast is None
        else service.ContrastRequest(
            class_name=contrast.class_name or "", versus=contrast.versus or ""
        ),
        heatmap_size=_HEATMAP_SIZES[options.heatmap_size],
    )
