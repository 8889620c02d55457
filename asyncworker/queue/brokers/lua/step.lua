-- Step: settle what ended, and claim what comes next.

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
