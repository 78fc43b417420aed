"""Policies: small versioned files beside a bundle that turn answers into actions.

`values` says what a policy is, `decision` what it decides, `risk` what it certifies, `fitting`
how one is made, `forecast` what it will do, `file` and `terms` read and write.
"""

from ibinn.policy.decision import (
    RULES,
    Answers,
    Decisions,
    Rule,
    action_of,
    answers_of,
    check,
    decide,
    decide_many,
    reweighted,
)
from ibinn.policy.values import Certificate, Costs, Origin, Policy, Priors

__all__ = [
    "RULES",
    "Answers",
    "Certificate",
    "Costs",
    "Decisions",
    "Origin",
    "Policy",
    "Priors",
    "Rule",
    "action_of",
    "answers_of",
    "check",
    "decide",
    "decide_many",
    "reweighted",
]
