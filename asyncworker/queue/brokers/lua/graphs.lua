-- Jobs that wait for jobs.

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
