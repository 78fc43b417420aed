"""A typed client of the classification service, synchronous and for asyncio.

    >>> from ibinn.client import Client
    >>> with Client("localhost:50051") as client:            # doctest: +SKIP
    ...     answer = client.classify("photo.jpg")
    ...     print(answer.top.name, answer.verdict, answer.reason)
    ...     for answer in client.classify_many(paths):
    ...         ...

Results are those of `ibinn.types`, the same as from the library. An answer that is not a result
raises a subclass of `ibinn.errors.RemoteError`; an unknown (out-of-distribution) image is a
result. What was true of an image is told with `submit_feedback`; `get_record` and `entries` read
what a server keeps of its answers. `AdminClient` tells a server what to serve. Importing this
package does not import torch.
"""

from ibinn.client.admin import AdminClient
from ibinn.client.aio import AsyncClient
from ibinn.client.channels import ClientTls, Connection
from ibinn.client.clients import Client
from ibinn.client.ledger import Answered
from ibinn.client.records import Erased, Page, content, record_id_in
from ibinn.client.retries import Retry
from ibinn.client.statements import truth_of

__all__ = [
    "AdminClient",
    "Answered",
    "AsyncClient",
    "Client",
    "ClientTls",
    "Connection",
    "Erased",
    "Page",
    "Retry",
    "content",
    "record_id_in",
    "truth_of",
]
