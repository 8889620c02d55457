--[[ The queue as it lies in Redis: one function library in several files, loaded by redis.py under names that carry a hash of their text.

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
