-- The settling half of work.lua: ends runs, each verdict if and only if its lease still stands.
--
-- From ARGV[11] on: n ids, n rulings, then for each job that rides with a verdict its number, named queue ('' for this
-- one), id, body and due time.
-- A ruling: epoch u48, nonce, a code, and what the code needs.

local ANSWER = { C = 'C', K = 'K', D = 'D', S = 'S', R = 'R', B = 'B' }

local RUNNING, COMPLETE = byte('X'), byte('c')

local function stands(record, ruling)
  return record and byte(record, 1) == RUNNING and sub(record, 5, 26) == sub(ruling, 1, 22)
end

-- Tells a repeat of a verdict that was applied from one whose lease is lost.
local function refused(record, ruling)
  if record and byte(record, 1) ~= RUNNING and has(byte(record, 3), SETTLED)
    and sub(record, 5, 26) == sub(ruling, 1, 22) then
    return 'A'
  end
  return 'L'
end

local function come_back(j, after, why)
  local tail = called_off(j)
  if tail then return finish(j, 'K', ' ', tail) end
  readmit(j, later(after), why)
end

-- Applies one verdict whose lease stands. Returns the state it led to.
local function apply(j, ruling)
  j.fl = with(j.fl, SETTLED)
  local code = sub(ruling, 23, 23)
  if code ~= 'l' then j.fl = without(j.fl, SUSPECT) end
  if code ~= 'l' and code ~= 'z' then j.attempts = math.min(j.attempts + 1, 65535) end
  if code == 'c' then finish(j, 'C', ' ', sub(ruling, 24))
  elseif code == 'k' then finish(j, 'K', ' ', ZERO16 .. sub(ruling, 24))
  elseif code == 'd' then
    error_note(j, sub(ruling, 25, 25), sub(ruling, 26))
    finish(j, 'D', sub(ruling, 24, 24), '')
  elseif code == 'r' then
    error_note(j, sub(ruling, 32, 32), sub(ruling, 33))
    come_back(j, (unpack_('>d', ruling, 24)), 'r')
  elseif code == 'z' then come_back(j, (unpack_('>d', ruling, 24)), 'z')
  else release(j)
  end
  return ANSWER[j.st]
end

local function settle(n)
  if n == 0 then return '' end
  local records = call('HMGET', S, unpack(ARGV, 11, 10 + n))
  local riders = {}
  for at = 11 + 2 * n, #ARGV, 5 do
    local verdict = tonumber(ARGV[at])
    riders[verdict] = riders[verdict] or {}
    table.insert(riders[verdict], at)
  end
  local keep_none = sub(ARGV[2], 1, 2) == '0 '
  -- Plain completions are written together; `latest` holds those not yet written, for a second verdict on one.
  local ids, hash, entries, latest = {}, {}, {}, {}
  -- What follows the fence, by the counts that it follows from: nearly all jobs have the same.
  local rests = {}
  local function flush()
    if #ids == 0 then return end
    call('ZREM', L, unpack(ids))
    if keep_none then
      call('HDEL', B, unpack(ids))
      call('HDEL', S, unpack(ids))
    else
      call('HSET', S, unpack(hash))
      call('RPUSH', C, unpack(entries))
      ended.C = ended.C + #ids
    end
    ids, hash, entries, latest = {}, {}, {}, {}
  end
  local answers, stale = {}, false
  for i = 1, n do
    local id, ruling = ARGV[10 + i], ARGV[10 + n + i]
    local record = records[i]
    if latest[id] then record = latest[id]
    elseif stale then record = call('HGET', S, id)
    end
    if not stands(record, ruling) then
      answers[i] = refused(record, ruling)
    elseif byte(ruling, 23) == COMPLETE and not riders[i] and byte(record, 4) % 8 == 0
      and (byte(record, 3) < CHILDREN) and not (keep_none and has(byte(record, 3), EXTRA)) then
      local fl = byte(record, 3)
      local counts = sub(record, 27, 34)
      local rest = rests[counts]
      if not rest then
        local generation, attempts, lost = unpack_('>I4I2I2', counts, 1)
        rest = pack('>I4I2I2dd', generation, math.min(attempts + 1, 65535), lost, 0, now)
        rests[counts] = rest
      end
      ids[#ids + 1] = id
      local done = (fl == 0 and 'C \8' or 'C ' .. char(without(without(with(fl, SETTLED), SUSPECT), CANCEL)))
        .. sub(record, 4, 26) .. rest .. sub(ruling, 24)
      if not keep_none then
        hash[#hash + 1] = id
        hash[#hash + 1] = done
        entries[#entries + 1] = has(fl, EXTRA) and id .. 'x' or id
      end
      latest[id] = done
      jobs[id] = nil
      if await then told[#told + 1] = id end
      answers[i] = 'C'
    else
      -- What it touches may be what an earlier or a later verdict is about.
      flush()
      stale = true
      local j = load(id)
      answers[i] = apply(j, ruling)
      for _, at in ipairs(riders[i] or {}) do
        if ARGV[at + 1] == '' then
          insert(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
        else
          seq = seq + 1
          call('ZADD', O, num(seq), pack('>I6B', seq, #ARGV[at + 1]) .. ARGV[at + 1] .. ARGV[at + 2]
            .. pack('>d', due_at(ARGV[at + 4])) .. ARGV[at + 3])
        end
      end
    end
  end
  flush()
  trim(0)
  return table.concat(answers)
end
