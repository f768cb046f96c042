-- What every script of a named queue begins with: its keys, its clock, its settings, and the end of a call.
--
-- KEYS, always all and in this order (keys.rs writes them; docs.md says what each holds):
local B, S, M, W, Z, P, K, KL, D, L, BS, U, UW, LT, LB, CH, PE, X, C, CN, DD, O, RU, RC = unpack(KEYS)
-- ARGV[1]: the time in ms of a virtually timed namespace, '' for the server's own, or '-' where no time is needed.
-- ARGV[2]: how many Completed, Cancelled and Dead jobs are kept, as three numbers.
--
-- A script checks everything that it may refuse before its first write: Redis keeps what a failing script wrote.
local call, fmt, byte, char, sub = redis.call, string.format, string.byte, string.char, string.sub
local pack, unpack_ = struct.pack, struct.unpack

-- A score or a number that leaves Lua. tostring() would write 1732432094123 as 1.732432094123e+12.
local function num(n) return fmt('%.0f', n) end

local FORMAT = 1
local meta = call('HMGET', M, 'mode', 'paused', 'head', 'seq', 'holes', 'await', 'format', 'noted', 'batch', 'running')
local timeless, virtual = ARGV[1] == '-', ARGV[1] ~= ''
if meta[1] and not timeless and (meta[1] == 'v') ~= virtual then
  return redis.error_reply('WLMODE this queue is timed the other way')
end
if meta[7] and tonumber(meta[7]) > FORMAT then
  return redis.error_reply('WLFORMAT ' .. meta[7])
end
local now
if timeless then
  now = 0
elseif virtual then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local TIME_MAX = 253402207200000
local function later(ms) return math.min(now + ms, TIME_MAX) end

-- Entries ever taken off the list W: the place of its first one. Only the list's ends are touched, so a place needs no room.
local head = tonumber(meta[3] or '0')
local head_before = head
-- The last entry number given to a job that does not stand in the list.
local seq = tonumber(meta[4] or '0')
local seq_before = seq
-- Entries of W whose job has left it some other way than through its head.
local holes = tonumber(meta[5] or '0')
local holes_before = holes
-- Entries of W whose jobs have a record, or more: where there are none, a claim need not look for records.
local noted = tonumber(meta[8] or '0')
local noted_before = noted
-- Batches of leases ever begun.
local batches = tonumber(meta[9] or '0')
local batches_before = batches
-- Running jobs.
local running = tonumber(meta[10] or '0')
local running_before = running
-- Whether somebody who sleeps may have work now.
local ring = false
-- Ends of this call that somebody may wait for, when anybody does.
local await = meta[6] and tonumber(meta[6])
local told = {}

-- A queue exists from its first job or setting on.
local function open()
  if not meta[1] then
    call('HSET', M, 'mode', virtual and 'v' or 's', 'format', FORMAT)
    meta[1] = virtual and 'v' or 's'
  end
end

-- Writes back what changed, and wakes whoever sleeps. Every path that wrote anything ends here.
local function commit()
  local changed = {}
  local function note(name, count, before)
    if count ~= before then
      changed[#changed + 1] = name
      changed[#changed + 1] = num(count)
    end
  end
  note('head', head, head_before)
  note('seq', seq, seq_before)
  note('holes', holes, holes_before)
  note('noted', noted, noted_before)
  note('batch', batches, batches_before)
  note('running', running, running_before)
  if #changed > 0 then call('HSET', M, unpack(changed)) end
  if ring and not meta[2] then call('PUBLISH', M, '') end
  if await and #told > 0 then
    local time = call('TIME')
    if await > time[1] * 1000 then call('PUBLISH', C, table.concat(told)) end
  end
end

-- Ranks: the place in line as one number that a double holds exactly. Ten levels, 2^42 entries each.
local LEVEL = 4398046511104
-- Level 5, the usual one, stands in the list: ranks below LIST_END and not below LIST are places in it.
local LIST, LIST_END = 4 * LEVEL, 5 * LEVEL
