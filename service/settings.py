"""The server's settings: flags over environment (``IBINN_*``) over a TOML file over defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from ibinn.errors import ConfigError

PREFIX = "IBINN_"

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Everything that can be set. The environment's name is ``IBINN_`` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    config: Path | None = Field(None, description="TOML file with settings.")
    bundle: Path | None = Field(None, description="Model bundle; none: the embedded model.")
    alpha: float | None = Field(
        None, gt=0, lt=1, description="Significance of the verdict; none: the bundle's."
    )
    policy: Path | None = Field(
        None,
        description="Policy file that decides what to do with every answer; none: no decision.",
    )
    device: str = Field("cpu", description="Where the network runs, such as cpu or cuda.")
    engine: Literal["auto", "plain", "folded", "openvino"] = Field(
        "auto",
        description="What computes the forward pass; auto: the fastest dependable one there is, "
        "plain: the network as it was trained.",
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of one forward pass; none: the cores shared out."
    )
    workers: int = Field(
        1, ge=1, le=256, description="Processes that share the port, each with the model."
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0: all.")
    port: Port = Field(50051, description="Port for gRPC; 0 takes a free one.")
    metrics_port: Port = Field(9464, description="Port for Prometheus; 0 takes a free one.")
    metrics: bool = Field(True, description="Count and serve metrics for Prometheus.")
    max_batch_size: int = Field(32, ge=1, description="Most images in one forward pass.")
    max_batch_wait_s: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Longest time a busy server holds a small batch for more images.",
    )
    max_pending: int = Field(
        256, ge=1, description="Most requests in the server at one time; more are refused."
    )
    max_explain_pending: int = Field(
        32, ge=1, description="Most Explain requests among them; they yield to Classify."
    )
    stream_window: int = Field(
        64, ge=1, description="Most unanswered images of one stream; then it is not read on."
    )
    max_connection_age_s: float = Field(
        3600.0, gt=0, description="Longest time that a connection is kept; callers connect again."
    )
    caller_rate: float | None = Field(
        None, gt=0, description="Images per second that one caller may send; none: no limit."
    )
    caller_burst: int = Field(
        64, ge=1, description="Images that a caller may send at once before the rate applies."
    )
    request_timeout_s: float = Field(30.0, gt=0, description="Longest time for one request.")
    drain_timeout_s: float = Field(
        25.0, gt=0, description="Longest time to finish requests when the server stops."
    )
    decode_threads: int = Field(2, ge=1, description="Processes or threads that decode images.")
    decode_in: Literal["process", "thread"] = Field(
        "process",
        description="Where images are decoded; a process that a hostile image crashes is replaced.",
    )
    decode_timeout_s: float = Field(10.0, gt=0, description="Longest time to decode an image.")
    compression: Literal["none", "gzip", "deflate"] = Field(
        "none", description="Of answers, for callers that accept it."
    )
    models: Path | None = Field(
        None, description="Folder of bundles; a new one that passes its checks becomes the default."
    )
    watch_interval_s: float = Field(
        2.0, gt=0, description="How often the models folder is looked at."
    )
    max_models: int = Field(
        3, ge=1, description="Most models in memory; the least recently asked one makes room."
    )
    acceptance: Path | None = Field(
        None,
        description="Folder of class folders of images that a new model must answer well enough.",
    )
    accuracy_margin: float = Field(
        0.01, ge=0, le=1, description="By how much a new model's accuracy there may be lower."
    )
    calibration_margin: float = Field(
        0.01, ge=0, le=1, description="By how much its top-label calibration error may be higher."
    )
    false_positive_margin: float = Field(
        0.005, ge=0, le=1, description="By how much its share of flagged images may be higher."
    )
    shadow_share: float = Field(
        0.1, gt=0, le=1, description="Share of calls that a shadow model answers silently."
    )
    state_dir: Path | None = Field(
        None, description="Folder that keeps what operators told the server over a restart."
    )
    require_signature: bool = Field(False, description="Load only bundles signed by a trusted key.")
    trusted_keys: Path | None = Field(
        None, description="File or folder of public keys (PEM) whose signatures count."
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate chain (PEM); read again when it changes."
    )
    tls_key: Path | None = Field(None, description="Its private key (PEM).")
    tls_client_ca: Path | None = Field(
        None, description="Authorities (PEM) that callers' certificates must come from."
    )
    insecure: bool = Field(False, description="Allow plaintext beyond this machine.")
    tokens: Path | None = Field(
        None, description="File of tokens with their roles; see ibinn-serve token --help."
    )
    reflection: bool = Field(True, description="Tell callers the contract (gRPC reflection).")
    records: str | None = Field(
        None,
        description="Database of the records (sqlite:///FILE, postgresql+psycopg://..., or none to "
        "keep none); not set: SQLite in the state folder, or no records where there is none.",
    )
    audit: Literal["best_effort", "required"] = Field(
        "best_effort",
        description="Whether an answer waits until its record is durable, or never does.",
    )
    records_queue: int = Field(
        10_000, ge=1, description="Most entries that wait to be written; best effort drops more."
    )
    records_timeout_s: float = Field(
        5.0, gt=0, description="Longest time that a call waits for the records."
    )
    receipt_key: Path | None = Field(
        None,
        description="File with the key that signs receipts, the same for all replicas; none: one "
        "made in the state folder, or for this run where there is none.",
    )
    keep_images: Literal["none", "sampled", "flagged", "flagged_and_sampled", "all"] = Field(
        "none", description="Which images are kept beside their records."
    )
    keep_share: float = Field(
        0.01, gt=0, le=1, description="Share of images that are kept where they are sampled."
    )
    images: str | None = Field(
        None,
        description="Where kept images lie, a folder or an fsspec URL; none: in the state folder.",
    )
    images_quota_bytes: int = Field(
        10 * 2**30, ge=1, description="Most bytes of kept images; the oldest make room."
    )
    images_ttl_days: float = Field(30.0, gt=0, description="How long images are kept.")
    drift: bool = Field(True, description="Watch for drift, and suspend the guarantee at an alarm.")
    drift_false_alarm_rate: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Chance that all detectors of one process together ever raise a false alarm.",
    )
    drift_window: int = Field(
        500, ge=50, description="Images that the figures of recent images are of."
    )
    sentinels: Path | None = Field(
        None,
        description="Folder of held-out images that are sent through the whole path again and "
        "again, to measure the false-positive rate.",
    )
    sentinel_interval_s: float = Field(
        10.0, gt=0, description="Time from one such image to the next."
    )
    max_image_bytes: int = Field(16 * 2**20, ge=1, description="Largest encoded image in bytes.")
    max_image_px: int = Field(40_000_000, ge=1, description="Largest width times height.")
    max_side_px: int = Field(16_384, ge=1, description="Largest side of an image.")
    log_format: Literal["text", "json"] = Field("text", description="How log entries look.")
    traces: str | None = Field(
        None, description="OTLP endpoint (host:port of a collector) for traces; none: no traces."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log entries written."
    )

    @property
    def max_message_bytes(self) -> int:
        """Largest request that gRPC takes; a larger one never reaches our own limits.

        Twice the image limit: an image somewhat too large gets an answer that names the limit,
        a much larger one costs no memory.
        """
        return 2 * self.max_image_bytes + 2**16

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order in which values are looked for."""
        path = init_settings().get("config") or os.environ.get(f"{PREFIX}CONFIG")
        file = (TomlConfigSettingsSource(settings_cls, toml_file=Path(path)),) if path else ()
        return (init_settings, env_settings, *file)


def load(flags: Mapping[str, Any]) -> Settings:
    """The settings in force.

    Args:
        flags: Values given on the command line; None means not given.

    Raises:
        ConfigError: A value or a key of the file is not valid, or the file cannot be read.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    path = given.get("config") or os.environ.get(f"{PREFIX}CONFIG")
    if path and not Path(path).is_file():
        raise ConfigError(f"there is no settings file {path}; give --config the path of one")
    try:
        return Settings(**given)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"settings file {path} is not TOML: {error}; correct it") from error
    except ValidationError as error:
        raise ConfigError("; ".join(map(_in_words, error.errors()))) from error
    except SettingsError as error:
        raise ConfigError(str(error)) from error


def _in_words(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    if error["type"] == "extra_forbidden":
        return f"there is no setting {name!r}; known are {', '.join(Settings.model_fields)}"
    flag = name.replace("_", "-")
    return (
        f"setting {name}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}; "
        f"set --{flag}, {PREFIX}{name.upper()} or {name} in the settings file"
    )
