-- Where a job waits.

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
