-- A job as scripts see it: its record, its way between the sets, and what its moves set free.
--
-- A body (hash B, written once): created u48, format and priority, flags, lane length, lane, then unique key, limit and
-- parents if the flags say so, then what only clients read. envelope.rs writes it.
-- A record (hash S), for every job but a fresh one that is Ready: state, sub, flags, priority and links, epoch u48, nonce,
-- generation u32, attempts u16, lost u16, rank f64, time f64, and a tail that depends on the state. record.rs reads it.
-- Epoch and nonce, bytes 5 to 26, are the fence.
--
-- The invariant: a job stands in exactly the set of its state. Only leave() and the enter_ functions touch the sets.
local UNIQUE, START, LIMIT, PARENTS = 1, 2, 4, 8
local SUSPECT, CANCEL, EXTRA, SETTLED, CHILDREN = 1, 2, 4, 8, 16
-- What a parent's failure does to a child; 0 calls it off.
local IGNORE, WAIT = 1, 2
local ZERO16 = string.rep('\0', 16)
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
    tail = sub(r, 51),
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
    j.new = true
    return
  end
  j.new = false
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

local function leave(j)
  if j.st == 'R' then
    if j.sub == 'm' then holes = holes + 1
    elseif j.sub == 'z' then call('ZREM', Z, j.id)
    elseif j.sub == 's' then call('ZREM', P, j.id)
    else
      call('ZREM', K, parked_member(j))
      unpark(lane_of(body_of(j)))
    end
  elseif j.st == 'S' then call('ZREM', D, j.id)
  elseif j.st == 'X' then call('ZREM', L, j.id)
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

-- Unique keys: holder, the one behind it or zeros, and when the window ends, or -1.
local function key_get(key)
  local r = call('HGET', U, key)
  if not r then return nil end
  local behind, till = sub(r, 17, 32), (unpack_('>d', r, 33))
  return { holder = sub(r, 1, 16), behind = behind ~= ZERO16 and behind or nil, till = till >= 0 and till or nil }
end

local function key_set(key, k)
  call('HSET', U, key, k.holder .. (k.behind or ZERO16) .. pack('>d', k.till or -1))
end

local function key_drop(key, k)
  call('HDEL', U, key)
  if k.till then call('ZREM', UW, key) end
end

-- Not while one waits behind: it is to be let in at the holder's end.
local function key_is_free(k) return not k.behind and k.till and k.till <= now end

local function hold_key(j)
  local link = links(j)
  if not link.key then return end
  local till
  if link.till == 2 then
    till = math.min(created(body_of(j)) + link.window, TIME_MAX)
    call('ZADD', UW, num(till), link.key)
  end
  key_set(link.key, { holder = j.id, till = till })
end

local function unblock(j)
  local due = j.t
  j.parents_left = parents_left(j)
  leave(j)
  admit(j, due, 'd')
end

local function free_key(j)
  local key = links(j).key
  if not key then return end
  local k = key_get(key)
  if not k then return end
  local changed = false
  if k.behind == j.id then k.behind, changed = nil, true end
  if k.holder ~= j.id then
    if changed then key_set(key, k) end
    return
  end
  local behind = k.behind
  k.behind = nil
  if not k.till or k.till <= now then key_drop(key, k)
  else key_set(key, k)
  end
  local waiting = behind and load(behind)
  if waiting then
    hold_key(waiting)
    unblock(waiting)
  end
end

-- A key that its holder keeps only until it starts.
local function free_key_at_start(j)
  local key = links(j).key
  local k = key and key_get(key)
  if k and k.holder == j.id then key_drop(key, k) end
end

local function uuid(id)
  local hex = {}
  for i = 1, 16 do hex[i] = fmt('%02x', byte(id, i)) end
  local text = table.concat(hex)
  return sub(text, 1, 8) .. '-' .. sub(text, 9, 12) .. '-' .. sub(text, 13, 16) .. '-' .. sub(text, 17, 20)
    .. '-' .. sub(text, 21)
end

local function orphaned(parent)
  return ZERO16 .. 'its parent ' .. uuid(parent) .. ' did not complete'
end

-- Ends still to come of this call: a list, not recursion, since a chain of children may be long.
local calling_off = {}
local ended = { C = 0, K = 0, D = 0 }

local function parent_done(child)
  local left = math.max(parents_left(child) - 1, 0)
  child.tail = pack('>I4', left)
  child.parents_left = left
  -- One that waits behind a unique key as well goes on waiting for that.
  if child.sub == 'p' and left == 0 then unblock(child) else save(child) end
end

-- Tells the children of `parent`, from `from` on, that it ended as `kind` (C, K, D, or G for a Dead one forgotten). What is over the budget is left to sweeps.
local function tell_children(parent, kind, from)
  while true do
    local lower = from and ('(' .. parent .. from) or ('[' .. parent)
    local page = call('ZRANGEBYLEX', CH, lower, '(' .. parent .. '\255\255\255\255\255\255\255', 'LIMIT', 0, 50)
    if #page == 0 then return end
    for _, member in ipairs(page) do
      if budget <= 0 then
        call('RPUSH', PE, kind .. parent .. (from or ''))
        return
      end
      budget = budget - 1
      from = sub(member, 17)
      local child = load(sub(member, 23))
      if not child or child.st ~= 'B' then
        call('ZREM', CH, member)
      else
        local policy = links(child).policy
        if kind == 'C' or policy == IGNORE then
          call('ZREM', CH, member)
          parent_done(child)
        elseif kind ~= 'D' or policy ~= WAIT then
          call('ZREM', CH, member)
          calling_off[#calling_off + 1] = { child.id, orphaned(parent) }
        end
      end
    end
  end
end

local function end_one(j, st, how, tail)
  local held = holds_place(j)
  leave(j)
  j.st, j.sub, j.t, j.tail = st, how, now, tail
  j.fl = without(without(j.fl, CANCEL), SUSPECT)
  ended[st] = ended[st] + 1
  if st == 'C' then call('RPUSH', C, has(j.fl, EXTRA) and j.id .. 'x' or j.id)
  else call('ZADD', FINAL[st], num(now), j.id)
  end
  save(j)
  if await then told[#told + 1] = j.id end
  local key = links(j).limit
  if key then
    if held then give_back_place(j) end
    -- Also when it only waited for a place: it may have stood in the way of one with a larger number.
    fill_places(key)
  end
  free_key(j)
  if has(j.fl, CHILDREN) then tell_children(j.id, st, nil) end
end

-- Calls off what the ends so far called off, and what that calls off.
local function settle_cascade()
  while #calling_off > 0 do
    local at = #calling_off
    local id, tail = calling_off[at][1], calling_off[at][2]
    calling_off[at] = nil
    local j = load(id)
    if j and j.st == 'B' then end_one(j, 'K', ' ', tail) end
  end
end

-- Ends a job, whatever state it is in, and those that its end calls off.
local function finish(j, st, how, tail)
  end_one(j, st, how, tail)
  settle_cascade()
end

-- Forgets ended jobs, of which the sets of their states know no more. Children that still wait for a Dead one (for its
-- revival) are called off: it cannot come back. `plain` ones have nothing but body and record.
local function forget(ids, plain)
  if #ids == 0 then return end
  for _, id in ipairs(ids) do jobs[id] = nil end
  if not plain then
    local records = call('HMGET', S, unpack(ids))
    local extra = {}
    for i, id in ipairs(ids) do
      local fl = records[i] and byte(records[i], 3) or 0
      if has(fl, EXTRA) then
        for _, field in ipairs({ 'e', 'p', 'g', 'r' }) do extra[#extra + 1] = id .. field end
      end
      if has(fl, CHILDREN) and sub(records[i], 1, 1) == 'D' then tell_children(id, 'G', nil) end
    end
    for at = 1, #extra, 1000 do
      call('HDEL', X, unpack(extra, at, math.min(at + 999, #extra)))
    end
  end
  call('HDEL', B, unpack(ids))
  call('HDEL', S, unpack(ids))
end

-- Forgets Completed jobs by the entries of their list, which have been taken off it.
local function forget_completed(entries)
  local plain, more = {}, {}
  for _, entry in ipairs(entries) do
    if #entry == 16 then plain[#plain + 1] = entry else more[#more + 1] = sub(entry, 1, 16) end
  end
  forget(plain, true)
  forget(more)
end

-- Forgets the oldest ends beyond the counts that are kept: all that this call caused, and up to `more` besides.
-- Returns how many.
local function trim(more)
  local forgotten, keeps = 0, nil
  -- Cancelled last: forgetting a Dead one can call others off.
  for _, at in ipairs({ 3, 1, 2 }) do
    local st = ({ 'C', 'K', 'D' })[at]
    if ended[st] > 0 or more > 0 then
      if not keeps then
        keeps = {}
        for n in string.gmatch(ARGV[2], '%S+') do keeps[#keeps + 1] = tonumber(n) end
      end
      local excess = (st == 'C' and call('LLEN', C) or call('ZCARD', FINAL[st])) - keeps[at]
      local most = ended[st] + more
      while excess > 0 and most > 0 do
        local page, ids = math.min(excess, most, 1000), {}
        if st == 'C' then
          ids = call('LPOP', C, page)
          forget_completed(ids)
        else
          local popped = call('ZPOPMIN', FINAL[st], page)
          for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
          forget(ids)
        end
        excess, most = excess - #ids, most - #ids
        forgotten = forgotten + #ids
        settle_cascade()
      end
    end
  end
  return forgotten
end

local function error_note(j, panic, text)
  call('HSET', X, j.id .. 'e', panic .. text)
  j.fl = with(j.fl, EXTRA)
end

-- The reason with which somebody asked for the cancellation of a running job, or nil. Takes it back.
local function called_off(j)
  if not has(j.fl, CANCEL) then return nil end
  local reason = call('HGET', X, j.id .. 'r') or ''
  call('HDEL', X, j.id .. 'r')
  j.fl = without(j.fl, CANCEL)
  return ZERO16 .. reason
end

-- Running to Ready, at the place in line it was claimed from.
local function back_in_line(j)
  leave(j)
  j.st, j.t = 'R', 0
  j.sub = has(j.fl, SUSPECT) and 's' or 'z'
  call('ZADD', j.sub == 's' and P or Z, num(j.rank), j.id)
  ring = true
  save(j)
end

local function release(j)
  local tail = called_off(j)
  if tail then return finish(j, 'K', ' ', tail) end
  back_in_line(j)
end

-- Makes Ready what is due, at most `bound` jobs.
local function promote(bound)
  if bound <= 0 then return 0 end
  local due = call('ZRANGEBYSCORE', D, '-inf', num(now), 'LIMIT', 0, bound)
  for _, id in ipairs(due) do
    local j = load(id)
    leave(j)
    admit(j, now, 'd')
  end
  return #due
end
