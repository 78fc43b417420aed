#!/usr/bin/env python3
"""Whether the server in this container is healthy: exit code 0 (SERVING), 1 (not), 2 (cannot ask).

It asks grpc.health.v1 at the server's own port. Where the server speaks TLS (IBINN_TLS_CERTIFICATE)
so does this, trusting exactly that certificate; where the server asks for client certificates
(IBINN_TLS_CLIENT_CA), give one with --certificate and --key.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

MODEL = "ibinn.v1.ClassificationService"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; one line on standard error says what is wrong."""
    options = _parser().parse_args(arguments)
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        with _channel(options) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=options.service),
                timeout=options.timeout,
                wait_for_ready=True,
            )
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        print(f"{options.address} does not answer: {code.name}: {details}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if name != "SERVING":
        print(f"{options.address} says {name} of {options.service!r}", file=sys.stderr)
    return 0 if name == "SERVING" else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ibinn-health", description=__doc__)
    port = os.environ.get("IBINN_PORT", "50051")
    parser.add_argument("--address", default=f"127.0.0.1:{port}", help="HOST:PORT (%(default)s)")
    parser.add_argument(
        "--service",
        default=MODEL,
        help="service asked about; '' asks only whether the process serves (%(default)s)",
    )
    parser.add_argument("--timeout", type=float, default=4.0, help="seconds (%(default)s)")
    parser.add_argument(
        "--tls-certificate",
        type=Path,
        default=os.environ.get("IBINN_TLS_CERTIFICATE") or None,
        help="the server's certificate (PEM); none: plaintext",
    )
    parser.add_argument("--certificate", type=Path, help="own certificate (PEM), if asked for")
    parser.add_argument("--key", type=Path, help="its private key (PEM)")
    return parser


def _channel(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    import grpc

    if options.tls_certificate is None:
        return grpc.insecure_channel(options.address)
    chain = Path(options.tls_certificate).read_bytes()
    if (options.certificate is None) != (options.key is None):
        raise ValueError("--certificate and --key go together; give both or none")
    own = None if options.certificate is None else options.certificate.read_bytes()
    key = None if options.key is None else options.key.read_bytes()
    return grpc.secure_channel(
        options.address,
        grpc.ssl_channel_credentials(
            root_certificates=chain, private_key=key, certificate_chain=own
        ),
        # The certificate names the host that callers know, not this one.
        options=[("grpc.ssl_target_name_override", _name(chain))],
    )


def _name(chain: bytes) -> str:
    """The first host name of the first certificate."""
    from cryptography import x509

    names = (
        x509.load_pem_x509_certificate(chain)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.DNSName)
    )
    if not names:
        raise ValueError("the server's certificate names no host; ask with another client")
    return names[0].replace("*", "health", 1)


if __name__ == "__main__":
    sys.exit(main())
