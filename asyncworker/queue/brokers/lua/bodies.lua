-- Bodies and notes.

local function queue_of(body)
  return body:sub(5, 4 + body:byte(4))
end

local function level_of(body)
  return body:sub(3, 3)
end

local function has(body, flag)
  return bit.band(body:byte(2), flag) ~= 0
end

-- Whether a job has gates; of one that another version wrote nobody here knows.
local function is_limited(body)
  local version, flags = body:byte(1, 2)
  return version == 49 and (flags or 0) >= LIMITED
end

-- Where the payload begins, and the text of the options before it.
local function options_of(body)
  local start = 5 + body:byte(4)
  if body:byte(2) % 2 == 0 then
    return start
  end
  local size = body:byte(start) * 256 + body:byte(start + 1)
  return start + 2 + size, body:sub(start + 2, start + 1 + size)
end

local function read_options(body)
  local _, text = options_of(body)
  return text and cmsgpack.unpack(text) or {}
end

-- The key that no other job may have while this one lives.
local function key_of(body)
  if has(body, UNIQUE) then
    return read_options(body).unique
  end
end

local function note_of(id)
  local note = call('HGET', notes, id)
  return note and cmsgpack.unpack(note) or {}
end

local function save(id, note)
  noted = true
  call('HSET', notes, id, cmsgpack.pack(note))
end

-- The parent of a child, and which part of it the child is.
local function family_of(id)
  if id:sub(ID + 1, ID + 1) == '.' then
    return id:sub(1, ID), id:sub(ID + 2)
  end
end
