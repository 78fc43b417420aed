"""Calls, batches, processes and records."""

from __future__ import annotations

from deployment.monitoring.panels import OF_WINDOW, Dashboard, Panel, Query, Row, recorded

SERVICE = Dashboard(
    name="service",
    title="ibinn: service health",
    description="Whether calls are answered, how fast, and what is turned away.",
    rows=(
        Row(
            title="Now",
            panels=(
                Panel(
                    title="Servers that are read",
                    description="Targets of the job `ibinn` that Prometheus can read, of all.",
                    unit="short",
                    kind="stat",
                    width=6,
                    queries=(
                        Query(expr='sum(up{job="ibinn"})', legend="up"),
                        Query(expr='count(up{job="ibinn"})', legend="known"),
                    ),
                ),
                Panel(
                    title="Calls per second",
                    description="Finished calls, whatever their status.",
                    unit="reqps",
                    kind="stat",
                    width=6,
                    queries=(Query(expr="sum(rate(ibinn_requests_total[5m]))", legend="calls"),),
                ),
                Panel(
                    title="Faults of the server",
                    description="Share of calls that ended with INTERNAL, UNKNOWN, DATA_LOSS or "
                    "UNIMPLEMENTED. Refused images and callers' mistakes are none.",
                    unit="percentunit",
                    kind="stat",
                    width=6,
                    queries=(recorded("ibinn:error_ratio", "faults", of=OF_WINDOW),),
                ),
                Panel(
                    title="Turned away",
                    description="Share of calls that ended with RESOURCE_EXHAUSTED, UNAVAILABLE or "
                    "DEADLINE_EXCEEDED: too little capacity, or a store that is away.",
                    unit="percentunit",
                    kind="stat",
                    width=6,
                    queries=(recorded("ibinn:turned_away_ratio", "turned away", of=OF_WINDOW),),
                ),
            ),
        ),
        Row(
            title="Calls",
            panels=(
                Panel(
                    title="Calls per second by method and status",
                    description="Over 5 minutes. INVALID_ARGUMENT is an image that cannot be "
                    "decoded or a field against the contract: the caller's.",
                    unit="reqps",
                    queries=(
                        Query(
                            expr="sum by (method, code) (rate(ibinn_requests_total[5m]))",
                            legend="{{method}} {{code}}",
                        ),
                    ),
                ),
                Panel(
                    title="Latency",
                    description="From the start of a call to its end. Buckets bound what can be "
                    "said: within one, the quantile is interpolated. A stream's latency is its "
                    "whole life.",
                    unit="s",
                    queries=tuple(
                        recorded(
                            f"method:ibinn_request_duration_seconds_p{percent}",
                            f"{{{{method}}}} p{percent}",
                            of=OF_WINDOW,
                        )
                        for percent in (50, 95, 99)
                    ),
                ),
                Panel(
                    title="Requests without an answer by reason",
                    description="Per second, over 5 minutes.",
                    unit="reqps",
                    queries=(
                        Query(
                            expr="sum by (reason) (rate(ibinn_rejections_total[5m]))",
                            legend="{{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Requests inside",
                    description="Being decoded, waiting and being computed; and images that wait "
                    "for their batch. A sum over servers.",
                    unit="short",
                    queries=(
                        Query(expr="sum(ibinn_pending_requests)", legend="requests inside"),
                        Query(expr="sum(ibinn_waiting_images)", legend="images waiting"),
                    ),
                ),
            ),
        ),
        Row(
            title="Batches",
            panels=(
                Panel(
                    title="Wait for a batch",
                    description="By queue. The autoscaler follows it: waiting grows before calls "
                    "are turned away.",
                    unit="s",
                    queries=tuple(
                        recorded(
                            f"lane:ibinn_queue_wait_seconds_p{percent}",
                            f"{{{{lane}}}} p{percent}",
                            of=OF_WINDOW,
                        )
                        for percent in (50, 95, 99)
                    ),
                ),
                Panel(
                    title="Images per batch",
                    description="Mean over 5 minutes. Large batches mean load, not trouble.",
                    unit="short",
                    queries=(
                        Query(
                            expr="sum by (lane) (rate(ibinn_batch_size_sum[5m]))\n"
                            "/ (sum by (lane) (rate(ibinn_batch_size_count[5m])) > 0)",
                            legend="{{lane}}",
                        ),
                    ),
                ),
                Panel(
                    title="Time computing",
                    description="Share of each second that batches are computed, by server: 1 is a "
                    "network that never rests.",
                    unit="percentunit",
                    queries=(
                        Query(
                            expr="sum by (instance, lane) (rate(ibinn_compute_seconds_sum[5m]))",
                            legend="{{instance}} {{lane}}",
                        ),
                    ),
                ),
                Panel(
                    title="Processes",
                    description="Workers that died and were replaced, decoders that were ended by "
                    "an image, and images computed for nobody, in 1 hour.",
                    unit="short",
                    queries=(
                        Query(
                            expr="sum(increase(ibinn_worker_restarts_total[1h])) or vector(0)",
                            legend="workers replaced",
                        ),
                        Query(
                            expr="sum by (kind) (increase(ibinn_decoder_faults_total[1h]))",
                            legend="decoder {{kind}}",
                        ),
                        Query(
                            expr="sum(increase(ibinn_computed_expired_total[1h]))",
                            legend="computed too late",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            title="Records",
            panels=(
                Panel(
                    title="Entries written and dropped",
                    description="Per second, over 5 minutes. What is dropped left without a record "
                    "(best effort).",
                    unit="cps",
                    queries=(
                        Query(
                            expr="sum by (kind) (rate(ibinn_records_written_total[5m]))",
                            legend="{{kind}}",
                        ),
                        Query(expr="sum(rate(ibinn_records_dropped_total[5m]))", legend="dropped"),
                    ),
                ),
                Panel(
                    title="Store",
                    description="Entries that wait to be written, and whether the store can be "
                    "reached (1) from every server.",
                    unit="short",
                    queries=(
                        Query(expr="sum(ibinn_records_waiting)", legend="waiting"),
                        Query(expr="min(ibinn_records_reachable)", legend="reachable"),
                    ),
                ),
                Panel(
                    title="Time of a write",
                    description="Of one transaction, whatever number of entries it holds.",
                    unit="s",
                    queries=tuple(
                        Query(
                            expr=f"histogram_quantile({percent / 100}, "
                            "sum by (le) (rate(ibinn_record_write_seconds_bucket[5m])))",
                            legend=f"p{percent}",
                        )
                        for percent in (50, 99)
                    ),
                ),
                Panel(
                    title="Kept images",
                    description="Bytes, as last looked at by the server that sees most.",
                    unit="bytes",
                    queries=(Query(expr="max(ibinn_images_bytes)", legend="bytes"),),
                ),
            ),
        ),
    ),
)
