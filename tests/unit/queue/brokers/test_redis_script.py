"""The functions of ``brokers/lua``, told in the stories of `tests.support.redis_scenarios`, on both servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.limit_scenarios import SCENARIOS
from tests.support.redis_scenarios import Scenario
from tests.support.redis_script import LIBRARY, Raw, Script


@pytest.fixture(scope="module")
def raw(each_redis_url: str) -> Iterator[Raw]:
    raw = Raw(each_redis_url)
    raw.load()
    yield raw
    raw.close()


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_scenario(each_redis_url: str, raw: Raw, scenario: Scenario):
    scenario(Script(each_redis_url, raw, LIBRARY))
