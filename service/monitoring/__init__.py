"""What the service counts, for Prometheus.

Base units, bounded labels, a registry of its own. Names start with ``ibinn_``. `series` says what
there is to count (`model_series` for each model, `record_series` of the store), `monitor` counts,
`endpoint` serves, `shared` adds up several processes.
"""

from service.monitoring.endpoint import MetricsEndpoint
from service.monitoring.model_series import model_label
from service.monitoring.monitor import Monitor
from service.monitoring.series import LANES, REASONS

__all__ = ["LANES", "REASONS", "MetricsEndpoint", "Monitor", "model_label"]
