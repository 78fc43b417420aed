"""Between the library's types and the wire; the only part of the service that knows both.

`answers`, `classification` and `models` make messages of results, `requests` reads what a caller
asked, `names` pairs the names of both sides.
"""

from service.converters.answers import classify_response, explain_response
from service.converters.classification import fill
from service.converters.models import get_model_response
from service.converters.requests import explain_options, timeout_s

__all__ = [
    "classify_response",
    "explain_options",
    "explain_response",
    "fill",
    "get_model_response",
    "timeout_s",
]
