"""How results look on a terminal, as rich renderables.

Functions of the values of `ibinn.types`; nothing here prints. Colour stands only in styles, so
that a console without colour shows the same words.
"""

from ibinn.rendering.answers import prediction_block, predictions_table
from ibinn.rendering.explanations import explanation_block
from ibinn.rendering.models import model_block
from ibinn.rendering.records import (
    content_line,
    entries_table,
    record_block,
    replay_block,
    verified_block,
)
from ibinn.rendering.servers import candidate_block, state_block
from ibinn.rendering.words import ACTION_STYLES, VERDICT_STYLES, bar, printable

__all__ = [
    "ACTION_STYLES",
    "VERDICT_STYLES",
    "bar",
    "candidate_block",
    "content_line",
    "entries_table",
    "explanation_block",
    "model_block",
    "prediction_block",
    "predictions_table",
    "printable",
    "record_block",
    "replay_block",
    "state_block",
    "verified_block",
]
