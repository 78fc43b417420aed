"""Exported feedback: what the service writes and training reads. Format version 1.

A folder:

    export.json       what this is an export of; written last, so that a folder without it was not
                      finished
    feedback.jsonl    a line of JSON for each answer that something was said about, in the order of
                      the first statements
    images/ab/abcd…   the kept images' encoded bytes, named by their sha256, each once

export.json:

    format_version    1
    created_time      when it was made
    software          version of ibinn that made it
    ledger            {sequence, hash}: the ledger's end when the export began; statements that
                      came in meanwhile may be in it
    count             lines of feedback.jsonl
    filters           {since, until, model}: which answers; null or "" where not filtered

A line:

    record_id         of the answer
    received_time     when its request was taken on
    sha256_bytes      of the encoded image; "" where pixels came
    sha256_pixels     of the decoded pixels
    group_id          the caller's name for what images belong together; may be ""
    caller            who asked; "" where the answer's record was lost
    image             "images/ab/abcd…"; null where the image is not kept (any more)
    answer            {class_name, confidence, verdict, action, p_value, versions: {weights,
                      calibration, policy, taxonomy, software}}; action and p_value may be null
    statements        at least one, in the order in which they were recorded: {feedback_id, time,
                      source, caller, truth: {kind, class_name}, saw_answer, reaction, selection,
                      sampling_probability, labelled_time, outcome, comment}; what was not said is
                      null; kind is class, out_of_scope or unreadable, class_name "" but for class;
                      source is what the caller says, caller who was let in
    truth             {kind, class_name}: what holds; null where sources disagree
    conflict          whether they do

Of each source, its last statement counts. Where these have one truth, that holds; else nothing
does. Times are ISO 8601 with their offset. Readers pass over keys that they do not know; a key that
is taken away or changes its meaning raises the version.

No torch here.
"""

from __future__ import annotations

from ibinn.feedback_export.contents import (
    FORMAT_VERSION,
    Export,
    ExportInfo,
    Filters,
    LabelledImage,
    Statement,
    held_truth,
    image_path,
)
from ibinn.feedback_export.reading import read, read_info
from ibinn.feedback_export.writing import write

__all__ = [
    "FORMAT_VERSION",
    "Export",
    "ExportInfo",
    "Filters",
    "LabelledImage",
    "Statement",
    "held_truth",
    "image_path",
    "read",
    "read_info",
    "write",
]
