-- The functions by name: how each is begun, and what a server may do with it.

local TIMELESS = { beat = 1, enqueue = 1, look = 1, plans = 1, wait = 1 } -- verbs that mostly do without a clock

local function register(name, verb, ...)
  local function callback(keys, args)
    begin(keys, args)
    if not TIMELESS[name] then
      read_clock()
    end
    local answer = verb(args)
    relay()
    return answer
  end
  redis.register_function({ function_name = LIBRARY .. '_' .. name, callback = callback, flags = { ... } })
end

register('enqueue', enqueue)
register('step', step, 'allow-oom')
register('join', join, 'allow-oom')
register('beat', beat, 'allow-oom')
register('reap', reap, 'allow-oom')
register('cancel', cancel, 'allow-oom')
register('wait', wait, 'allow-oom')
register('look', look, 'no-writes')
register('asked', asked, 'no-writes')
register('find', find, 'no-writes')
register('running', running, 'no-writes')
register('places', places, 'no-writes')
register('list', list, 'no-writes')
register('depth', depth, 'no-writes')
register('switch', switch, 'allow-oom')
register('regulate', regulate, 'allow-oom')
register('queues', queues_known, 'no-writes')
register('schedule', schedule, 'allow-oom')
register('plans', plans, 'no-writes')
register('strike', strike, 'allow-oom')
register('fire', fire)
register('dead', all_dead, 'no-writes')
register('replay', replay)
register('purge', purge, 'allow-oom')
