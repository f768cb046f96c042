-- The end of a job, and all that its end sets free in the same step: the place under a limit, the unique key, the children;
-- and retention, which forgets old ends. Stands after job.lua.

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
  if next(jobs) then
    for _, id in ipairs(ids) do jobs[id] = nil end
  end
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
  if #table.concat(entries) == 16 * #entries then return forget(entries, true) end
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
  j.rank = claimed_from(j)
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
