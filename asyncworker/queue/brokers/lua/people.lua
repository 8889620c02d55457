-- What people do to queues.

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
