-- Cancel, wait, look.

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
