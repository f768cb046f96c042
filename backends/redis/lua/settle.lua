-- The settling half of work.lua: ends runs, each verdict if and only if its lease still stands.
--
-- From ARGV[11] on: '1' when no id comes twice; the ids, packed; how many runs of like rulings; for each how many verdicts
-- and their ruling; then for each job that rides with a verdict its number, named queue ('' for this one), id, body and due
-- time.
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

-- What a plain completion makes of a record: all of the new one but its tail, or false where it is not plain.
local rests = {}
local function completed(record, keep_none)
  local fl = byte(record, 3)
  if byte(record, 1) ~= RUNNING or byte(record, 4) % 8 ~= 0 or fl >= CHILDREN or (keep_none and has(fl, EXTRA)) then
    return false
  end
  local counts = sub(record, 27, 34)
  local rest = rests[counts]
  if not rest then
    local generation, attempts, lost = unpack_('>I4I2I2', counts, 1)
    rest = pack('>I4I2I2dd', generation, math.min(attempts + 1, 65535), lost, 0, now)
    rests[counts] = rest
  end
  local head = (fl == 0 and 'C \8' or 'C ' .. char(without(without(with(fl, SETTLED), SUSPECT), CANCEL)))
    .. sub(record, 4, 26) .. rest
  return {
    fence = sub(record, 5, 26), head = head, bare = head .. '0', batch = sub(record, 75, 80), extra = has(fl, EXTRA), count = 0,
  }
end

local function settle(n)
  if n == 0 then return '' end
  local ids = {}
  for i = 1, n do ids[i] = sub(ARGV[12], 16 * i - 15, 16 * i) end
  local records = call('HMGET', S, unpack(ids))
  local runs, riders = tonumber(ARGV[13]), {}
  for at = 14 + 2 * runs, #ARGV, 5 do
    local verdict = tonumber(ARGV[at])
    riders[verdict] = riders[verdict] or {}
    table.insert(riders[verdict], at)
  end
  local keep_none = sub(ARGV[2], 1, 2) == '0 '
  -- Plain completions are written together; `latest` holds those not yet written, for a second verdict on one.
  local gone, hash, entries, singles, latest = {}, {}, {}, {}, {}
  local count = 0
  -- What a plain completion makes of each record; the fresh jobs of a batch share one.
  local plain = {}
  local function flush()
    if count == 0 then return end
    running = running - count
    if #singles > 0 then call('ZREM', L, unpack(singles)) end
    local over = {}
    for _, p in pairs(plain) do
      if p and p.batch ~= NO_BATCH then over[p.batch] = (over[p.batch] or 0) + p.count end
      if p then p.count = 0 end
    end
    for batch, leases in pairs(over) do
      if leases > 0 then end_leases(batch, leases) end
    end
    if keep_none then
      call('HDEL', B, unpack(gone))
      call('HDEL', S, unpack(gone))
    else
      call('HSET', S, unpack(hash))
      call('RPUSH', C, unpack(entries))
      ended.C = ended.C + count
    end
    gone, hash, entries, singles, latest, count = {}, {}, {}, {}, {}, 0
  end
  -- Where an id comes twice, or something else than a plain completion came before, what was read may have changed.
  local answers, stale, careful, i = {}, false, ARGV[11] ~= '1', 0
  for run = 1, runs do
    local ruling = ARGV[13 + 2 * run]
    local fence, output = sub(ruling, 1, 22), sub(ruling, 24)
    local completes, bare = byte(ruling, 23) == COMPLETE, output == '0'
    for _ = 1, tonumber(ARGV[12 + 2 * run]) do
      i = i + 1
      local id, record = ids[i], records[i]
      if careful then
        if latest[id] then record = latest[id]
        elseif stale then record = call('HGET', S, id)
        end
      end
      local p = false
      if completes and record and not riders[i] then
        p = plain[record]
        if p == nil then
          p = completed(record, keep_none)
          plain[record] = p
        end
      end
      if p and p.fence == fence then
        count = count + 1
        p.count = p.count + 1
        local done = bare and p.bare or p.head .. output
        hash[2 * count - 1], hash[2 * count] = id, done
        entries[count] = p.extra and id .. 'x' or id
        if keep_none then gone[count] = id end
        if p.batch == NO_BATCH then singles[#singles + 1] = id end
        if careful then latest[id], jobs[id] = done, nil end
        if await then told[#told + 1] = id end
        answers[i] = 'C'
      elseif not stands(record, ruling) then
        answers[i] = refused(record, ruling)
      else
        -- What it touches may be what an earlier or a later verdict is about.
        flush()
        stale, careful = true, true
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
  end
  flush()
  trim(0)
  return table.concat(answers)
end
