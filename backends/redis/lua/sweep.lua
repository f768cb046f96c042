-- sweep: one bounded round of upkeep of a named queue.
--
-- ARGV: .., 3 to 5: at most so many to promote, to reclaim, to prune, each at most 200; 6 to 8: the ages in ms for which
-- Completed, Cancelled and Dead jobs are kept.
-- Returns {promoted, reclaimed, cancelled, buried, pruned, whether more hangs on earlier ends or leases are left to be looked
-- at, whether the outbox holds something, the time}.
-- Cost: 8 commands when there is nothing to do; 4 to 20 for each job, and 1 for each whose lease was extended since.
local LOST_MAX = 3

if not meta[1] then return { 0, 0, 0, 0, 0, 0, 0, num(now) } end

-- What hangs on earlier ends and went over their budget.
local function go_on()
  for _ = 1, 200 do
    if budget <= 0 then return end
    local left = call('LPOP', PE)
    if not left then return end
    local kind = sub(left, 1, 1)
    if kind == 'L' then fill_places(sub(left, 2))
    else
      local from = sub(left, 18)
      tell_children(sub(left, 2, 17), kind, from ~= '' and from or nil)
      settle_cascade()
    end
  end
end
go_on()

local promoted = promote(tonumber(ARGV[3]))

local reclaimed, cancelled, buried = 0, 0, 0
local most = tonumber(ARGV[4])

local function lapse(j)
  local tail = called_off(j)
  if tail then
    finish(j, 'K', ' ', tail)
    cancelled = cancelled + 1
  else
    if j.sub == '1' then j.lost = j.lost + 1 end
    if j.lost >= LOST_MAX then
      finish(j, 'D', 'p', '')
      buried = buried + 1
    else
      j.fl = with(j.fl, SUSPECT)
      back_in_line(j)
      reclaimed = reclaimed + 1
    end
  end
end

-- What has lapsed of a batch, which then stands in L at the first of the ends that are left. Returns how many ids it saw.
local function lapse_batch(batch)
  local ids, first = ids_of(call('HGET', RU, batch) or ''), nil
  for from = 1, #ids, 1000 do
    for i, r in ipairs(call('HMGET', S, unpack(ids, from, math.min(from + 999, #ids)))) do
      if r and sub(r, 1, 1) == 'X' and sub(r, 75, 80) == batch then
        local ends = unpack_('>d', r, 67)
        -- Anew: an id can stand in a batch twice.
        local j = ends <= now and load(ids[from + i - 1])
        if not j then first = math.min(first or ends, ends)
        elseif reclaimed + cancelled + buried >= most then return #ids
        elseif j.st == 'X' then lapse(j)
        end
      end
    end
  end
  if first then call('ZADD', L, 'XX', num(first), batch) end
  return #ids
end

local looked_at, more = 0, 0
local lapsed = most > 0 and call('ZRANGEBYSCORE', L, '-inf', num(now), 'LIMIT', 0, most) or {}
for _, entry in ipairs(lapsed) do
  if reclaimed + cancelled + buried >= most then break end
  if looked_at > 2000 then
    more = 1
    break
  end
  if #entry ~= 16 then looked_at = looked_at + lapse_batch(entry)
  else
    local j = load(entry)
    local ends = unpack_('>d', j.tail, 17)
    looked_at = looked_at + 1
    if ends <= now then lapse(j) else call('ZADD', L, 'XX', num(ends), entry) end
  end
end

local pruned = 0
most = tonumber(ARGV[5])
-- The list of the Completed is in the order of their ends.
local oldest = now - tonumber(ARGV[6])
local entries = most > 0 and call('LRANGE', C, 0, most - 1) or {}
if #entries > 0 then
  local ids = {}
  for i, entry in ipairs(entries) do ids[i] = sub(entry, 1, 16) end
  local aged = {}
  for i, r in ipairs(call('HMGET', S, unpack(ids))) do
    if r and unpack_('>d', r, 43) > oldest then break end
    aged[i] = entries[i]
  end
  if #aged > 0 then
    call('LTRIM', C, #aged, -1)
    forget_completed(aged)
    pruned = #aged
  end
end
for at, st in ipairs({ 'K', 'D' }) do
  if pruned < most then
    local old = call('ZRANGEBYSCORE', FINAL[st], '-inf', num(now - tonumber(ARGV[6 + at])), 'LIMIT', 0, most - pruned)
    if #old > 0 then
      call('ZREM', FINAL[st], unpack(old))
      forget(old)
      settle_cascade()
      pruned = pruned + #old
    end
  end
end
pruned = pruned + trim(math.max(most - pruned, 0))

-- Keys whose windows have ended. A later push may have taken one for a window of its own.
for _, key in ipairs(call('ZRANGEBYSCORE', UW, '-inf', num(now), 'LIMIT', 0, 200)) do
  local k = key_get(key)
  if k and key_is_free(k) then key_drop(key, k) else call('ZREM', UW, key) end
end

commit()
if more == 0 then more = call('EXISTS', PE) end
return { promoted, reclaimed, cancelled, buried, pruned, more, call('EXISTS', O), num(now) }
