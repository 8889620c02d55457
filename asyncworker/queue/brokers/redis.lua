--[[ The queue as it lies in Redis: one function library, loaded by redis.py under names that carry a hash of this text.

All keys carry one hash tag, {<namespace>:0}: (so a cluster keeps them in one slot); KEYS[1] is always <tag>b.

  b               hash   epoch -> "seq:beat:lease_ms": who is alive. A step raises seq, a beat raises beat; with "!" after
                         the beat: it was alone, and somebody has joined
  a:<epoch>       hash   what an epoch holds: id -> when it was claimed, ms; '' -> its WorkerCard (MessagePack)
  e               hash   id -> body, of every job that is not over. Whoever removes the body ends the job
  x               hash   id -> note, only of jobs that need one
  r:<queue>:<p>   list   ids that are ready, of one priority; ids without a body are passed over
  d:<queue>       zset   <p><id> -> when it is due, ms; ~<gate> -> when that gate is to be looked at; or what is to go on
                         at once: ><id> more of the jobs that wait for it are to hear; <<id><place> it waits for more
                         jobs, from that place on
  o:<bucket>      hash   results: id less its last character -> that character -> record; as old as its youngest
  f:<id>          string how a job ended that did not succeed: state letter, record; its own TTL
  z               zset   dead letters: id -> until when, ms; jobs that failed and may be asked for again
  z:<id>          hash   of a dead letter b its body, d its deliveries; TTL
  j:<parent>      hash   a job with children: state (open: being cut, in its holder's hands; wait: for its children;
                         over: released), holder, total, done, failed, units, sealed, started; steps: of its reduction,
                         those not over, once it was opened again. Goes with the parent
  o:<parent>      hash   its children: part -> state letter, record; part:number -> 's', a chunk. Goes with the parent;
                         of one that failed both stay for a day, and z:<parent> has its body, to be opened anew. A child
                         whose id ends in ~2 is the copy of the one without: whoever succeeds first is that one, and who
                         holds the one is not given the other
  h:<id>          zset   the jobs that this one waits for -> their places among those it was enqueued with; those left
                         of one that failed because one of them did. It has a j: (state wait, then over; due), too,
                         and, where it wants to know how they ended, an o: (place -> state letter, record).
                         All three go with the job; those of a dead letter with that
  n:<id>          list   the jobs that wait for this one; at last, once it is over, its state letter and record
  u               hash   unique key -> id of the job that has it; counts while that job has a body
  i:<queue>       set    idle epochs, each to be woken once
  c               hash   <queue>:<letter> -> count: n enqueued, s f c e ended, r retried, d redelivered,
                         g gone (cancelled, while its id still lies in a list), w wait at gates, t what lies in d:<queue> and is no job
  w:<lane>        string a producer's last call: "seq:what was refused"; TTL
  m               hash   <queue>:p -> 1, it is paused; <queue>:b -> how many jobs may wait there; and what spares
                         steps from looking: <queue>:l -> the levels whose lists may hold something,
                         <queue>:d -> when the first of its delayed jobs is due, or earlier
  l               hash   what workers say of limits: l<name> -> how many in all, how many of a key; r<name> -> us that
                         a cost of 1 takes, burst; goes before what travels with jobs
  l:<gate>        set    ids that hold a permit; of a rate: string, until when it is spoken for, us; TTL
                         a gate is l<name> (in all), k<name>:<key>, r<name> or r<name>:<key>
  v:<gate>        hash   queue -> how often one of its jobs was called up; of queues of which some wait there
  q:<queue>:<gate> zset  ids that wait there -> 9 less priority, or -1: called up, and at the head of its list
  s               hash   name -> schedule (MessagePack), of those that people set; workers read them
  t               hash   name -> the last tick of that schedule, ms; also of those that workers bring along
  g               hash   name -> strike (MessagePack): what workers are not to start
  p               hash   id -> error, of jobs that could not be settled: nobody touches them again
  y               zset   <state><stretch> of each of the following that there is, or was lately
  y:<state><stretch> zset who ended so, f c e ids, s result buckets without 'o:', all with score 0 and so by age; made in
                         one stretch of 17 minutes (the first five characters of ids); as old as the youngest record
  y:b             zset   ids of jobs that may be blocked: that wait at a gate or for others, or have children; score 0
  k:1 k:2         string the epochs that sweep for a lease; TTL
  in:<name>       channel of an epoch or a client: 'w<queue>' look for work; 'j<ms> <id> <body>' this job is claimed
                         for you, who hold nothing; 'c<id>' stop this job, or this parent's children;
                         'v<state><id> <record>' this job is over; 'o<id>' it is over, fetch its record

  body = '1', flags (1 has options, 2 is a parent, 4 counts from its enqueue, 8 is unique, 16 waits for others, 128 has gates),
         priority, length of the queue's name, that name, [length of the options in two bytes, options as MessagePack map,] payload
  note = MessagePack map: a attempts spent, d deliveries, p put back, c cancel asked, w inboxes of who waits, e error,
         b when it was enqueued, ms, n jobs wait for it, k its checkpoint, h how far it is

Jobs are listed (LIST) from where they lie anyway: in lists, among what is delayed, in hands. Only of those that are
over there are lists of their own, y:; they cost a plain job nothing when it is enqueued, claimed, or settled without a
result, and a batch of results three commands (ZADD of its buckets, EXPIRE twice), whatever its size. No list is ever cleaned up: it
goes with its key, and what it tells that is true no longer is passed over.

A call that came before is answered, not applied again: a step's seq must follow the epoch's last one, a producer's
its lane's. ARGV's first is always the time: 0 (ask the server's clock) or, in tests, ms. ]]

local SLICE = 1000 -- values that are unpacked at once: Lua's stack ends at some thousands
local PROMOTED = 200 -- due jobs that one step moves in each queue
local TOLD = 200 -- jobs that one call tells how one ended that they wait for
local LINKED = 1000 -- jobs that one call lets others wait for
local POPS = 1000 -- looks into lists in one step: who cancelled a hundred thousand jobs must not stall the others
local SHOWN = 10 -- of the jobs that one waits for, so many are told
local INLINE = 4096 -- bytes of a record or a body that is published; larger ones are fetched
local LANE_TTL = 3600
local CANCELLED_TTL = 3600
local FAILED_TTL = 604800
local MOST_DEAD = 10000
local APART = 10 -- deaths that a job may meet beyond its own limit, while it runs in a process of its own
local PARENT, TIMED, UNIQUE, AFTER, LIMITED = 2, 4, 8, 16, 128 -- flags of a body
local DIGITS = 8 -- of a partition's number; those of steps have more
local PARTS_TTL = 86400 -- how long what a failed parent's children came to is kept for whoever opens it anew
local COPY = '~2' -- how the id of a child's copy ends
local CALLED = -1 -- rank of a job that waited at a gate and may come
local LOWEST_FIRST = 16 -- one call in so many goes to the lowest priority that waits
local LATE_MS = 1000 -- how late a job must be to pass without a permit: its worker must come to the same end
local ID = 26 -- characters; a child's id goes on with a dot and its part
local STRETCH = 5 -- characters of an id that are its time but for 17 minutes

local HOW = { f = 'failed', c = 'was cancelled', e = 'has expired' }
local AWAITED = '\129\161n\1' -- a note that says that jobs wait for this one, and nothing else

local FENCED = -1
local REPEATED = -2
local TAIL_LOST = -3
local LATE = -4

-- What `begin` gives each call: Redis' own door (closed while a library loads), its keys; and `read_clock`: its time.
local call
local tag, beats, bodies, notes, counts, parked, locks, switches, dead, limits, over, blocked
local time, now -- as it came, 0 for the server's; what it is, ms, once that was asked
local noted -- whether any job may have a note, once that was asked
local called, moved -- while jobs are claimed: who has been called up meanwhile; whether a list or a date changed
local ended, told, linked -- in this call: jobs that others wait for, how many of these have heard of it, or wait newly

local function begin(keys, args)
  if beats ~= keys[1] then
    call = redis.call
    beats = keys[1]
    tag = beats:sub(1, -2)
    bodies = tag .. 'e'
    notes = tag .. 'x'
    counts = tag .. 'c'
    parked = tag .. 'p'
    locks = tag .. 'u'
    switches = tag .. 'm'
    dead = tag .. 'z'
    limits = tag .. 'l'
    over = tag .. 'y'
    blocked = tag .. 'y:b'
  end
  time = tonumber(args[1])
  now = nil
  called = nil
  noted = nil
  ended = {}
  told = 0
  linked = 0
end

local function read_clock()
  now = now or time
  if now == 0 then
    local clock = call('TIME')
    now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  end
end

-- The bounds of slices of a list: for first, last in slices(list) do ... unpack(list, first, last).
local function slices(list)
  local first = 1 - SLICE
  return function()
    first = first + SLICE
    if first <= #list then
      return first, math.min(first + SLICE - 1, #list)
    end
  end
end

-- A command with any number of arguments; returns the sum of its answers.
local function bulk(command, key, values)
  local sum = 0
  for first, last in slices(values) do
    sum = sum + call(command, key, unpack(values, first, last))
  end
  return sum
end

-- HMGET of any number of fields.
local function pick(key, fields)
  local found = {}
  for first, last in slices(fields) do
    for k, value in ipairs(call('HMGET', key, unpack(fields, first, last))) do
      found[first + k - 1] = value
    end
  end
  return found
end

------------------------------------------------------------------------------------------------ bodies and notes

local function queue_of(body)
  return body:sub(5, 4 + body:byte(4))
end

local function level_of(body)
  return body:sub(3, 3)
end

local function has(body, flag)
  return bit.band(body:byte(2), flag) ~= 0
end

-- Whether a job has gates; of one that another version wrote nobody here knows.
local function is_limited(body)
  local version, flags = body:byte(1, 2)
  return version == 49 and (flags or 0) >= LIMITED
end

-- Where the payload begins, and the text of the options before it.
local function options_of(body)
  local start = 5 + body:byte(4)
  if body:byte(2) % 2 == 0 then
    return start
  end
  local size = body:byte(start) * 256 + body:byte(start + 1)
  return start + 2 + size, body:sub(start + 2, start + 1 + size)
end

local function read_options(body)
  local _, text = options_of(body)
  return text and cmsgpack.unpack(text) or {}
end

-- The key that no other job may have while this one lives.
local function key_of(body)
  if has(body, UNIQUE) then
    return read_options(body).unique
  end
end

local function note_of(id)
  local note = call('HGET', notes, id)
  return note and cmsgpack.unpack(note) or {}
end

local function save(id, note)
  noted = true
  call('HSET', notes, id, cmsgpack.pack(note))
end

-- The parent of a child, and which part of it the child is.
local function family_of(id)
  if id:sub(ID + 1, ID + 1) == '.' then
    return id:sub(1, ID), id:sub(ID + 2)
  end
end

------------------------------------------------------------------------------------------------ where a job waits

-- Wake one idle epoch; one whose inbox nobody reads is passed over.
local function wake(queue)
  local idle = tag .. 'i:' .. queue
  repeat
    local epoch = call('SPOP', idle)
    if not epoch then
      return
    end
  until call('PUBLISH', tag .. 'in:' .. epoch, 'w' .. queue) > 0
end

-- Claim a job that comes for an idle epoch that holds nothing, where nothing is to go before it: that saves the epoch
-- from asking. It stays idle, for it may have more. Returns whether it was claimed.
local function hand(epoch, queue, id, body)
  local mine = tag .. 'a:' .. epoch
  if epoch:sub(1, 1) ~= 'h' or #body > INLINE or is_limited(body) or call('HLEN', mine) ~= 1 then
    return false
  end
  read_clock()
  local levels, due, paused = unpack(call('HMGET', switches, queue .. ':l', queue .. ':d', queue .. ':p'))
  if levels or paused or tonumber(due or math.huge) <= now then
    return false
  end
  local since = string.format('%.0f', now)
  if call('PUBLISH', tag .. 'in:' .. epoch, 'j' .. since .. ' ' .. id .. ' ' .. body) == 0 then
    return false
  end
  call('HSET', mine, id, since)
  return true
end

-- Say that a list may hold something.
local function open_level(queue, level)
  local levels = call('HGET', switches, queue .. ':l') or ''
  if not levels:find(level, 1, true) then
    call('HSET', switches, queue .. ':l', levels .. level)
  end
end

-- Put ids at the end ('RPUSH') or at the head ('LPUSH') of a list; who finds it empty says that it no longer is.
local function push(command, queue, level, ids)
  local length
  for first, last in slices(ids) do
    length = call(command, tag .. 'r:' .. queue .. ':' .. level, unpack(ids, first, last))
  end
  if length == #ids then
    open_level(queue, level)
  end
end

-- Put a job at the end or at the head of its list.
local function ready(command, id, body)
  local queue = queue_of(body)
  push(command, queue, level_of(body), { id })
  wake(queue)
end

-- Put something among what is delayed; who sleeps until the next is due must hear of an earlier one.
local function delay(queue, member, due)
  local delayed = tag .. 'd:' .. queue
  local added = call('ZADD', delayed, due, member)
  if call('ZRANGE', delayed, 0, 0)[1] == member then
    call('HSET', switches, queue .. ':d', due)
    wake(queue)
  end
  return added
end

local function later(id, body, due)
  delay(queue_of(body), level_of(body) .. id, due)
end

-- How many jobs are ready in a queue, and how many more may wait there.
local function queued_in(queue)
  local queued = -(call('HGET', counts, queue .. ':g') or 0)
  for level = 0, 9 do
    queued = queued + call('LLEN', tag .. 'r:' .. queue .. ':' .. level)
  end
  return queued
end

local function room_in(queue)
  local most = call('HGET', switches, queue .. ':b')
  if not most then
    return math.huge
  end
  local waiting, bells = unpack(call('HMGET', counts, queue .. ':w', queue .. ':t'))
  return most - queued_in(queue) - call('ZCARD', tag .. 'd:' .. queue) - (waiting or 0) + (bells or 0)
end

------------------------------------------------------------------------------------------------ limits and rates

-- The gates of a job, the narrowest first: a limit's lets most jobs in (0: any number), a rate's has room.
local function gates_of(options)
  local limit = options.limit
  local rate = options.rate
  local set = call('HMGET', limits, 'l' .. (limit or { '' })[1], 'r' .. (rate or { '' })[1])
  local gates = {}
  if limit then
    local numbers = set[1] and cmsgpack.unpack(set[1]) or { limit[2], limit[3] }
    if limit[4] then
      gates[1] = { name = 'k' .. limit[1] .. ':' .. limit[4], most = numbers[2] }
    end
    gates[#gates + 1] = { name = 'l' .. limit[1], most = numbers[1] }
  end
  if rate then
    local unit, burst = unpack(set[2] and cmsgpack.unpack(set[2]) or { rate[2], rate[3] })
    gates[#gates + 1] = {
      name = 'r' .. rate[1] .. (rate[4] and ':' .. rate[4] or ''),
      take = math.ceil(math.min(rate[5], burst) * unit),
      room = math.ceil(burst * unit),
    }
  end
  return gates
end

local function line_of(queue, gate)
  return tag .. 'q:' .. queue .. ':' .. gate
end

local function speak_for(gate, till)
  local lives = math.ceil(till / 1000) - now + 60000
  call('SET', tag .. 'l:' .. gate.name, string.format('%.0f', till), 'PX', string.format('%.0f', lives))
end

-- Until when a rate is spoken for, us: no longer than its room, whatever its numbers or the clock were before.
local function spoken_for(gate)
  local till = tonumber(call('GET', tag .. 'l:' .. gate.name) or 0)
  local most = now * 1000 + gate.room
  if till > most then
    speak_for(gate, most)
  end
  return math.max(now * 1000, math.min(till, most))
end

-- For how long a gate has no room, us: 0 or less, it has; math.huge, until somebody leaves.
local function wait_at(gate)
  if gate.room then
    return spoken_for(gate) + gate.take - gate.room - now * 1000
  end
  return gate.most > 0 and call('SCARD', tag .. 'l:' .. gate.name) >= gate.most and math.huge or 0
end

local function take_permit(gate, id)
  if gate.room then
    speak_for(gate, spoken_for(gate) + gate.take)
  elseif gate.most > 0 then
    call('SADD', tag .. 'l:' .. gate.name, id)
  end
end

-- Leave a line, if that is where this job is; returns whether it was.
local function step_out(gate, queue, id)
  local line = line_of(queue, gate)
  local rank = call('ZSCORE', line, id)
  if not rank then
    return false
  end
  call('ZREM', line, id)
  call('ZREM', blocked, id)
  if call('EXISTS', line) == 0 then
    call('HDEL', tag .. 'v:' .. gate, queue)
  end
  if tonumber(rank) ~= CALLED then
    call('HINCRBY', counts, queue .. ':w', -1)
  end
  return true
end

-- Who is to be called up at a gate next; nobody while somebody is.
local function next_in(queue, gate)
  local line = line_of(queue, gate)
  local id, rank = unpack(call('ZRANGE', line, 0, 0, 'WITHSCORES'))
  if tonumber(rank) == CALLED then
    return nil
  end
  if (call('HGET', tag .. 'v:' .. gate, queue) + 1) % LOWEST_FIRST == 0 then
    local lowest = call('ZREVRANGE', line, 0, 0, 'WITHSCORES')[2]
    id = call('ZRANGEBYSCORE', line, lowest, lowest, 'LIMIT', 0, 1)[1]
  end
  return id
end

-- Call a job up from the line in which it waits; while jobs are claimed, it comes to its list when that is done.
local function call_up(queue, gate, id, body)
  call('HINCRBY', tag .. 'v:' .. gate, queue, 1)
  call('ZADD', line_of(queue, gate), CALLED, id)
  call('HINCRBY', counts, queue .. ':w', -1)
  if called then
    called[#called + 1] = { id, body }
  else
    ready('LPUSH', id, body)
  end
end

-- Call up who may pass a gate now; where time will bring that, let a step look again then.
local function stir(name)
  for _, queue in ipairs(call('HKEYS', tag .. 'v:' .. name)) do
    local id = next_in(queue, name)
    local body = id and call('HGET', bodies, id)
    for _, gate in ipairs(body and gates_of(read_options(body)) or {}) do
      local wait = gate.name == name and wait_at(gate) or math.huge
      if wait <= 0 then
        moved = true
        call_up(queue, name, id, body)
      elseif wait < math.huge then
        moved = true
        call('HINCRBY', counts, queue .. ':t', delay(queue, '~' .. name, now + math.ceil(wait / 1000)))
      end
    end
  end
end

local function stir_all(gates)
  for _, gate in ipairs(gates) do
    stir(gate.name)
  end
end

-- Whether a worker will certainly not start a job that is claimed now.
local function is_late(id, options)
  if options.until_s and now - LATE_MS > options.until_s * 1000 then
    return true
  end
  local note = note_of(id)
  local age = now - LATE_MS - (note.b or now)
  if options.deadline and age > options.deadline * 1000 then
    return true
  end
  return options.expires and not note.a and not note.d and age > options.expires * 1000
end

-- Whether a job that would be claimed may start: it takes all its permits, or waits at the first gate that holds it up.
-- One that is late needs none. A newcomer gives way to all that wait; who was called up at a narrower gate, to who was at
-- a wider one, never the other way round: else two could give way to each other for ever.
local function admit(id, body)
  local queue = queue_of(body)
  local rank = 9 - level_of(body)
  local options = read_options(body)
  local gates = gates_of(options)
  local late = is_late(id, options)
  local came = 0
  for k, gate in ipairs(gates) do
    came = step_out(gate.name, queue, id) and k or came
  end
  local blocker
  for k, gate in ipairs(late and {} or gates) do
    local first, rank_of_first = unpack(call('ZRANGE', line_of(queue, gate.name), 0, 0, 'WITHSCORES'))
    local yields = first and (came == 0 or k > came and tonumber(rank_of_first) == CALLED)
    blocker = blocker or (yields or wait_at(gate) > 0) and gate.name
  end
  for _, gate in ipairs((blocker or late) and {} or gates) do
    take_permit(gate, id)
  end
  if blocker then
    call('HINCRBY', tag .. 'v:' .. blocker, queue, 0)
    call('ZADD', line_of(queue, blocker), rank, id)
    call('ZADD', blocked, 0, id)
    call('HINCRBY', counts, queue .. ':w', 1)
  end
  stir_all(gates)
  return not blocker
end

-- Give back what a job holds, or its place in a line.
local function let_go(id, body)
  if not is_limited(body) then
    return
  end
  local gates = gates_of(read_options(body))
  for _, gate in ipairs(gates) do
    if gate.room or call('SREM', tag .. 'l:' .. gate.name, id) == 0 then
      step_out(gate.name, queue_of(body), id)
    end
  end
  stir_all(gates)
end

------------------------------------------------------------------------------------------------ how a job ends

-- A feeder that gives its parent back will seal it no more: the parent runs as it is.
local function give_back(id, body)
  if has(body, PARENT) then
    call('HSET', tag .. 'j:' .. id, 'state', 'over')
  end
  ready('LPUSH', id, body)
end

-- Tell those who wait for a job, and forget its note. Other jobs that do hear of it by `relay`.
local function tell(id, queue, note, state, record)
  local news = 'o' .. id
  if #record <= INLINE then
    news = 'v' .. state .. id .. ' ' .. record
  end
  for _, inbox in ipairs(note.w or {}) do
    call('PUBLISH', tag .. 'in:' .. inbox, news)
  end
  if note.n then
    call('RPUSH', tag .. 'n:' .. id, state .. record)
    ended[#ended + 1] = { id = id, queue = queue }
  end
  call('HDEL', notes, id)
end

-- Where a success is kept: 32 neighbours share a hash.
local function bucket_of(id)
  return tag .. 'o:' .. id:sub(1, -2), id:sub(-1)
end

-- Let a key live at least so long; returns whether it is a new one.
local function prolong(key, ttl)
  return call('EXPIRE', key, ttl, 'GT') == 0 and call('EXPIRE', key, ttl, 'NX') == 1
end

-- Note who ended so, and will be known for that long. The first of a stretch tidies up.
local function enlist(state, names, ttl)
  local lists = {}
  for _, name in ipairs(names) do
    local list = state .. name:sub(1, STRETCH)
    local members = lists[list] or {}
    members[#members + 1] = 0
    members[#members + 1] = name
    lists[list] = members
  end
  for list, members in pairs(lists) do
    bulk('ZADD', tag .. 'y:' .. list, members)
    if prolong(tag .. 'y:' .. list, ttl) then
      for _, known in ipairs(call('ZRANGE', over, 0, -1)) do
        if call('EXISTS', tag .. 'y:' .. known) == 0 then
          call('ZREM', over, known)
        end
      end
      call('ZADD', over, 0, list)
    end
  end
end

-- Keep records of successes.
local function keep(ids, records, ttl)
  local buckets = {}
  for k, id in ipairs(ids) do
    local bucket, field = bucket_of(id)
    local fields = buckets[bucket] or {}
    fields[#fields + 1] = field
    fields[#fields + 1] = records[k]
    buckets[bucket] = fields
  end
  local names = {}
  for bucket, fields in pairs(buckets) do
    bulk('HSET', bucket, fields)
    prolong(bucket, ttl)
    names[#names + 1] = bucket:sub(#tag + 3)
  end
  enlist('s', names, ttl)
end

-- How a job ended (or a chunk of its record): state letter, record; false where nobody knows.
local function record_of(id)
  local parent, part = family_of(id)
  if parent then
    return call('HGET', tag .. 'o:' .. parent, part)
  end
  local record = call('HGET', bucket_of(id))
  return record and 's' .. record or call('GET', tag .. 'f:' .. id)
end

local function is_known(id)
  return call('HEXISTS', bodies, id) == 1 or record_of(id)
end

-- A parent takes children, and its children are worth running, until it is released or over.
local function is_taking(parent)
  local state = call('HGET', tag .. 'j:' .. parent, 'state')
  return state and state ~= 'over'
end

-- What a child counts as: one of all, or a step of the reduction once its parent was opened again.
local function counted_as(parent, name)
  return call('HEXISTS', tag .. 'j:' .. parent, 'steps') == 1 and 'steps' or name
end

-- Release a parent when its last child ended or one of them for bad, also out of its feeder's hands.
local function release_if_over(parent)
  local family = tag .. 'j:' .. parent
  local state, total, done, failed, holder, steps =
    unpack(call('HMGET', family, 'state', 'total', 'done', 'failed', 'holder', 'steps'))
  local all = state == 'wait' and done == total and (steps or '0') == '0'
  if state ~= 'over' and (all or failed ~= '0') then
    call('HSET', family, 'state', 'over')
    call('HDEL', tag .. 'a:' .. holder, parent)
    ready('RPUSH', parent, call('HGET', bodies, parent))
  end
end

-- Of a child that is done by two: the original's id or part, and that of its copy.
local function is_copy(id)
  return id:sub(-2) == COPY
end

local function other_of(id)
  return is_copy(id) and id:sub(1, -3) or id .. COPY
end

-- Strike off the slower of two: whoever holds it is told to stop, whoever waits for it is told how the other ended.
local function outdo(id, state, record)
  local body = call('HGET', bodies, id)
  if body then
    local queue, level = queue_of(body), level_of(body)
    call('HDEL', bodies, id)
    call('HINCRBY', counts, queue .. ':c', 1)
    call('LREM', tag .. 'r:' .. queue .. ':' .. level, 1, id)
    call('ZREM', tag .. 'd:' .. queue, level .. id)
    tell(id, queue, note_of(id), state, record)
    for _, epoch in ipairs(call('HKEYS', beats)) do
      call('PUBLISH', tag .. 'in:' .. epoch, 'c' .. id)
    end
  end
end

-- Count a child that ended and lay its record beside its brothers'; nothing to do where its parent is gone. A copy that
-- succeeds is its original; one that does not is nothing.
local function come_home(parent, part, state, record, units)
  local family = tag .. 'j:' .. parent
  if call('HEXISTS', bodies, parent) == 0 then
    return
  end
  if is_copy(part) and state ~= 's' then
    return
  end
  outdo(parent .. '.' .. other_of(part), state, record)
  if is_copy(part) then
    part = other_of(part)
  end
  call('HSET', tag .. 'o:' .. parent, part, state .. record)
  local name = counted_as(parent, 'done')
  call('HINCRBY', family, name, name == 'done' and 1 or -1)
  if state == 's' then
    call('HINCRBY', family, 'units', units)
  else
    call('HINCRBY', family, 'failed', 1)
  end
  release_if_over(parent)
end

-- What else lies there of a parent, or of a job that waits or waited for others.
local function kin_of(id)
  return { tag .. 'j:' .. id, tag .. 'o:' .. id, tag .. 'h:' .. id }
end

-- Keep what it takes to run a job that failed once more. Over the bound, who would be forgotten next goes.
local function bury(id, body, note, ttl)
  local grave = tag .. 'z:' .. id
  call('HSET', grave, 'b', body, 'd', note.d or 0)
  call('EXPIRE', grave, ttl)
  for _, key in ipairs(has(body, AFTER) and kin_of(id) or {}) do
    call('EXPIRE', key, ttl)
  end
  call('ZREMRANGEBYSCORE', dead, '-inf', now)
  call('ZADD', dead, now + ttl * 1000, id)
  if call('ZCARD', dead) > MOST_DEAD then
    call('UNLINK', tag .. 'z:' .. call('ZPOPMIN', dead)[1])
  end
end

local function forget(id)
  call('ZREM', dead, id)
  call('UNLINK', tag .. 'z:' .. id, tag .. 'f:' .. id)
end

-- Keep what it takes to open a parent anew that failed.
local function rest(id, body, ttl)
  call('HSET', tag .. 'j:' .. id, 'state', 'over')
  call('HSET', tag .. 'z:' .. id, 'b', body)
  call('EXPIRE', tag .. 'z:' .. id, math.min(ttl, PARTS_TTL))
  for _, key in ipairs(kin_of(id)) do
    call('EXPIRE', key, math.min(ttl, PARTS_TTL))
  end
end

-- End a job. number: the record's TTL in s, or a child's units.
local function finish(id, body, state, record, number)
  local note = note_of(id)
  call('HINCRBY', counts, queue_of(body) .. ':' .. state, 1)
  call('HDEL', bodies, id)
  local parent, part = family_of(id)
  if parent then
    come_home(parent, part, state, record, number)
  elseif number > 0 and state == 's' then
    keep({ id }, { record }, number)
  elseif number > 0 then
    call('SET', tag .. 'f:' .. id, state .. record, 'EX', number)
    enlist(state, { id }, number)
    if state == 'f' and not has(body, PARENT) then
      bury(id, body, note, number)
    elseif state == 'f' then
      rest(id, body, number)
    end
  end
  local key = key_of(body)
  if key and call('HGET', locks, key) == id then
    call('HDEL', locks, key)
  end
  if has(body, PARENT + AFTER) then
    call('ZREM', blocked, id)
    if call('EXISTS', tag .. 'z:' .. id) == 0 then
      call('UNLINK', unpack(kin_of(id)))
    end
  end
  tell(id, queue_of(body), note, state, record)
end

-- Do something with one job so that its failure stays its own.
local function guarded(act, id, ...)
  local fine, why = pcall(act, id, ...)
  if not fine then
    call('HSET', parked, id, tostring(why))
    call('ZADD', blocked, 0, id)
  end
  return fine and why
end

-- How the script writes a `Record` of queue/job.py: an array of ten.
local function failure_record(body, attempt, reason, text)
  local start = options_of(body)
  local task = ''
  if body:byte(start) == 147 then
    local _
    _, task = cmsgpack.unpack_one(body, start)
  end
  return '\154' .. cmsgpack.pack(task, attempt, 0, now / 1000, nil, reason, '', text, nil, queue_of(body))
end

------------------------------------------------------------------------------------------------ jobs that wait for jobs

-- Why a job is not to run: the first one that failed, however many have failed since because of it.
local function blame(former, outcome)
  local fine, record = pcall(cmsgpack.unpack, outcome:sub(2))
  if fine and type(record) == 'table' and record[6] == 'dependency' then
    return record[8]
  end
  return 'job ' .. former .. ' ' .. HOW[outcome:sub(1, 1)]
end

-- Let a job come that waits for nobody any more.
local function set_free(id, body)
  local family = tag .. 'j:' .. id
  call('HSET', family, 'state', 'over')
  local due = tonumber(call('HGET', family, 'due'))
  if due > now then
    later(id, body, due)
  else
    ready('RPUSH', id, body)
  end
end

-- A job hears how one ended that it waits for: the last lets it go; one that failed ends it, unless it allows that.
local function hear(id, former, outcome)
  local body = call('HGET', bodies, id)
  local awaited = tag .. 'h:' .. id
  local place = body and call('ZSCORE', awaited, former)
  if not place then
    return
  end
  local family = tag .. 'j:' .. id
  local options = read_options(body)
  if outcome:sub(1, 1) ~= 's' then
    call('HINCRBY', family, 'failed', 1)
    if not options.allow_failure then
      finish(id, body, 'f', failure_record(body, 0, 'dependency', blame(former, outcome)), FAILED_TTL)
      return
    end
  end
  if options.input or options.inputs then
    call('HSET', tag .. 'o:' .. id, place, outcome)
  end
  call('HINCRBY', family, 'done', 1)
  call('ZREM', awaited, former)
  if call('EXISTS', awaited) == 0 then
    set_free(id, body)
  end
end

-- What one call may not do at a stroke goes on when somebody claims from that queue, and that is at once.
local function at_once(queue, member)
  call('HINCRBY', counts, queue .. ':t', delay(queue, member, now))
end

-- Tell the jobs that wait for those that ended, and so on. Who has more of them than one call may tell is due at once.
local function relay()
  while #ended > 0 do
    local one = table.remove(ended, 1)
    local id, queue = one.id, one.queue
    local list = tag .. 'n:' .. id
    local outcome = call('LINDEX', list, -1)
    local waiting = call('LLEN', list) - 1
    local count = math.min(waiting, TOLD - told)
    for _, follower in ipairs(count > 0 and call('LPOP', list, count) or {}) do
      told = told + 1
      guarded(hear, follower, id, outcome)
    end
    if count < waiting then
      at_once(queue, '>' .. id)
    else
      call('UNLINK', list)
    end
  end
end

-- The first of these jobs that nobody knows.
local function unknown_among(ids)
  for _, id in ipairs(ids) do
    if not is_known(id) then
      return id
    end
  end
end

-- Let a job wait for those of its formers that are not over, from a place on.
local function await(id, from)
  local awaited = tag .. 'h:' .. id
  local formers = call('ZRANGEBYSCORE', awaited, from, '+inf', 'LIMIT', 0, LINKED - linked)
  linked = linked + #formers
  if linked == LINKED then
    from = #formers > 0 and call('ZSCORE', awaited, formers[#formers]) + 1 or from
    at_once(queue_of(call('HGET', bodies, id)), '<' .. id .. from)
  end
  local over = {}
  for _, former in ipairs(formers) do
    if call('HEXISTS', bodies, former) == 0 then
      over[#over + 1] = former
    else
      if call('HSETNX', notes, former, AWAITED) == 0 then
        local note = note_of(former)
        if not note.n then
          note.n = 1
          save(former, note)
        end
      end
      call('RPUSH', tag .. 'n:' .. former, id)
    end
  end
  for _, former in ipairs(over) do
    hear(id, former, record_of(former) or 'e')
  end
end

local function await_more(more)
  local id = more:sub(1, ID)
  if call('HEXISTS', bodies, id) == 1 then
    await(id, more:sub(ID + 1))
  end
end

-- Hold a new job back until its formers are over, or one that is asked for again until those are that are left.
local function hold_back(id, body, due, formers)
  local family = tag .. 'j:' .. id
  if formers then
    local places = {}
    for k, former in ipairs(formers) do
      places[2 * k - 1] = k - 1
      places[2 * k] = former
    end
    bulk('ZADD', tag .. 'h:' .. id, places)
    call('HSET', family, 'state', 'wait', 'started', now, 'due', due,
      'total', #formers, 'done', 0, 'failed', 0, 'units', 0, 'sealed', 1)
  else
    for _, key in ipairs(kin_of(id)) do
      call('PERSIST', key)
    end
    call('HSET', family, 'state', 'wait', 'started', now, 'due', due, 'failed', 0)
  end
  if formers or call('EXISTS', tag .. 'h:' .. id) == 1 then
    await(id, 0)
  else
    set_free(id, body)
  end
end

------------------------------------------------------------------------------------------------ enqueue

-- Which of these ids, none of them a child's, are known. Mostly none is, and three commands say so.
local function known_among(ids)
  local known = {}
  local found = pick(bodies, ids)
  local places = {}
  local bucket
  for k, id in ipairs(ids) do
    known[id] = found[k]
    places[#places + 1] = tag .. 'f:' .. id
    if bucket_of(id) ~= bucket then
      bucket = bucket_of(id)
      places[#places + 1] = bucket
    end
  end
  local there = 0
  for first, last in slices(places) do
    there = there + call('EXISTS', unpack(places, first, last))
  end
  for _, id in ipairs(there > 0 and ids or {}) do
    known[id] = known[id] or record_of(id)
  end
  return known
end

-- Take in jobs of one queue and priority that are ready at once: args from first on are id, body, id, body ...
local function take_run(queue, level, args, first, count, refuse)
  local named = {}
  for k = 1, count do
    named[k] = args[first + 2 * k - 2]
  end
  local known = known_among(named)
  local room = room_in(queue)
  local ids = {}
  local fields = {}
  for k, id in ipairs(named) do
    if known[id] then
      refuse(k - 1, 'k')
    elseif room < 1 then
      refuse(k - 1, 'f')
    else
      room = room - 1
      known[id] = true
      ids[#ids + 1] = id
      fields[#fields + 1] = id
      fields[#fields + 1] = args[first + 2 * k - 1]
    end
  end
  if #ids > 0 then
    bulk('HSET', bodies, fields)
    push('RPUSH', queue, level, ids)
    call('HINCRBY', counts, queue .. ':n', #ids)
    wake(queue)
  end
end

-- Why a job that comes from outside cannot be taken in now: another has its key, or its queue is full; who waits for
-- others comes into its queue when they have left theirs.
local function refusal(queue, body)
  local key = key_of(body)
  local twin = key and call('HGET', locks, key)
  if twin and not read_options(body).debounce and call('HEXISTS', bodies, twin) == 1 then
    return 'u' .. twin
  end
  if not has(body, AFTER) and room_in(queue) < 1 then
    return 'f'
  end
end

-- Take in one job as a run of one would be, with less ado; returns why not.
local function take_plain(queue, level, id, body)
  if call('EXISTS', tag .. 'f:' .. id, (bucket_of(id))) > 0 and record_of(id) then
    return 'k'
  end
  if room_in(queue) < 1 then
    return call('HEXISTS', bodies, id) == 1 and 'k' or 'f'
  end
  if call('HSETNX', bodies, id, body) == 0 then
    return 'k'
  end
  call('HINCRBY', counts, queue .. ':n', 1)
  local idle = call('SRANDMEMBER', tag .. 'i:' .. queue)
  if idle and hand(idle, queue, id, body) then
    return nil
  end
  if call('RPUSH', tag .. 'r:' .. queue .. ':' .. level, id) == 1 then
    open_level(queue, level)
  end
  if idle then
    wake(queue)
  end
end

-- A debounced call takes the place of the one of its key that still waits for its time, under that one's id.
local function renew(body, delay)
  local key = delay > 0 and key_of(body)
  local twin = key and read_options(body).debounce and call('HGET', locks, key)
  local old = twin and call('HGET', bodies, twin)
  if not old or has(old, AFTER) or note_of(twin).a or call('ZREM', tag .. 'd:' .. queue_of(old), level_of(old) .. twin) == 0 then
    return nil
  end
  call('HSET', bodies, twin, body)
  if has(body, TIMED) then
    local note = note_of(twin)
    note.b = now
    save(twin, note)
  end
  later(twin, body, now + delay)
  return twin
end

-- Open a parent anew that failed, for whoever holds it to give it those of its children that did not succeed: the others
-- are known. Returns whether it did.
local function revive(id, holder)
  local body = call('HGET', tag .. 'z:' .. id, 'b')
  if not body or not has(body, PARENT) or call('HEXISTS', beats, holder) == 0 then
    return false
  end
  local results = tag .. 'o:' .. id
  local done = 0
  for _, part in ipairs(call('HKEYS', results)) do
    if not part:find(':', 1, true) then
      if #part <= DIGITS and call('HGET', results, part):sub(1, 1) == 's' then
        done = done + 1
      else
        call('HDEL', results, part)
      end
    end
  end
  for _, key in ipairs(kin_of(id)) do
    call('PERSIST', key)
  end
  forget(id)
  local family = tag .. 'j:' .. id
  call('HDEL', family, 'steps')
  call('HSET', family, 'state', 'open', 'holder', holder, 'started', now, 'total', done, 'done', done, 'failed', 0, 'sealed', 0)
  call('HSET', bodies, id, body)
  call('HINCRBY', counts, queue_of(body) .. ':n', 1)
  call('ZADD', blocked, 0, id)
  call('HSET', tag .. 'a:' .. holder, id, now)
  return true
end

-- Take in one job that is a child, a parent, delayed or otherwise special; returns why not.
local function take_one(queue, id, body, delay, at, holder, formers)
  if is_known(id) then
    return not revive(id, holder) and 'k' or nil
  end
  local twin = renew(body, delay)
  if twin then
    return 'u' .. twin
  end
  local parent = family_of(id)
  if parent and not is_taking(parent) then
    return 'c'
  end
  if is_copy(id) and call('HEXISTS', bodies, other_of(id)) == 0 then
    return 'k'
  end
  if holder ~= '' and call('HEXISTS', beats, holder) == 0 then
    return 'c'
  end
  local why = not parent and holder == '' and refusal(queue, body)
  if why then
    return why
  end
  local unknown = formers and unknown_among(formers)
  if unknown then
    return 'm' .. unknown
  end
  local key = key_of(body)
  if key then
    call('HSET', locks, key, id)
  end
  call('HSET', bodies, id, body)
  call('HINCRBY', counts, queue .. ':n', 1)
  if parent and not is_copy(id) then
    call('HINCRBY', tag .. 'j:' .. parent, counted_as(parent, 'total'), 1)
  end
  if has(body, TIMED) then
    save(id, { b = now })
  end
  if has(body, PARENT + AFTER) then
    call('ZADD', blocked, 0, id)
  end
  local due = math.max(now + delay, at)
  if holder ~= '' then
    call('HSET', tag .. 'a:' .. holder, id, now)
    call('HSET', tag .. 'j:' .. id, 'state', 'open', 'holder', holder, 'started', now,
      'total', 0, 'done', 0, 'failed', 0, 'units', 0, 'sealed', 0)
  elseif has(body, AFTER) then
    hold_back(id, body, due, formers)
  elseif due > now then
    later(id, body, due)
  else
    ready('RPUSH', id, body)
  end
end

-- ENQUEUE  ARGV now lane seq
--   (queue priority n (id body)*n | queue priority 0 id body delay_ms at_ms holder [n former*n])*
--   -> {1, refused}   {-4} late copy
--      refused: "<number><why>,..."; k known, c its parent or holder is over, f its queue is full,
--      u<id> that job has its unique key, m<id> nobody knows that job, after which it is to run
--   formers: of a body that waits for others alone
-- Has no allow-oom: refused by a full server before it did anything.
local function enqueue(args)
  local lane = tag .. 'w:' .. args[2]
  local was = call('SET', lane, args[3] .. ':', 'EX', LANE_TTL, 'GET')
  local last, said = (was or '0:'):match('^(%d+):(.*)$')
  if tonumber(last) >= tonumber(args[3]) then
    call('SET', lane, was, 'EX', LANE_TTL)
    return last == args[3] and { 1, said } or { LATE }
  end
  local refused = {}
  local taken = 0
  local function refuse(k, why)
    refused[#refused + 1] = (taken + k) .. why
  end
  local i = 4
  while args[i] do
    local queue = args[i]
    local level = args[i + 1]
    local count = tonumber(args[i + 2])
    i = i + 3
    if count > 1 then
      take_run(queue, level, args, i, count, refuse)
      i = i + 2 * count
      taken = taken + count
    else
      local why
      if count == 1 then
        why = take_plain(queue, level, args[i], args[i + 1])
        i = i + 2
      else
        read_clock()
        local id, body, delay, at, holder = unpack(args, i, i + 4)
        i = i + 5
        local formers
        if has(body, AFTER) then
          formers = {}
          for k = 1, tonumber(args[i]) do
            formers[k] = args[i + k]
          end
          i = i + 1 + #formers
        end
        why = take_one(queue, id, body, tonumber(delay), tonumber(at), holder, formers)
      end
      if why then
        refuse(0, why)
      end
      taken = taken + 1
    end
  end
  said = table.concat(refused, ',')
  if said ~= '' then
    call('SET', lane, args[3] .. ':' .. said, 'EX', LANE_TTL)
  end
  return { 1, said }
end

------------------------------------------------------------------------------------------------ step

-- Notes of jobs: none at all where no job has one.
local function notes_of(ids)
  if noted == nil and #ids > 0 then
    noted = call('HLEN', notes) > 0
  end
  if not noted then
    return {}
  end
  return pick(notes, ids)
end

local function tell_success(id, queue, note, record)
  tell(id, queue, cmsgpack.unpack(note), 's', record)
end

-- Successes of one queue and one TTL without a command of their own; args from first on are id, record, ...
local function settle_run(mine, queue, ttl, args, first, count)
  local named = {}
  for k = 1, count do
    named[k] = args[first + 2 * k - 2]
  end
  local held = count == 1 and { call('HDEL', mine, named[1]) == 1 } or pick(mine, named)
  local ids = {}
  local records = {}
  for k = 1, count do
    if held[k] then
      ids[#ids + 1] = named[k]
      records[#records + 1] = args[first + 2 * k - 1]
    end
  end
  if count > 1 then
    bulk('HDEL', mine, ids)
  end
  call('HINCRBY', counts, queue .. ':s', bulk('HDEL', bodies, ids))
  if ttl > 0 then
    keep(ids, records, ttl)
  end
  for k, note in pairs(#ids == 1 and { call('HGET', notes, ids[1]) } or notes_of(ids)) do
    if note then
      guarded(tell_success, ids[k], queue, note, records[k])
    end
  end
end

-- A parent has all its children now.
local function seal(id)
  call('HSET', tag .. 'j:' .. id, 'sealed', 1, 'state', 'wait')
  release_if_over(id)
end

-- A parent that was released takes children again, in the hands of who reduces it.
local function reopen(id, mine)
  local family = tag .. 'j:' .. id
  call('HSET', family, 'state', 'open', 'holder', mine:sub(#tag + 3))
  call('HSETNX', family, 'steps', 0)
end

-- What comes back: r spends an attempt, p counts its own, z nothing.
local function postpone(id, body, note, op, delay, why)
  if op == 'r' then
    note.a = (note.a or 0) + 1
    call('HINCRBY', counts, queue_of(body) .. ':r', 1)
  elseif op == 'p' then
    note.p = (note.p or 0) + 1
  end
  note.e = why
  save(id, note)
  later(id, body, now + delay)
end

-- A part of a child's record that is too large for one; lost where nobody will read it.
local function keep_chunk(id, number, chunk)
  local parent, part = family_of(id)
  if call('HEXISTS', bodies, parent) == 1 then
    call('HSET', tag .. 'o:' .. parent, part .. ':' .. number, 's' .. chunk)
  end
end

-- What a running job says: 'k' what it wants to be told when it is run again, 'h' how far it is. Goes with its note.
local function keep_word(id, op, text)
  local note = note_of(id)
  note[op] = text
  save(id, note)
end

-- A body with other options, among them limits, and what follows on them.
local function gated(body, tail)
  return '1' .. string.char(bit.bor(body:byte(2), 1, LIMITED)) .. body:sub(3, 4 + body:byte(4)) .. tail
end

-- Settle one job by its op (`Op` in queue/job.py says what number and value are).
local function settle_one(id, mine, op, number, value)
  if op == 'v' then
    if call('HEXISTS', mine, id) == 1 then
      keep_chunk(id, number, value)
    end
    return
  end
  if op == 'k' or op == 'h' then
    if call('HEXISTS', mine, id) == 1 and call('HEXISTS', bodies, id) == 1 then
      keep_word(id, op, value)
    end
    return
  end
  if op == 'o' then
    local open = call('HEXISTS', mine, id) == 1 and call('HGET', bodies, id)
    if open and has(open, PARENT) then
      reopen(id, mine)
    end
    return
  end
  if call('HDEL', mine, id) == 0 then
    return
  end
  local body = call('HGET', bodies, id)
  if not body then
    return
  end
  let_go(id, body)
  local note = note_of(id)
  if op == 'b' then
    seal(id)
  elseif op == 's' or op == 'f' or op == 'c' or op == 'e' then
    finish(id, body, op, value, tonumber(number))
  elseif note.c then
    finish(id, body, 'c', '', CANCELLED_TTL)
  elseif op == 'u' then
    give_back(id, body)
  elseif op == 'g' then
    body = gated(body, value)
    call('HSET', bodies, id, body)
    give_back(id, body)
  else
    postpone(id, body, note, op, number, value)
  end
end

local function settle(mine, args, at)
  local runs = tonumber(args[at])
  at = at + 1
  for _ = 1, runs do
    local count = tonumber(args[at + 2])
    settle_run(mine, args[at], tonumber(args[at + 1]), args, at + 3, count)
    at = at + 3 + 2 * count
  end
  while args[at] do
    guarded(settle_one, args[at], mine, args[at + 1], args[at + 2], args[at + 3])
    at = at + 4
  end
end

-- Move what is due to the ends of its lists.
local function promote(queue)
  local delayed = tag .. 'd:' .. queue
  local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, PROMOTED)
  local levels = {}
  for _, member in ipairs(due) do
    local level = member:sub(1, 1)
    levels[level] = levels[level] or {}
    table.insert(levels[level], member:sub(2))
  end
  bulk('ZREM', delayed, due)
  for level, ids in pairs(levels) do
    if tonumber(level) then
      push('RPUSH', queue, level, ids)
    else
      call('HINCRBY', counts, queue .. ':t', -#ids)
    end
  end
  for _, gate in ipairs(levels['~'] or {}) do
    guarded(stir, gate)
  end
  for _, id in ipairs(levels['>'] or {}) do
    ended[#ended + 1] = { id = id, queue = queue }
  end
  for _, more in ipairs(levels['<'] or {}) do
    guarded(await_more, more)
  end
  relay()
  local following = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  if following then
    call('HSET', switches, queue .. ':d', following)
  else
    call('HDEL', switches, queue .. ':d')
  end
end

-- A child that nobody needs any more ends without a record.
local function drop(id, body)
  local note = note_of(id)
  call('HINCRBY', counts, queue_of(body) .. ':c', 1)
  call('HDEL', bodies, id)
  local parent = family_of(id)
  if counted_as(parent, '') == 'steps' then
    call('HINCRBY', tag .. 'j:' .. parent, 'steps', -1)
  end
  tell(id, queue_of(body), note, 'c', '')
end

-- Add to what is claimed those of these ids that are worth running.
local function take(queue, ids, claimed)
  local found = pick(bodies, ids)
  for k, id in ipairs(ids) do
    local parent = family_of(id)
    if not found[k] then
      call('HINCRBY', counts, queue .. ':g', -1)
    elseif parent and not is_taking(parent) then
      guarded(drop, id, found[k])
    elseif is_copy(id) and call('HEXISTS', claimed.mine, other_of(id)) == 1 then
      claimed.others[#claimed.others + 1] = { id, found[k] }
    elseif is_limited(found[k]) and not guarded(admit, id, found[k]) then
      claimed.looks = claimed.looks + 1
    else
      claimed.ids[#claimed.ids + 1] = id
      claimed.bodies[#claimed.bodies + 1] = found[k]
    end
  end
end

-- What is to be known of queues before any list is looked at, in one command.
local function survey(queues)
  local fields = {}
  for k, queue in ipairs(queues) do
    fields[3 * k - 2], fields[3 * k - 1], fields[3 * k] = queue .. ':l', queue .. ':d', queue .. ':p'
  end
  local said = pick(switches, fields)
  local found = {}
  for k, queue in ipairs(queues) do
    found[k] = { name = queue, levels = said[3 * k - 2] or '', due = tonumber(said[3 * k - 1]), paused = said[3 * k] }
  end
  return found
end

-- Claim up to most jobs of one queue, level by level; returns whether there may be more.
local function claim_from(queue, most, lowest_first, claimed)
  if queue.paused or queue.levels == '' then
    return false
  end
  local levels = queue.levels
  local full = #claimed.ids + most
  for rank = 0, 9 do
    local level = lowest_first and rank or 9 - rank
    local room = full - #claimed.ids
    while room > 0 and claimed.looks < POPS and levels:find(level, 1, true) do
      claimed.looks = claimed.looks + 1
      local ids = call('LPOP', tag .. 'r:' .. queue.name .. ':' .. level, room) or {}
      if #ids < room then
        levels = levels:gsub(level, '')
      end
      take(queue.name, ids, claimed)
      room = full - #claimed.ids
    end
  end
  if levels == '' then
    call('HDEL', switches, queue.name .. ':l')
  elseif levels ~= queue.levels then
    call('HSET', switches, queue.name .. ':l', levels)
  end
  return levels ~= ''
end

-- All that an epoch holds: the answer to a step whose first answer was lost, or that follows on a lost one.
local function held(mine, code)
  local ids = {}
  for _, id in ipairs(call('HKEYS', mine)) do
    if id ~= '' then
      ids[#ids + 1] = id
    end
  end
  return { code, now, -1, ids, pick(bodies, ids), notes_of(ids) }
end

-- STEP  ARGV now epoch seq want lowest_first idle  n (queue most asleep)*n
--         runs (queue ttl n (id record)*n)*runs  (id op number value)*
--   -> {1, now, next due or -1, ids, bodies, notes}   {-1} fenced   {-4} late copy
--      {-2 | -3, now, -1, ids, bodies, notes}: repeated | steps or a message before this one are lost; all that the epoch holds
-- idle: notice me when more work comes than there is, where I may have more; 2, and I hold nothing that I know of. asleep: 1, I had asked for that and heard
-- nothing since; 2, I may have; 0, I had not.
local function step(args)
  local epoch = args[2]
  local mine = tag .. 'a:' .. epoch
  local beat = call('HGET', beats, epoch)
  if not beat then
    return { FENCED }
  end
  local last, rest = beat:match('^(%d+)(.*)$')
  local ahead = args[3] - last
  if ahead < 0 then
    return { LATE }
  end
  if ahead == 0 then
    return held(mine, REPEATED)
  end
  call('HSET', beats, epoch, args[3] .. rest)
  local want = tonumber(args[4])
  local queues = {}
  local most = {}
  local asleep = {}
  local at = 8
  for k = 1, tonumber(args[7]) do
    queues[k] = args[at]
    most[k] = tonumber(args[at + 1])
    asleep[k] = args[at + 2]
    at = at + 3
  end
  settle(mine, args, at)
  relay()
  if ahead > 1 or args[6] == '2' and call('HLEN', mine) > 1 then
    return held(mine, TAIL_LOST)
  end
  local claimed = { ids = {}, bodies = {}, looks = 0, mine = mine, others = {} }
  local soonest, left
  repeat
    soonest = -1
    left = {}
    called = {}
    moved = false
    for k, queue in ipairs(want > 0 and survey(queues) or {}) do
      if queue.due and queue.due <= now then
        promote(queue.name)
        queue = survey({ queue.name })[1]
      end
      local before = #claimed.ids
      if claim_from(queue, math.min(most[k], want - before), args[5] == '1', claimed) then
        left[k] = queue.name
      end
      most[k] = most[k] - #claimed.ids + before
      if queue.due and (soonest < 0 or queue.due < soonest) then
        soonest = queue.due
      end
    end
    for _, one in ipairs(called) do
      ready('LPUSH', one[1], one[2])
    end
  until not moved or #claimed.ids == want or claimed.looks >= POPS
  for _, one in ipairs(claimed.others) do
    ready('RPUSH', one[1], one[2])
  end
  local fields = {}
  local since = string.format('%.0f', now)
  for _, id in ipairs(claimed.ids) do
    fields[#fields + 1] = id
    fields[#fields + 1] = since
  end
  bulk('HSET', mine, fields)
  local sleeps = args[6] ~= '0' and #claimed.ids < want
  for k, queue in ipairs(queues) do
    local idle = tag .. 'i:' .. queue
    if sleeps and most[k] > 0 then
      if asleep[k] ~= '1' then
        call('SADD', idle, epoch)
      end
    elseif asleep[k] ~= '0' then
      call('SREM', idle, epoch)
    end
    if left[k] and asleep[k] ~= '0' then
      wake(queue)
    end
  end
  local due = -1
  if #claimed.ids < want then
    due = claimed.looks >= POPS and now or soonest
  end
  return { 1, now, due, claimed.ids, claimed.bodies, notes_of(claimed.ids) }
end

------------------------------------------------------------------------------------------------ epochs

-- JOIN  ARGV now epoch card lease_ms. The card makes the hash too large for Redis' compact form, which is searched.
local function join(args)
  local lone = call('HLEN', beats) == 1 and call('HGETALL', beats) or { '' }
  if lone[1]:sub(1, 1) == 'h' then
    call('HSET', beats, lone[1], (lone[2]:gsub('!?(:%d+)$', '!%1')))
  end
  call('HSET', tag .. 'a:' .. args[2], '', args[3])
  call('HSET', beats, args[2], '0:0:' .. args[4])
  return 1
end

-- Wake one idle epoch where something waits or is due: who was woken for it before may be stuck.
local function rouse()
  local said = call('HGETALL', switches)
  local set = {}
  for k = 1, #said, 2 do
    set[said[k]] = said[k + 1]
  end
  for field, value in pairs(set) do
    local queue, letter = field:match('^(.*):(.)$')
    if not set[queue .. ':p'] and (letter == 'l' or letter == 'd' and tonumber(value) <= now) then
      wake(queue)
    end
  end
end

-- An office that an epoch may take, or has.
local function free_office(epoch)
  local offices = { tag .. 'k:1', tag .. 'k:2' }
  for k, elected in ipairs(call('MGET', unpack(offices))) do
    if not elected or elected == epoch then
      return offices[k]
    end
  end
end

-- BEAT  ARGV now epoch look -> {-1} fenced   {1}   {1, all epochs and their beats}: the caller sweeps, for a lease
-- look: 1, take that office where it is free; 2, only if I was alone and somebody has joined; 0, do not.
local function beat(args)
  local epoch = args[2]
  local was = call('HGET', beats, epoch)
  if not was then
    return { FENCED }
  end
  local seq, count, joined, lease = was:match('^(%d+):(%d+)(!?):(%d+)$')
  local looks = args[3] == '1' or args[3] == '2' and joined == '!'
  local office = looks and free_office(epoch)
  call('HSET', beats, epoch, seq .. ':' .. (count + 1) .. (office and '' or joined) .. ':' .. lease)
  if not office then
    return { 1 }
  end
  read_clock()
  call('SET', office, epoch, 'PX', lease)
  rouse()
  return { 1, call('HGETALL', beats) }
end

-- Deliveries after which a job is given up: its own option, if it can be read, goes before the worker's.
local function most_deliveries(body, most)
  local _, text = options_of(body)
  local fine, options = pcall(cmsgpack.unpack, text)
  local own = fine and tonumber(options.max_deliveries)
  return own and own + APART or tonumber(most)
end

-- Take one job out of the hands of an epoch that ended, unless it has just been released with its child.
local function take_back(id, mine, crashed, most)
  if call('HDEL', mine, id) == 0 then
    return
  end
  local body = call('HGET', bodies, id)
  if not body then
    return
  end
  let_go(id, body)
  local note = note_of(id)
  if note.c then
    finish(id, body, 'c', '', CANCELLED_TTL)
    return
  end
  if crashed then
    note.d = (note.d or 0) + 1
    save(id, note)
    if note.d >= most_deliveries(body, most) then
      local text = note.d .. ' workers died with this job in hand'
      finish(id, body, 'f', failure_record(body, (note.a or 0) + 1, 'worker_lost', text), FAILED_TTL)
      return
    end
    call('HINCRBY', counts, queue_of(body) .. ':d', 1)
  end
  give_back(id, body)
end

-- REAP  ARGV now epoch seen crashed max_deliveries -> how many jobs it held; -1: it is gone, or not as it was seen
local function reap(args)
  local epoch = args[2]
  local mine = tag .. 'a:' .. epoch
  local was = call('HGET', beats, epoch)
  if not was or (args[3] ~= '' and args[3] ~= was) then
    return -1
  end
  local card = cmsgpack.unpack(call('HGET', mine, ''))
  for _, queue in ipairs(card.queues) do
    call('SREM', tag .. 'i:' .. queue, epoch)
  end
  call('HDEL', mine, '')
  call('HDEL', beats, epoch)
  local ids = call('HKEYS', mine)
  table.sort(ids)
  for k = #ids, 1, -1 do
    guarded(take_back, ids[k], mine, args[4] == '1', args[5])
  end
  return #ids
end

------------------------------------------------------------------------------------------------ cancel, wait, look

-- Where a job is that is not over: its state, the epoch that holds it, since when or when it is due (ms).
local function place_of(id, body)
  for _, epoch in ipairs(call('HKEYS', beats)) do
    local since = call('HGET', tag .. 'a:' .. epoch, id)
    if since then
      return 'running', epoch, since
    end
  end
  local family = call('HMGET', tag .. 'j:' .. id, 'state', 'started')
  if family[1] == 'wait' then
    return 'blocked', '', family[2]
  end
  if call('HEXISTS', parked, id) == 1 then
    return 'blocked', '', 0
  end
  for _, gate in ipairs(is_limited(body) and gates_of(read_options(body)) or {}) do
    local rank = call('ZSCORE', line_of(queue_of(body), gate.name), id)
    if rank and tonumber(rank) ~= CALLED then
      return 'blocked', '', 0
    end
  end
  local due = call('ZSCORE', tag .. 'd:' .. queue_of(body), level_of(body) .. id)
  if due then
    return note_of(id).a and 'retrying' or 'scheduled', '', due
  end
  return 'queued', '', 0
end

-- Take a job that waits, or a feeder's, from where it lies.
local function lift(id, body, state, holder)
  if state == 'queued' then
    call('HINCRBY', counts, queue_of(body) .. ':g', 1)
  elseif state == 'running' then
    call('HDEL', tag .. 'a:' .. holder, id)
  elseif state == 'blocked' then
    call('HDEL', parked, id)
    call('ZREM', blocked, id)
  else
    call('ZREM', tag .. 'd:' .. queue_of(body), level_of(body) .. id)
  end
end

-- CANCEL  ARGV now id -> the state in which it was found, or its letter: s f c e; false where nobody knows it
local function cancel(args)
  local id = args[2]
  local body = call('HGET', bodies, id)
  if not body then
    local record = record_of(id)
    return record and record:sub(1, 1)
  end
  local state, holder = place_of(id, body)
  if state == 'running' and not is_taking(id) then
    local note = note_of(id)
    note.c = 1
    save(id, note)
    call('PUBLISH', tag .. 'in:' .. holder, 'c' .. id)
    return state
  end
  lift(id, body, state, holder)
  let_go(id, body)
  finish(id, body, 'c', '', CANCELLED_TTL)
  for _, epoch in ipairs(has(body, PARENT) and call('HKEYS', beats) or {}) do
    call('PUBLISH', tag .. 'in:' .. epoch, 'c' .. id)
  end
  return state
end

local function outcomes(args, not_over)
  local answers = {}
  for k = 3, #args do
    local id = args[k]
    answers[k - 2] = record_of(id)
    if not answers[k - 2] and call('HEXISTS', bodies, id) == 1 then
      answers[k - 2] = ''
      not_over(id)
    end
  end
  return answers
end

-- WAIT  ARGV now inbox id* -> each one's state letter and record; '': not over, the inbox will be told; false: unknown
local function wait(args)
  return outcomes(args, function(id)
    local note = note_of(id)
    note.w = note.w or {}
    for _, inbox in ipairs(note.w) do
      if inbox == args[2] then
        return
      end
    end
    note.w[#note.w + 1] = args[2]
    save(id, note)
  end)
end

-- ASKED  ARGV now epoch -> ids of the jobs it holds that were asked to stop, or whose parent is gone
local function asked(args)
  local stop = {}
  for _, id in ipairs(call('HKEYS', tag .. 'a:' .. args[2])) do
    local parent = family_of(id)
    if note_of(id).c or parent and call('HEXISTS', bodies, parent) == 0 then
      stop[#stop + 1] = id
    end
  end
  return stop
end

-- LOOK  ARGV now inbox id* -> as WAIT, and tells nobody
local function look(args)
  return outcomes(args, function() end)
end

-- RUNNING  ARGV now parent -> ids of its children that somebody holds
local function running(args)
  local ids = {}
  for _, epoch in ipairs(call('HKEYS', beats)) do
    for _, id in ipairs(call('HKEYS', tag .. 'a:' .. epoch)) do
      if family_of(id) == args[2] then
        ids[#ids + 1] = id
      end
    end
  end
  return ids
end

-- FIND  ARGV now id* -> of each: {} unknown   {letter, record, body and deliveries of a dead letter} over
--   {state, body, note or false, since or due, error of a parked one or false, children}: not over; one that waits or
--   waited for others: those take the place of children, and the first of those that it waits for follow
local function find(args)
  local found = {}
  for k = 2, #args do
    local id = args[k]
    local body = call('HGET', bodies, id)
    local record = not body and record_of(id)
    if body then
      local state, _, at = place_of(id, body)
      local children = call('HMGET', tag .. 'j:' .. id, 'total', 'done', 'failed', 'units', 'sealed', 'state')
      local awaited = has(body, AFTER) and call('ZRANGE', tag .. 'h:' .. id, 0, SHOWN - 1)
      found[k - 1] = { state, body, call('HGET', notes, id), at, call('HGET', parked, id), children, awaited or nil }
    elseif record then
      local kept = call('HMGET', tag .. 'z:' .. id, 'b', 'd')
      found[k - 1] = { record:sub(1, 1), record:sub(2), kept[1], kept[2] }
    else
      found[k - 1] = {}
    end
  end
  return found
end

-- PLACES  ARGV now -> {epochs, (field of a switch, its value)*, names of lists of those that are over}
local function places()
  return { call('HKEYS', beats), call('HGETALL', switches), call('ZRANGE', over, 0, -1) }
end

-- How a place of each kind is read on, and what is told then: after is who was told last, at where that stood.
local READ = {
  a = function(key)
    return call('HKEYS', key)
  end,
  -- Where after stands now, and who follow; who is claimed meanwhile lets it come nearer to the head.
  r = function(key, count, after, at)
    if call('LINDEX', key, at) ~= after then
      at = call('LPOS', key, after, 'MAXLEN', at + SLICE) or -1
    end
    return { at, call('LRANGE', key, at + 1, at + count) }
  end,
  -- Members and when they are due; from that time on, where after is due no more.
  d = function(key, count, after, at)
    local rank = call('ZRANK', key, after)
    if rank then
      return call('ZRANGE', key, rank + 1, rank + count, 'WITHSCORES')
    end
    return call('ZRANGEBYSCORE', key, at, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
  end,
  y = function(key, count, after)
    return call('ZRANGEBYLEX', key, after, '+', 'LIMIT', 0, count)
  end,
  -- The last bucket that was looked into, and whose results lie in these.
  s = function(key, count, after)
    local last = ''
    local ids = {}
    for _, bucket in ipairs(call('ZRANGEBYLEX', key, after, '+', 'LIMIT', 0, count)) do
      last = bucket
      for _, rest in ipairs(call('HKEYS', tag .. 'o:' .. bucket)) do
        ids[#ids + 1] = bucket .. rest
      end
      if #ids >= count then
        break
      end
    end
    return { last, ids }
  end,
}

-- LIST  ARGV now kind place count after at -> as READ
local function list(args)
  return READ[args[2]](tag .. args[3], tonumber(args[4]), args[5], args[6])
end

-- DEPTH  ARGV now queue* -> {now, running, (epoch, card, how many it holds)*, {queued, scheduled, heads of levels, counters, {paused, bound}}*}
local function depth(args)
  local queues = {}
  for k = 2, #args do
    local queue = args[k]
    local heads = {}
    for level = 0, 9 do
      heads[level + 1] = call('LINDEX', tag .. 'r:' .. queue .. ':' .. level, 0)
    end
    local fields = {}
    for _, letter in ipairs({ 'n', 's', 'f', 'c', 'e', 'r', 'd', 'w' }) do
      fields[#fields + 1] = queue .. ':' .. letter
    end
    local set = call('HMGET', switches, queue .. ':p', queue .. ':b')
    local scheduled = call('ZCARD', tag .. 'd:' .. queue) - (call('HGET', counts, queue .. ':t') or 0)
    queues[k - 1] = { queued_in(queue), scheduled, heads, call('HMGET', counts, unpack(fields)), set }
  end
  local workers = {}
  local running = 0
  for _, epoch in ipairs(call('HKEYS', beats)) do
    local held = call('HLEN', tag .. 'a:' .. epoch) - 1
    running = running + held
    workers[#workers + 1] = epoch
    workers[#workers + 1] = call('HGET', tag .. 'a:' .. epoch, '')
    workers[#workers + 1] = held
  end
  return { now, running, workers, queues }
end

------------------------------------------------------------------------------------------------ what people do to queues

-- SWITCH  ARGV now queue switch value: set one of a queue's switches, or lift it ('')
local function switch(args)
  local field = args[2] .. ':' .. args[3]
  if args[4] == '' then
    call('HDEL', switches, field)
  else
    call('HSET', switches, field, args[4])
  end
  wake(args[2])
  return 1
end

-- REGULATE  ARGV now (l<name> | r<name>, its numbers)*: what holds of limits from now on, by key from the next look on
local function regulate(args)
  table.remove(args, 1)
  bulk('HSET', limits, args)
  for k = 1, #args, 2 do
    stir(args[k])
  end
  return 1
end

-- QUEUES  ARGV now -> fields of counters and switches: each a queue's name, ':' and a letter
local function queues_known()
  return { call('HKEYS', counts), call('HKEYS', switches) }
end

-- DEAD  ARGV now -> ids of all dead letters
local function all_dead()
  return call('ZRANGEBYSCORE', dead, now, '+inf')
end

-- REPLAY  ARGV now id* -> of each: 1 it is not over, be it by an earlier replay; 0 it is no dead letter, or still one
local function replay(args)
  local lives = {}
  for k = 2, #args do
    local id = args[k]
    local body = call('HGET', tag .. 'z:' .. id, 'b')
    if body and not has(body, PARENT) and not refusal(queue_of(body), body) then
      forget(id)
      take_one(queue_of(body), id, body, 0, 0, '')
    end
    lives[k - 1] = call('HEXISTS', bodies, id)
  end
  return lives
end

-- PURGE  ARGV now id*: nobody knows these dead letters any more
local function purge(args)
  for k = 2, #args do
    if call('ZSCORE', dead, args[k]) then
      forget(args[k])
      call('UNLINK', unpack(kin_of(args[k])))
    end
  end
end

-- SCHEDULE  ARGV now name text ('': there is none any more) -> 1 it is new, or was there
local function schedule(args)
  if args[3] == '' then
    call('HDEL', tag .. 't', args[2])
    return call('HDEL', tag .. 's', args[2])
  end
  call('HSETNX', tag .. 't', args[2], now)
  return call('HSET', tag .. 's', args[2], args[3])
end

-- STRIKE  ARGV now name text ('': it is lifted) -> 1 it is new, or was there
local function strike(args)
  if args[3] == '' then
    return call('HDEL', tag .. 'g', args[2])
  end
  return call('HSET', tag .. 'g', args[2], args[3])
end

-- PLANS  ARGV now -> {(name, schedule)*, (name, ms of its last tick)*, (name, strike)*}; {}: there is nothing at all
local function plans()
  if call('EXISTS', tag .. 's', tag .. 't', tag .. 'g') == 0 then
    return {}
  end
  return { call('HGETALL', tag .. 's'), call('HGETALL', tag .. 't'), call('HGETALL', tag .. 'g') }
end

-- FIRE  ARGV now name tick queue id body -> '' the job is taken in; b that tick or a later one was; else as ENQUEUE
local function fire(args)
  if tonumber(args[3]) <= tonumber(call('HGET', tag .. 't', args[2]) or 0) then
    return 'b'
  end
  local why = take_one(args[4], args[5], args[6], 0, 0, '')
  if why ~= 'f' then
    call('HSET', tag .. 't', args[2], args[3])
  end
  return why or ''
end

local TIMELESS = { beat = 1, enqueue = 1, look = 1, plans = 1, wait = 1 } -- verbs that mostly do without a clock

local function register(name, verb, ...)
  local function callback(keys, args)
    begin(keys, args)
    if not TIMELESS[name] then
      read_clock()
    end
    local answer = verb(args)
    relay()
    return answer
  end
  redis.register_function({ function_name = LIBRARY .. '_' .. name, callback = callback, flags = { ... } })
end

register('enqueue', enqueue)
register('step', step, 'allow-oom')
register('join', join, 'allow-oom')
register('beat', beat, 'allow-oom')
register('reap', reap, 'allow-oom')
register('cancel', cancel, 'allow-oom')
register('wait', wait, 'allow-oom')
register('look', look, 'no-writes')
register('asked', asked, 'no-writes')
register('find', find, 'no-writes')
register('running', running, 'no-writes')
register('places', places, 'no-writes')
register('list', list, 'no-writes')
register('depth', depth, 'no-writes')
register('switch', switch, 'allow-oom')
register('regulate', regulate, 'allow-oom')
register('queues', queues_known, 'no-writes')
register('schedule', schedule, 'allow-oom')
register('plans', plans, 'no-writes')
register('strike', strike, 'allow-oom')
register('fire', fire)
register('dead', all_dead, 'no-writes')
register('replay', replay)
register('purge', purge, 'allow-oom')
