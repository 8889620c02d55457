"""A test of the tests: each line of ``brokers/lua`` matters to a scenario, and so does each rule that it keeps.

Every mutant is loaded as a library under its own name and told the scenarios until one fails; the one that caught the
last mutant goes first. A line whose removal does not parse counts as caught. A mutant that hangs costs its server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from asyncworker.queue import server
from asyncworker.queue.brokers.redis import TEXT
from tests.support.limit_scenarios import SCENARIOS
from tests.support.redis_scenarios import Scenario
from tests.support.redis_script import Raw, Script, ScriptError
from tests.support.servers import long_lived

pytestmark = pytest.mark.once

HANG_S = 0.7
DEAR_S = 0.02
"""What a scenario takes that is told after all others, however much it catches."""


RULES = {
    "the fence is off": ("if not beat then", "if not beat then beat = '0:0:1' end if false then"),
    "a repeat is applied again": ("if ahead == 0 then", "if false then"),
    "a late copy is applied": ("if ahead < 0 then", "if false then"),
    "a gap goes unnoticed": ("if ahead > 1 or", "if"),
    "a result is not written": ("    bulk('HSET', bucket, fields)", "    local _ = fields"),
    "a result lives for ever": ("call('EXPIRE', key, ttl, 'NX')", "0"),
    "a bucket never lives longer": ("call('EXPIRE', key, ttl, 'GT') == 0", "true"),
    "a younger result shortens a bucket's life": ("call('EXPIRE', key, ttl, 'GT')", "call('EXPIRE', key, ttl)"),
    "a failure's record lives for ever": ("state .. record, 'EX', number)", "state .. record)"),
    "a claim is not recorded": ("  bulk('HSET', mine, fields)", "  local _ = fields"),
    "what is due is kept": ("bulk('ZREM', delayed, due)", "local _ = due"),
    "a child that ended releases nobody": ("  release_if_over(parent)", "  local _ = parent"),
    "a parent is released before its last child": ("and done == total", "and true"),
    "a parent is released before it is sealed": ("state == 'wait' and done", "state ~= 'over' and done"),
    "a parent is released twice": ("if state ~= 'over' and (all", "if (all"),
    "a failed child releases nobody": ("(all or failed ~= '0')", "(all)"),
    "progress counts no units": ("call('HINCRBY', family, 'units', units)", "local _ = units"),
    "a parent is released before the last step of its reduction": ("(steps or '0') == '0'", "true"),
    "a parent is opened by whom it does not belong to": (
        "local open = call('HEXISTS', mine, id) == 1 and",
        "local open =",
    ),
    "what is no parent is opened": ("if open and has(open, PARENT) then", "if open then"),
    "steps are counted as partitions": ("== 1 and 'steps' or name", "== 1 and name or name"),
    "opened again, steps are forgotten": ("call('HSETNX', family, 'steps', 0)", "call('HSET', family, 'steps', 0)"),
    "a settle needs no hold": (
        "if call('HDEL', mine, id) == 0 then\n    return\n  end\n  local body = call('HGET', bodies, id)\n  if not body then\n    return\n  end\n  let_go(id, body)\n  local note = note_of(id)\n  if op",
        "call('HDEL', mine, id)\n  local body = call('HGET', bodies, id)\n  if not body then\n    return\n  end\n  let_go(id, body)\n  local note = note_of(id)\n  if op",
    ),
    "a run needs no hold": ("if held[k] then", "if true then"),
    "reap does not compare": ("(args[3] ~= '' and args[3] ~= was)", "false"),
    "reap compares only epochs that are known": ("if not was or (args[3]", "if was and (args[3]"),
    "a delivery costs nothing": ("note.d = (note.d or 0) + 1", "note.d = note.d or 0"),
    "the worker's limit goes first": ("own and own + APART or tonumber(most)", "tonumber(most)"),
    "a cancel is lost on retry": ("elseif note.c then", "elseif false then"),
    "a cancel is lost when its worker dies": ("  if note.c then", "  if false then"),
    "a note is kept": ("  call('HDEL', notes, id)", "  local _ = id"),
    "a waiter is told twice": ("if inbox == args[2] then", "if false then"),
    "a parent's children stay": ("tag .. 'o:' .. id, tag .. 'h:' .. id }", "tag .. 'h:' .. id }"),
    "what a job waited for stays": (", tag .. 'h:' .. id }", " }"),
    "a dead letter loses what it was given": ("if call('EXISTS', tag .. 'z:' .. id) == 0 then", "if true then"),
    "a job runs before the last of its formers is over": ("if call('EXISTS', awaited) == 0 then", "if true then"),
    "a job hears twice of one former": ("body and call('ZSCORE', awaited, former)", "body and '0'"),
    "a former's failure is no reason": ("if not options.allow_failure then", "if false then"),
    "a former's failure is always a reason": ("if not options.allow_failure then", "if true then"),
    "a former that nobody knows is waited for": ("if not is_known(id) then", "if false then"),
    "a delayed job runs when its formers are over": ("tonumber(call('HGET', family, 'due'))", "0"),
    "one call tells any number of followers": ("math.min(waiting, TOLD - told)", "waiting"),
    "who was not told in one call never is": ("if count < waiting then", "if false then"),
    "who failed first is forgotten": ("and record[6] == 'dependency' then", "and false then"),
    "a debounced call takes a follower's place": ("not old or has(old, AFTER) or", "not old or"),
    "a blocked job takes room": ("not has(body, AFTER) and room_in", "room_in"),
    "a child is claimed although its parent is over": (
        "elseif parent and not is_taking(parent) then",
        "elseif false then",
    ),
    "a child enters although its parent is over": (
        "if parent and not is_taking(parent) then\n    return 'c'",
        "if false then\n    return 'c'",
    ),
    "a call is applied twice": (
        "if tonumber(last) >= tonumber(args[3]) then",
        "if tonumber(last) > tonumber(args[3]) then",
    ),
    "a late call is applied": ("if tonumber(last) >= tonumber(args[3]) then", "if last == args[3] then"),
    "an id in use is taken": ("known[id] = found[k]", "local _ = found"),
    "a failed id is taken": ("places[#places + 1] = tag .. 'f:' .. id", "local _ = id"),
    "an id is taken twice in a call": ("      known[id] = true", "      local _ = id"),
    "a parent finds no room": ("local why = not parent and holder == '' and", "local why = not parent and"),
    "a child finds no room": ("local why = not parent and holder == '' and", "local why = holder == '' and"),
    "a full queue takes one more": ("if room_in(queue) < 1 then", "if room_in(queue) < 0 then"),
    "a full queue takes one more that is special": (
        "AFTER) and room_in(queue) < 1 then",
        "AFTER) and room_in(queue) < 0 then",
    ),
    "a full queue takes a run": ("elseif room < 1 then", "elseif room < 0 then"),
    "delayed jobs take no room": (" - call('ZCARD', tag .. 'd:' .. queue) - (waiting", " - (waiting"),
    "a parent is a dead letter": ("if state == 'f' and not has(body, PARENT) then", "if state == 'f' then"),
    "whatever ends is a dead letter": ("if state == 'f' and not has", "if not has"),
    "a replay pushes in": (
        "if body and not has(body, PARENT) and not refusal(queue_of(body), body) then",
        "if body and not has(body, PARENT) then",
    ),
    "a purge takes all": ("if call('ZSCORE', dead, args[k]) then", "if true then"),
    "a key is taken twice": ("== 1 then\n    return 'u' .. twin", "== 1 then\n    local _ = twin"),
    "a later call is refused while one runs": ("if twin and not read_options(body).debounce and", "if twin and"),
    "a later call takes over what has begun": ("or note_of(twin).a or", "or"),
    "a replayed call is a later one": ("local key = delay > 0 and key_of(body)", "local key = key_of(body)"),
    "a job gives up a key that is another's": ("if key and call('HGET', locks, key) == id then", "if key then"),
    "a key outlives its job": ("debounce and call('HEXISTS', bodies, twin) == 1 then", "debounce then"),
    "the order of levels is one": ("lowest_first and rank or 9 - rank", "9 - rank"),
    "quotas are ignored": ("math.min(most[k], want - before)", "want - before"),
    "all is unpacked at once": ("local SLICE = 1000", "local SLICE = 100000"),
    "looks without end": ("claimed.looks < POPS and ", ""),
    "who looks at all lists finds what nobody speaks of": (" and levels:find(level, 1, true) do", " do"),
    "a level that is empty stays known": ("if #ids < room then", "if false then"),
    "a level that may hold more is forgotten": ("if #ids < room then", "if true then"),
    "what is due is looked for in each step": ("if queue.due and queue.due <= now then", "if true then"),
    "a bad item undoes the rest": ("local fine, why = pcall(act, id, ...)", "local fine, why = true, act(id, ...)"),
    "what was handed and never heard of is lost": ("or args[6] == '2' and call('HLEN', mine) > 1 then", "then"),
    "who holds what it knows of hears of that again": ("args[6] == '2' and call('HLEN'", "call('HLEN'"),
    "a job is handed to who does not know what that is": ("epoch:sub(1, 1) ~= 'h' or", ""),
    "a job is handed to who holds another": (" or call('HLEN', mine) ~= 1 then", " then"),
    "a large job is handed": (" or #body > INLINE or", " or"),
    "a limited job is handed without a permit": (" or is_limited(body) or", " or"),
    "a job of a paused queue is handed": ("if levels or paused or", "if levels or"),
    "what is handed overtakes what waits": ("if levels or paused or", "if paused or"),
    "what is handed overtakes what is due": (" or tonumber(due or math.huge) <= now then", " then"),
    "a job is handed to who does not listen": ("' ' .. body) == 0 then", "' ' .. body) < 0 then"),
    "who was handed a job is no longer idle": (
        "call('SRANDMEMBER', tag .. 'i:' .. queue)",
        "call('SPOP', tag .. 'i:' .. queue)",
    ),
    "who is alone is never told of others": ("lone[1]:sub(1, 1) == 'h'", "false"),
    "who is alone is told of others who cannot read that": ("lone[1]:sub(1, 1) == 'h'", "lone[1] ~= ''"),
    "who is not alone is told of others": ("call('HLEN', beats) == 1 and", "call('HLEN', beats) >= 1 and"),
    "who is alone always looks": ("args[3] == '2' and joined == '!'", "args[3] == '2'"),
    "who was told of others and found no office forgets them": ("(office and '' or joined)", "''"),
    "who was told of others is told for ever": ("(office and '' or joined)", "joined"),
    "a wake-up for a dead inbox is lost": ("'w' .. queue) > 0", "'w' .. queue) >= 0"),
    "who wakes others wakes itself": (
        "      call('SREM', idle, epoch)",
        "      local _ = idle",
    ),
    "who has enough wakes others": ("return levels ~= ''", "return true"),
    "a delayed child counts for nobody": (
        "call('HINCRBY', tag .. 'j:' .. parent, counted_as(parent, 'total'), 1)",
        "local _ = parent",
    ),
    "a limit is one too high": (
        "call('SCARD', tag .. 'l:' .. gate.name) >= gate",
        "call('SCARD', tag .. 'l:' .. gate.name) > gate",
    ),
    "a permit never comes back": ("call('SREM', tag .. 'l:' .. gate.name, id) == 0", "true"),
    "several are called up to one place": ("if tonumber(rank) == CALLED then", "if false then"),
    "a low priority waits for ever": ("% LOWEST_FIRST == 0", "% LOWEST_FIRST == 99"),
    "a rate gives more than its burst": ("gate.take - gate.room", "gate.take - 2 * gate.room"),
    "a rate forgets": ("return math.max(now * 1000, math.min(till, most))", "return now * 1000"),
    "a rate remembers too long": ("if till > most then", "if false then"),
    "a dear job never starts": ("math.min(rate[5], burst)", "rate[5]"),
    "a rate is worth a fraction more": ("take = math.ceil(", "take = math.floor("),
    "a worker's numbers do not hold": ("set[1] and cmsgpack.unpack(set[1]) or", ""),
    "a worker's rates do not hold": ("unpack(set[2] and cmsgpack.unpack(set[2]) or {", "unpack({"),
    "a step does not go on with whom it called up": ("until not moved or", "until true or"),
    "a step looks for ever at what is held up": (
        "    elseif is_limited(found[k]) and not guarded(admit, id, found[k]) then\n      claimed.looks = claimed.looks + 1",
        "    elseif is_limited(found[k]) and not guarded(admit, id, found[k]) then\n      claimed.looks = claimed.looks + 0",
    ),
    "what is delayed includes the bells": (" - (waiting or 0) + (bells or 0)", " - (waiting or 0)"),
    "who waits takes no room": (" - (waiting or 0) + (bells or 0)", " + (bells or 0)"),
    "another version's body is read": ("version == 49 and (flags", "(flags"),
    "what is too late takes a permit": ("ipairs((blocker or late) and {}", "ipairs(blocker and {}"),
    "who waits at a gate has passed others": ("ipairs((blocker or late) and {}", "ipairs(late and {}"),
    "a newcomer overtakes who waits": ("(came == 0 or k > came and", "(k > came and came > 0 and"),
    "who was called up may be overtaken": (
        "(came == 0 or k > came and tonumber(rank_of_first) == CALLED)",
        "came == 0",
    ),
    "two who were called up give way for ever": ("came == 0 or k > came and tonumber", "came == 0 or tonumber"),
    "what was cancelled still counts as queued": ("queue .. ':g', -1)", "queue .. ':g', 0)"),
}


class Court:
    """A server of its own, on which each mutant is tried."""

    def __init__(self) -> None:
        self._open()
        self._raw.load("mutant", TEXT)
        self._cost = {name: self._cost_of(tell) for name, tell in SCENARIOS.items()}
        self._scenarios = sorted(SCENARIOS.items(), key=lambda one: self._cost[one[0]])

    def _cost_of(self, tell: Scenario) -> float:
        begun = time.perf_counter()
        try:
            tell(Script(self._server.url, self._raw, "mutant"))
        except Exception:
            return 0.0  # it fails as it is: that is to be seen first
        return time.perf_counter() - begun

    def _open(self) -> None:
        self._server = server.start()
        self._alive = long_lived(self._server.pid)
        self._alive.__enter__()
        self._raw = Raw(self._server.url, HANG_S)

    def close(self) -> None:
        self._raw.close()
        self._server.stop()
        self._alive.__exit__(None, None, None)

    def verdict(self, text: str) -> str:
        """Return the name of a scenario that fails on this text, '' when all are content."""
        try:
            self._raw.load("mutant", text)
        except ScriptError:
            return "does not load"
        for place, (name, tell) in enumerate(self._scenarios):
            try:
                tell(Script(self._server.url, self._raw, "mutant"))
            except Exception as exc:
                if self._cost[name] < DEAR_S:
                    self._scenarios.insert(0, self._scenarios.pop(place))
                if isinstance(exc, OSError):
                    self.close()
                    self._open()
                else:
                    self._raw("FLUSHALL")
                return name
        self._raw("FLUSHALL")
        return ""


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    court = Court()
    yield court
    court.close()


def code_lines() -> dict[int, str]:
    lines = TEXT.split("\n")
    end_of_head = next(n for n, line in enumerate(lines) if line.endswith("]]"))
    code = {n: line for n, line in enumerate(lines) if n > end_of_head}
    return {n: line for n, line in code.items() if line.strip() and not line.strip().startswith("--")}


def test_the_script_as_it_is(court: Court):
    assert court.verdict(TEXT) == ""


@pytest.mark.timeout(240)
def test_each_line_matters(court: Court):
    lines = TEXT.split("\n")
    survivors = [
        f"line {n + 1}: {line.strip()}"
        for n, line in code_lines().items()
        if not court.verdict("\n".join([*lines[:n], "", *lines[n + 1 :]]))
    ]
    assert not survivors, "removing one of these lines changes nothing that a scenario sees:\n" + "\n".join(survivors)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_matters(court: Court, rule: str):
    old, new = RULES[rule]
    assert TEXT.count(old) == 1, f"{old!r} stands {TEXT.count(old)} times in the script"
    verdict = court.verdict(TEXT.replace(old, new))
    assert verdict not in {"", "does not load"}, verdict
