"""Checkup: looks a PostgreSQL over before datasets and results depend on it. Changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asyncworker.errors import SourceError
from asyncworker.finding import Finding, bad, fine, note
from asyncworker.mapreduce.database import Database, address

OLDEST = 13
SHORT_S = 10.0
_FACTS = """
    SELECT pg_catalog.current_setting('server_version') AS version,
        pg_catalog.current_setting('server_version_num')::int AS number,
        pg_catalog.current_setting('max_connections')::int AS most,
        (SELECT count(*) FROM pg_catalog.pg_stat_activity)::int AS connected,
        pg_catalog.pg_is_in_recovery() AS replica,
        pg_catalog.current_setting('fsync') AS fsync,
        current_user::text AS "user",
        (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS super,
        (SELECT setting::float / 1000 FROM pg_catalog.pg_settings WHERE name = 'statement_timeout') AS ours,
        (SELECT reset_val::float / 1000 FROM pg_catalog.pg_settings WHERE name = 'statement_timeout') AS timeout_s,
        pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_read,
        pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS may_make,
        n.nspname::text AS schema
    FROM pg_catalog.pg_namespace AS n WHERE n.nspname::text = $1
"""


async def look(url: str) -> AsyncIterator[Finding]:
    """Yield what is to be said of the database at *url*."""
    try:
        database = Database(address(url))
        try:
            async with database.transaction() as connection:
                schemas = await connection.fetchval("SELECT pg_catalog.current_schemas(true)::text[]")
                own = next((name for name in schemas if not name.startswith("pg_")), "public")
                about = await connection.fetchrow(_FACTS, "public" if own == "pg_catalog" else own)
        finally:
            await database.close()
    except SourceError as exc:
        yield bad("postgresql", str(exc), "mend --database, or the server")
        return
    yield fine("postgresql", f"{database.label} answers")
    if about is None:
        yield bad("schema", "there is none that this user may use", "CREATE SCHEMA, or GRANT USAGE on one")
        return
    for finding in _told(dict(about)):
        yield finding


def _told(about: dict[str, object]) -> list[Finding]:
    number, most, connected = int(str(about["number"])), int(str(about["most"])), int(str(about["connected"]))
    timeout_s, schema = float(str(about["timeout_s"])), about["schema"]
    version = f"PostgreSQL {about['version']}"
    found = [
        fine("version", version)
        if number >= OLDEST * 10_000
        else bad("version", version, f"PostgreSQL {OLDEST} or newer is needed"),
        fine("connections", f"{connected} of {most}")
        if connected < 0.8 * most
        else note("connections", f"{connected} of {most}", "raise max_connections, or put a pooler before it"),
        note("statement_timeout", f"{timeout_s:g} s", "long reads of ours set their own; a pooler may not let them")
        if 0 < timeout_s < SHORT_S
        else fine("statement_timeout", f"{timeout_s:g} s" if timeout_s else "none"),
    ]
    if about["replica"]:
        found.append(note("role", "it is a replica: it can be read, results cannot be written", "give the primary"))
    if about["fsync"] != "on":
        found.append(note("fsync", "off: a loss of power loses what was written", "set fsync = on"))
    if not about["may_read"]:
        found.append(
            bad("rights", f"no USAGE on schema {schema}", f"GRANT USAGE ON SCHEMA {schema} TO {about['user']}")
        )
    elif not about["may_make"]:
        mend = f"GRANT CREATE ON SCHEMA {schema} TO {about['user']}, or make the tables for it"
        found.append(note("rights", f"{about['user']} cannot make tables for results and outbox in {schema}", mend))
    elif about["super"]:
        found.append(note("rights", f"{about['user']} is a superuser", "a role with SELECT, and CREATE, is enough"))
    else:
        found.append(fine("rights", f"{about['user']} may read and make tables in {schema}"))
    return found
