"""A typed client of the classification service, synchronous and for asyncio.

    >>> from ibinn.client import Client
    >>> with Client("localhost:50051") as client:            # doctest: +SKIP
    ...     answer = client.classify("photo.jpg")
    ...     print(answer.top.name, answer.verdict, answer.reason)
    ...     for answer in client.classify_many(paths):
    ...         ...

Results are those of `ibinn.types`, the same as from the library. An answer that is not a result
raises a subclass of `ibinn.errors.RemoteError`; an unknown (out-of-distribution) image is a
result. `AdminClient` tells a server what to serve. Importing this package does not import torch.
"""

from ibinn.client.admin import AdminClient
from ibinn.client.aio import AsyncClient
from ibinn.client.channels import ClientTls, Connection
from ibinn.client.clients import Client
from ibinn.client.ledger import Answered
from ibinn.client.retries import Retry

__all__ = [
    "AdminClient",
    "Answered",
    "AsyncClient",
    "Client",
    "ClientTls",
    "Connection",
    "Retry",
]
