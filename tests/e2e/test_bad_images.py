"""The real server with the embedded model refuses bad images one by one, and goes on serving."""

from __future__ import annotations

import pytest

from ibinn.client import Client
from ibinn.demo import running_server
from ibinn.errors import InvalidImageError
from ibinn.samples import thumbnails
from tests.service.test_errors import bomb, truncated

BAD = {
    "empty": b"",
    "truncated": truncated(),
    "not an image": b"hello",
    "100 megapixels in a few kilobytes": bomb(),
}


@pytest.mark.slow
@pytest.mark.usefixtures("embedded_bundle")
def test_bad_images_get_their_own_errors_and_the_server_goes_on() -> None:
    good = thumbnails()[0].data
    with running_server() as target, Client(target) as client:
        expected = client.classify(good)
        messages = set()
        for name, data in BAD.items():
            with pytest.raises(InvalidImageError) as refusal:
                client.classify(data)
            assert refusal.value.code == "INVALID_ARGUMENT", name
            messages.add(str(refusal.value))
            again = client.classify(good)
            assert (again.top, again.verdict) == (expected.top, expected.verdict), name
    assert len(messages) == len(BAD)
