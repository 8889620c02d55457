-- Limits and rates.

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
