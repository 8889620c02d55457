"""Servers for those who ask, and a look at what each test leaves behind.

| fixture               | scope   | gives                                                                      |
|-----------------------|---------|----------------------------------------------------------------------------|
| `seed`                | test    | a number, new each time: what is drawn from it must not matter             |
| `redis_url`           | session | a Valkey of this test process                                              |
| `debian_redis_url`    | session | Debian's Redis, or a skip                                                  |
| `each_redis_url`      | session | the test runs on both                                                      |
| `limited_redis_url`   | session | a Valkey as a user with our rights alone, in namespaces ``test-…``         |
| `fresh_redis_url`     | test    | `redis_url`, emptied                                                       |
| `namespace`           | test    | a name that no other test has                                              |
| `immortal_keys`       | test    | a function: names of Redis keys without expiry, ``(url, pattern)``         |
| `postgres_dsn`        | module  | an empty database of the wheel's PostgreSQL 18; append ``?table=…``        |
| `debian_postgres_dsn` | module  | the same on Debian's PostgreSQL, or a skip                                 |
| `each_postgres_dsn`   | module  | the test runs on both                                                      |

With ``--long`` the tests that are marked so run too; with ``--repeat N`` those marked ``bars`` run N times.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import redis

from tests.support import leaks, servers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")
    parser.addoption("--repeat", type=int, default=1, help="how many times to run each test marked bars")


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist's processes must find the same tests: one hash seed for all of them, another in each run.
    os.environ.setdefault("PYTHONHASHSEED", str(random.randrange(2**32)))
    config.addinivalue_line("markers", "long: takes long; runs with --long only")
    config.addinivalue_line("markers", "bars: an experiment in short, on fresh draws; its bars hold on any")
    config.addinivalue_line("markers", "once: tells nothing about a version of Python; .ci/run runs it on one of them")
    config.addinivalue_line("markers", "leaks: leaves threads or processes behind on purpose")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    times = metafunc.config.getoption("--repeat")
    if times > 1 and metafunc.definition.get_closest_marker("bars"):
        metafunc.fixturenames.append("turn")
        metafunc.parametrize("turn", range(times))


@pytest.fixture
def seed() -> int:
    return secrets.randbits(32)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


redis_url = pytest.fixture(scope="session", name="redis_url")(servers.valkey)
debian_redis_url = pytest.fixture(scope="session", name="debian_redis_url")(servers.debian_redis)
limited_redis_url = pytest.fixture(scope="session", name="limited_redis_url")(servers.limited_redis)
postgres_server = pytest.fixture(scope="session", name="postgres_server")(servers.postgres)
debian_postgres_server = pytest.fixture(scope="session", name="debian_postgres_server")(servers.debian_postgres)


@pytest.fixture(scope="session", params=["redis_url", "debian_redis_url"], ids=["valkey", "debian-redis"])
def each_redis_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def fresh_redis_url(redis_url: str) -> str:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def immortal_keys() -> Callable[..., list[str]]:
    return lambda url, pattern="*": sorted(leaks.immortal_keys(url, pattern))


@pytest.fixture(scope="module")
async def postgres_dsn(postgres_server: str) -> AsyncIterator[str]:
    async with database(postgres_server) as dsn:
        yield dsn


@pytest.fixture(scope="module")
async def debian_postgres_dsn(debian_postgres_server: str) -> AsyncIterator[str]:
    async with database(debian_postgres_server) as dsn:
        yield dsn


@pytest.fixture(scope="module", params=["postgres_dsn", "debian_postgres_dsn"], ids=["wheel", "debian-postgres"])
def each_postgres_dsn(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@asynccontextmanager
async def database(server: str) -> AsyncIterator[str]:
    """Make an empty database and drop it afterwards, whoever is still connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(f"{server}postgres")
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        yield f"{server}{name}"
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves asyncio tasks, threads or child processes behind."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_tasks_left")
    threads, processes = leaks.threads(), leaks.processes()
    yield
    if request.node.get_closest_marker("leaks"):
        return
    assert not (more := leaks.left(leaks.threads, threads)), f"threads left behind: {more}"
    assert not (more := leaks.left(leaks.processes, processes)), f"child processes left behind: {more}"


@pytest.fixture
async def _no_tasks_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    more = await leaks.tasks_left(before)
    assert not more, f"asyncio tasks left behind: {more}"
