-- How a job ends.

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
