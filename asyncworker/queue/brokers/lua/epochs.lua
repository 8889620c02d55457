-- Epochs: who is alive, and what becomes of the jobs of those who are not.

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
