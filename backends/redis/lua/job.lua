-- A job as scripts see it: its record, its way between the sets, and what its moves set free.
--
-- A body (hash B, written once): created u48, format and priority, flags, lane length, lane, then unique key, limit and
-- parents if the flags say so, then what only clients read. envelope.rs writes it.
-- A record (hash S), for every job but a fresh one that is Ready: state, sub, flags, priority and links, epoch u48, nonce,
-- generation u32, attempts u16, lost u16, rank f64, time f64, and a tail that depends on the state. record.rs reads it.
-- Epoch and nonce, bytes 5 to 26, are the fence. The tail of a Running job: session, end of its lease f64, batch u48.
--
-- Leases. Jobs that one claim took off the list are a batch: one entry of L, the batch's number, at the time its first lease
-- may end or earlier; how many of its leases stand, in RC; session, nonce and the ids as they stood in the list, in RU. A
-- lease that is no part of a batch has batch 0 and an entry of its own in L, the id. What counts is the end in the record.
-- The fresh jobs of a batch share one record, for strings are what costs in Lua: its rank is the place of the batch's first
-- id, as a negative number.
--
-- The invariant: a job stands in exactly the set of its state. Only leave() and the enter_ functions touch the sets.
local UNIQUE, START, LIMIT, PARENTS = 1, 2, 4, 8
local SUSPECT, CANCEL, EXTRA, SETTLED, CHILDREN = 1, 2, 4, 8, 16
-- What a parent's failure does to a child; 0 calls it off.
local IGNORE, WAIT = 1, 2
local ZERO16 = string.rep('\0', 16)
local NO_BATCH = string.rep('\0', 6)
-- Jobs that one call may touch beyond those it names: what hangs on their ends. The rest is left to sweeps.
local budget = 200

local function has(flags, bit) return flags % (bit * 2) >= bit end
local function with(flags, bit) return has(flags, bit) and flags or flags + bit end
local function without(flags, bit) return has(flags, bit) and flags - bit or flags end

-- One table a job a call, so that two paths to a job see the same.
local jobs = {}

local function decode(id, r)
  local generation, attempts, lost, rank, t = unpack_('>I4I2I2dd', r, 27)
  return {
    id = id, st = sub(r, 1, 1), sub = sub(r, 2, 2), fl = byte(r, 3), pb = byte(r, 4), epoch = (unpack_('>I6', r, 5)),
    generation = generation, attempts = attempts, lost = lost, rank = rank, t = t, nonce = sub(r, 11, 26),
    tail = sub(r, 51), noted = sub(r, 1, 2) == 'Rm',
  }
end

local function encode(j)
  return j.st .. j.sub .. char(j.fl, j.pb) .. pack('>I6', j.epoch) .. j.nonce
    .. pack('>I4I2I2dd', j.generation, j.attempts, j.lost, j.rank, j.t) .. j.tail
end

local function priority(j) return math.floor(j.pb / 16) end

-- Priority and links as records have them. A body that is cut short must not stop a claim.
local function links_byte(body) return ((byte(body, 7) or 5) % 16) * 16 + (byte(body, 8) or 0) % 16 end

local function fresh(id, body)
  local pb = links_byte(body)
  local usual = pb >= 80 and pb < 96
  return {
    id = id, body = body, st = 'R', sub = usual and 'm' or 'z', fl = 0, pb = pb, epoch = 0, generation = 0,
    attempts = 0, lost = 0, rank = 0, t = 0, nonce = ZERO16, tail = '', new = true,
  }
end

local function load(id)
  local j = jobs[id]
  if j then return j end
  local r = call('HGET', S, id)
  if r then
    j = decode(id, r)
  else
    local body = call('HGET', B, id)
    if not body then return nil end
    j = fresh(id, body)
    if j.sub == 'z' then j.rank = tonumber(call('ZSCORE', Z, id)) end
  end
  jobs[id] = j
  return j
end

local function save(j)
  if j.st == 'R' and (j.sub == 'm' or j.sub == 'z') and j.epoch == 0 and j.fl == 0
    and (j.sub == 'm' or priority(j) ~= 5) then
    -- As good as fresh: no record says the same in no room.
    if not j.new then call('HDEL', S, j.id) end
    if j.noted then noted = noted - 1 end
    j.new, j.noted = true, false
    return
  end
  j.new = false
  local listed = j.st == 'R' and j.sub == 'm'
  if listed and not j.noted then noted = noted + 1 end
  j.noted = listed
  call('HSET', S, j.id, encode(j))
end

local function body_of(j)
  if not j.body then j.body = call('HGET', B, j.id) end
  return j.body
end

local function created(body) return (unpack_('>I6', body, 1)) end

local function lane_of(body) return sub(body, 10, 9 + (byte(body, 9) or 0)) end

-- The unique key, the limit and the parents of a body.
local function parse_links(body)
  local flags, at, found = byte(body, 8), 10 + byte(body, 9), {}
  if has(flags, UNIQUE) then
    local conflict, till, window, n
    conflict, till, window, n, at = unpack_('>BBdI2', body, at)
    found.key, found.conflict, found.till, found.window = sub(body, at, at + n - 1), conflict, till, window
    at = at + n
  end
  if has(flags, LIMIT) then
    local n
    found.at_most, n, at = unpack_('>I4B', body, at)
    found.limit = sub(body, at, at + n - 1)
    at = at + n
  end
  if has(flags, PARENTS) then
    local n
    found.policy, n, at = unpack_('>BI2', body, at)
    found.parents = {}
    for i = 1, n do found.parents[i] = sub(body, at + 16 * i - 16, at + 16 * i - 1) end
  end
  return found
end

local function links(j)
  if not j.links then
    j.links = j.pb % 16 == 0 and {} or parse_links(body_of(j))
  end
  return j.links
end

local function next_rank(j)
  seq = seq + 1
  return (9 - priority(j)) * LEVEL + seq
end

-- A rank as bytes that sort as it does.
local function rank_bytes(rank) return pack('>I8', rank) end

local function blocked_member(j)
  local key = links(j).limit
  return char(#key) .. key .. rank_bytes(j.rank) .. j.id
end

local function parked_member(j) return lane_of(body_of(j)) .. '\0' .. rank_bytes(j.rank) .. j.id end

local function unpark(lane)
  if call('HINCRBY', KL, lane, -1) <= 0 then call('HDEL', KL, lane) end
end

-- The sets of the Cancelled and the Dead. The Completed stand in a list, since they leave it at its head: an entry is the id,
-- and an x when there is more to forget than body and record.
local FINAL = { K = CN, D = DD }

-- So many leases of a batch are over.
local function end_leases(batch, count)
  if call('HINCRBY', RC, batch, -count) > 0 then return end
  call('HDEL', RC, batch)
  call('HDEL', RU, batch)
  call('ZREM', L, batch)
end

local function batch_of(j) return sub(j.tail, 25, 30) end

-- The ids of a batch, as they stood in the list: of some the lease is over, and some were never taken.
local function ids_of(batch)
  local ids = {}
  for at = 33, #batch, 16 do ids[#ids + 1] = sub(batch, at, at + 15) end
  return ids
end

-- The place in line from which a Running job was claimed.
local function claimed_from(j)
  if j.rank >= 0 then return j.rank end
  local ids, at = call('HGET', RU, batch_of(j)) or '', 33
  while true do
    local found = string.find(ids, j.id, at, true)
    if not found then return -j.rank end
    if found % 16 == 1 then return (found - 33) / 16 - j.rank end
    at = found + 1
  end
end

local function leave(j)
  if j.st == 'R' then
    if j.sub == 'm' then
      holes = holes + 1
      if j.noted then noted = noted - 1 end
      j.noted = false
    elseif j.sub == 'z' then call('ZREM', Z, j.id)
    elseif j.sub == 's' then call('ZREM', P, j.id)
    else
      call('ZREM', K, parked_member(j))
      unpark(lane_of(body_of(j)))
    end
  elseif j.st == 'S' then call('ZREM', D, j.id)
  elseif j.st == 'X' then
    local batch = batch_of(j)
    running = running - 1
    if batch == NO_BATCH then call('ZREM', L, j.id) else end_leases(batch, 1) end
  elseif j.st == 'B' then
    call('SREM', BS, j.id)
    if j.sub == 'l' then call('ZREM', LB, blocked_member(j)) end
  elseif j.st == 'C' then call('LREM', C, 1, has(j.fl, EXTRA) and j.id .. 'x' or j.id)
  else call('ZREM', FINAL[j.st], j.id)
  end
  j.tail = ''
end

local function holds_place(j) return j.st == 'R' or j.st == 'X' end

local function enter_blocked(j, why)
  j.st, j.sub = 'B', why
  j.tail = pack('>I4', j.parents_left or 0)
  call('SADD', BS, j.id)
  save(j)
end

local function parents_left(j)
  if j.st == 'B' and #j.tail >= 4 then return (unpack_('>I4', j.tail, 1)) end
  return j.parents_left or 0
end

local function line_up(j)
  j.st, j.t = 'R', 0
  if has(j.fl, SUSPECT) then
    j.sub, j.rank = 's', next_rank(j)
    call('ZADD', P, num(j.rank), j.id)
  elseif priority(j) == 5 then
    j.sub, j.rank = 'm', 0
    call('RPUSH', W, j.id)
  else
    j.sub, j.rank = 'z', next_rank(j)
    call('ZADD', Z, num(j.rank), j.id)
  end
  ring = true
  save(j)
end

local function limit_prefix(key) return char(#key) .. key end

local function first_blocked(key)
  local prefix = limit_prefix(key)
  return call('ZRANGEBYLEX', LB, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', 0, 1)[1]
end

-- Takes a place under the job's limit. Who already waits for one goes first, so that a job which fails and comes back at
-- once cannot keep the others out.
local function take_place(j)
  local link = links(j)
  if not link.limit then return true end
  local taken = tonumber(call('HGET', LT, link.limit) or '0')
  if taken >= link.at_most or first_blocked(link.limit) then return false end
  call('HINCRBY', LT, link.limit, 1)
  return true
end

-- Sends a job that stands in no set through the gates: parents, due time, limit, line.
local function admit(j, due, why)
  if (j.parents_left or 0) > 0 then
    j.t = due
    return enter_blocked(j, 'p')
  end
  if due > now then
    j.st, j.sub, j.t = 'S', why, due
    call('ZADD', D, num(due), j.id)
    if call('ZRANGE', D, 0, 0)[1] == j.id then ring = true end
    return save(j)
  end
  if not take_place(j) then
    j.rank, j.t = next_rank(j), due
    call('ZADD', LB, 0, blocked_member(j))
    return enter_blocked(j, 'l')
  end
  line_up(j)
end

-- Lets in those who wait for a place under a limit, in the order of their ranks.
local function fill_places(key)
  local taken = tonumber(call('HGET', LT, key) or '0')
  local prefix = 1 + #key
  while true do
    local member = first_blocked(key)
    if not member then
      if taken <= 0 then call('HDEL', LT, key) end
      return
    end
    if budget <= 0 then
      call('RPUSH', PE, 'L' .. key)
      return
    end
    budget = budget - 1
    local first = load(sub(member, prefix + 9))
    if taken >= links(first).at_most then return end
    leave(first)
    taken = call('HINCRBY', LT, key, 1)
    line_up(first)
  end
end

local function give_back_place(j)
  local key = links(j).limit
  if key then call('HINCRBY', LT, key, -1) end
end

-- From the state it is in to the gates, giving back the place it held.
local function readmit(j, due, why)
  local held = holds_place(j)
  leave(j)
  local key = links(j).limit
  if held and key then give_back_place(j) end
  admit(j, due, why)
  if held and key then fill_places(key) end
end
