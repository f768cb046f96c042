-- push_plain: takes in jobs that have no key, limit or parents, priority 5, are due now, and whose ids differ: nearly all.
-- A script of its own with three keys, since what the others define would cost more than the job.
--
-- KEYS: bodies, settings, list (see keys.lua). ARGV: 1: the time of a virtually timed namespace, or ''; then n ids, n bodies.
-- Returns 'I' when all were inserted, or a letter for each: I, or S for an id that is stored already.
-- Cost: 5 commands, 6 with TIME.
-- Invariant: as push.lua.
local FORMAT = 1

local call = redis.call
local n = (#ARGV - 1) / 2
local meta = call('HMGET', KEYS[2], 'mode', 'format', 'holes', 'paused')
local mode = ARGV[1] == '' and 's' or 'v'
if meta[1] and meta[1] ~= mode then return redis.error_reply('WLMODE this queue is timed the other way') end
if meta[2] and tonumber(meta[2]) > FORMAT then return redis.error_reply('WLFORMAT ' .. meta[2]) end
local now
if mode == 'v' then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local stored = call('HMGET', KEYS[1], unpack(ARGV, 2, 1 + n))
local created = struct.pack('>I6', now)
local hash, ids, answers, count = {}, {}, nil, 0
for i = 1, n do
  if stored[i] then
    if not answers then answers = string.rep('I', i - 1) end
    answers = answers .. 'S'
  else
    local id = ARGV[1 + i]
    count = count + 1
    ids[count] = id
    hash[2 * count - 1], hash[2 * count] = id, created .. ARGV[1 + n + i]
    if answers then answers = answers .. 'I' end
  end
end
if count > 0 then
  -- A queue exists from its first job or setting on.
  if not meta[1] then call('HSET', KEYS[2], 'mode', mode, 'format', FORMAT) end
  call('HSET', KEYS[1], unpack(hash))
  local length = call('RPUSH', KEYS[3], unpack(ids))
  -- Whoever sleeps saw the list empty.
  if length - tonumber(meta[3] or '0') <= count and not meta[4] then call('PUBLISH', KEYS[2], '') end
end
return answers or 'I'
