"""A typed client of the classification service, synchronous and for asyncio.

    >>> from ibinn.client import Client
    >>> with Client("localhost:50051") as client:            # doctest: +SKIP
    ...     answer = client.classify("photo.jpg")
    ...     print(answer.top.name, answer.verdict, answer.reason)

Results are those of `ibinn.types`, the same as from the library. An answer that is not a result
raises a subclass of `ibinn.errors.RemoteError`; an unknown (out-of-distribution) image is a
result. Importing this package does not import torch.
"""

from ibinn.client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
