"""A whole server says in its answers whether the guarantee holds, over a restart as well."""

from __future__ import annotations

import asyncio
import itertools

from ibinn.types import Guarantee
from tests.service.drift.calibrated import Calibrated, answers
from tests.service.running import running
from tests.service.stub import png


class Drifting(Calibrated):
    """Answers as to images that are unlike the calibration images."""

    def __init__(self) -> None:
        super().__init__()
        self._script = itertools.cycle(answers(self, 200, shift=2.0))

    def _answer(self, image):
        self.prediction = next(self._script)
        return super()._answer(image)


async def test_answers_say_that_the_guarantee_is_suspended_until_it_is_acknowledged(tmp_path):
    async with running(Drifting(), state_dir=tmp_path) as server:
        first = await server.client.classify(png())
        assert first.guarantee is Guarantee.HELD
        async with asyncio.timeout(60):
            while (found := await server.client.classify(png())).guarantee is Guarantee.HELD:
                pass
        assert "detector" in found.guarantee_reason
    async with running(Calibrated(), state_dir=tmp_path) as server:
        again = await server.client.classify(png())
        assert again.guarantee is Guarantee.SUSPENDED
        assert again.guarantee_reason == found.guarantee_reason
        await server.server.drift.acknowledge(reason="new camera", caller="ann")
        assert (await server.client.classify(png())).guarantee is Guarantee.HELD
