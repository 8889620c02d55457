-- Enqueue: take jobs in, each once, or say why not.

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
