"""From answers and explanations to the messages of their calls."""

from __future__ import annotations

from ibinn import types
from ibinn.v1 import answer_pb2 as answer
from ibinn.v1 import classification_service_pb2 as service
from service.converters.classification import fill


def classify_response(
    prediction: types.Prediction, options: service.AnswerOptions | None = None
) -> service.ClassifyResponse:
    """The answer to Classify."""
    response = service.ClassifyResponse()
    fill(response.classification, prediction, options)
    return response


def explain_response(
    explanation: types.Explanation, options: service.AnswerOptions | None = None
) -> service.ExplainResponse:
    """The answer to Explain."""
    response = service.ExplainResponse(
        heatmaps=[_heatmap(heatmap) for heatmap in explanation.heatmaps],
        image=answer.SeenImage(
            side=explanation.image.shape[0], rgb=explanation.image.tobytes(order="C")
        ),
        contrast=None if explanation.contrast is None else _contrast(explanation.contrast),
        nearby=[
            answer.NearbyClass(
                class_name=nearby.class_name, distance=nearby.distance, overlap=nearby.overlap
            )
            for nearby in explanation.nearby
        ],
        receptive_field_px=explanation.receptive_field_px,
        decision_space=(
            None
            if explanation.decision_space is None
            else _decision_space(explanation.decision_space)
        ),
    )
    fill(response.classification, explanation.prediction, options)
    return response


def _heatmap(heatmap: types.Heatmap) -> answer.Heatmap:
    height, width = heatmap.values.shape
    return answer.Heatmap(
        class_name=heatmap.class_name,
        height=height,
        width=width,
        values=heatmap.values.ravel().tolist(),
        log_posterior=heatmap.log_posterior,
        completeness_error=heatmap.completeness_error,
    )


def _contrast(contrast: types.Contrast) -> answer.Contrast:
    height, width = contrast.values.shape
    return answer.Contrast(
        class_name=contrast.class_name,
        versus=contrast.versus,
        height=height,
        width=width,
        values=contrast.values.ravel().tolist(),
        log_odds=contrast.log_odds,
        completeness_error=contrast.completeness_error,
    )


def _decision_space(space: types.DecisionSpace) -> answer.DecisionSpace:
    return answer.DecisionSpace(
        x=space.x,
        y=space.y,
        boundary=space.boundary,
        dims=space.dims,
        means=[
            answer.ClassPoint(
                class_name=point.class_name,
                x=point.x,
                y=point.y,
                radius=point.radius,
                probability=point.probability,
            )
            for point in space.means
        ],
    )
