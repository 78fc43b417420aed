"""Who may call, what they may do, how much, and over which wire."""

from service.access.access import Access
from service.access.checks import problems, warnings
from service.access.signatures import trusted_keys_of

__all__ = ["Access", "problems", "trusted_keys_of", "warnings"]
