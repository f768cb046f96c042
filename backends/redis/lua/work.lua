-- work: settles verdicts, then claims jobs: either half may be empty. One call is one atomic step.
--
-- ARGV: .., 3: how many verdicts; 4: session; 5: nonce; 6: limit, or -1 for no claim; 7: how many ahead; 8: '1' when a
-- suspect may come; 9: the lease in ms; 10: kinds as `name=version;`..; then see settle.lua.
-- Returns {now, answers, suspects taken, bound reached, next due or '', whether the outbox holds something, jobs, records}:
-- jobs are id and body of each in turn, of which the first so many as were wanted start; records are place and record of
-- each that is not fresh. One by one and not as one piece: Lua would hash every byte of that.
-- Cost: settling plain completions 3 to 10 commands a call, claiming 5 to 14; 5 to 20 for each other verdict.
-- Invariant: a verdict changes something only if (id, epoch, nonce) are those of the record, and a job is handed out only
-- with a new epoch and the claim's nonce.

-- Jobs moved aside, due jobs let in, and suspects looked at in one call.
local BOUND = 200

-- From so many jobs on, what one claim takes off the list is a batch (see job.lua).
local BATCH = 4

local limit, ahead = tonumber(ARGV[6]), tonumber(ARGV[7])
local answers = settle(tonumber(ARGV[3]))
local out, written, not_fresh, suspects, bounded, due = {}, 0, {}, 0, 0, ''

-- Whether this claim can run a lane: a kind, or a kind, a colon and the version that it needs.
local kinds, runs = nil, {}
local function can_run(lane)
  local known = runs[lane]
  if known == nil then
    if not kinds then
      kinds = {}
      for name, version in string.gmatch(ARGV[10], '([^=;]+)=(%d+)') do kinds[name] = tonumber(version) end
    end
    local name, needs = string.match(lane, '^([^:]+):?(%d*)$')
    known = name ~= nil and kinds[name] ~= nil and kinds[name] >= (tonumber(needs) or 1)
    runs[lane] = known
  end
  return known
end

-- Parks jobs that this claim cannot run, at their places. Each is {id, body, record or false, rank}.
local function park(some)
  if #some == 0 then return end
  local members, hash, counts = {}, {}, {}
  for _, it in ipairs(some) do
    local id, body, record, rank = it[1], it[2], it[3], it[4]
    local lane = lane_of(body)
    members[#members + 1] = '0'
    members[#members + 1] = lane .. '\0' .. rank_bytes(rank) .. id
    counts[lane] = (counts[lane] or 0) + 1
    local j = record and decode(id, record) or fresh(id, body)
    j.st, j.sub, j.rank = 'R', 'p', rank
    jobs[id] = nil
    hash[#hash + 1] = id
    hash[#hash + 1] = encode(j)
  end
  call('ZADD', K, unpack(members))
  call('HSET', S, unpack(hash))
  for lane, count in pairs(counts) do call('HINCRBY', KL, lane, count) end
end

-- Ready to Running, with a new epoch and the claim's nonce. Of a fresh job the caller is told only whether it starts: the
-- rest it knows.
local count = 0
local hash, filled, leases, starting = {}, 0, {}, {}
local since, till, till_bytes = nil, nil, nil
if limit >= 0 then
  since = pack('>d', now) .. ARGV[4]
  till = later(tonumber(ARGV[9]))
  till_bytes = pack('>d', till)
end

-- The record of a fresh job but for what is the same in all of a claim.
local prefixes = {}
local function fresh_record(starts, pb, rank, batch)
  local prefix = prefixes[starts .. pb]
  if not prefix then
    prefix = 'X' .. starts .. '\0' .. char(pb) .. pack('>I6', 1) .. ARGV[5] .. pack('>I4I2I2', 0, 0, 0)
    prefixes[starts .. pb] = prefix
  end
  return prefix .. pack('>d', rank) .. since .. till_bytes .. batch
end

local function take(id, body, record, rank, batch)
  local starts, made = count < limit and '1' or '0', nil
  count = count + 1
  if record then
    made = 'X' .. starts .. char(without(byte(record, 3), SETTLED)) .. sub(record, 4, 4)
      .. pack('>I6', unpack_('>I6', record, 5) + 1) .. ARGV[5] .. sub(record, 27, 34) .. pack('>d', rank)
      .. since .. till_bytes .. batch
    not_fresh[#not_fresh + 1] = count
    not_fresh[#not_fresh + 1] = made
  else
    made = fresh_record(starts, links_byte(body), rank, batch)
  end
  out[written + 1], out[written + 2] = id, body
  written = written + 2
  hash[filled + 1], hash[filled + 2] = id, made
  filled = filled + 2
  if batch == NO_BATCH then
    leases[#leases + 1] = num(till)
    leases[#leases + 1] = id
  end
  if has(byte(body, 8) or 0, START) then starting[#starting + 1] = id end
end

-- Writes down who was taken. Before anything looks at records again.
local function taken()
  if filled == 0 then return end
  running = running + filled / 2
  call('HSET', S, unpack(hash))
  if #leases > 0 then call('ZADD', L, unpack(leases)) end
  if next(jobs) then
    for at = 1, filled, 2 do jobs[hash[at]] = nil end
  end
  for _, id in ipairs(starting) do free_key_at_start(load(id)) end
  hash, filled, leases, starting = {}, 0, {}, {}
end

-- The parts of `ids` whose bodies are stored, each with its record.
local function with_parts(ids, ranks)
  local bodies, records = call('HMGET', B, unpack(ids)), call('HMGET', S, unpack(ids))
  local found = {}
  for i, id in ipairs(ids) do
    if bodies[i] then found[#found + 1] = { id, bodies[i], records[i], ranks[i], i } end
  end
  return found
end

-- One suspect at most, ahead of all others; not past the bound, so that a queue full of suspects which nobody here can
-- run does not slow every claim.
local function take_suspect()
  local page = call('ZRANGE', P, 0, BOUND - 1, 'WITHSCORES')
  if #page == 0 then return end
  local ids, ranks = {}, {}
  for i = 1, #page, 2 do
    ids[#ids + 1] = page[i]
    ranks[#ranks + 1] = tonumber(page[i + 1])
  end
  for _, it in ipairs(with_parts(ids, ranks)) do
    if can_run(lane_of(it[2])) then
      call('ZREM', P, it[1])
      suspects = 1
      take(it[1], it[2], it[3], it[4], NO_BATCH)
      return taken()
    end
  end
end

local wanted = limit + ahead
local aside = BOUND

-- Takes what stands in Z or was moved aside, below a rank.
local function take_ranked(below)
  if count >= wanted then return end
  local lanes = {}
  for _, lane in ipairs(call('HKEYS', KL)) do
    if can_run(lane) then lanes[#lanes + 1] = lane end
  end
  while count < wanted do
    local page = math.min(wanted - count, BOUND)
    local all = {}
    local waiting = call('ZRANGEBYSCORE', Z, '-inf', '(' .. num(below), 'WITHSCORES', 'LIMIT', 0, page)
    for i = 1, #waiting, 2 do all[#all + 1] = { tonumber(waiting[i + 1]), waiting[i] } end
    for _, lane in ipairs(lanes) do
      local prefix = lane .. '\0'
      for _, member in ipairs(call('ZRANGEBYLEX', K, '[' .. prefix, '(' .. prefix .. rank_bytes(below), 'LIMIT', 0, page)) do
        all[#all + 1] = { (unpack_('>I8', member, #prefix + 1)), sub(member, #prefix + 9), member, lane }
      end
    end
    if #all == 0 then return end
    table.sort(all, function(a, b) return a[1] < b[1] end)
    -- What lies beyond the page may be out of order with what lies beyond another lane's page.
    local ids, ranks = {}, {}
    for i = 1, math.min(#all, page) do
      ids[i], ranks[i] = all[i][2], all[i][1]
    end
    local mine, others, gone, unparked = {}, {}, {}, {}
    for _, it in ipairs(with_parts(ids, ranks)) do
      local from = all[it[5]]
      if from[3] then
        unparked[#unparked + 1] = from[3]
        unpark(from[4])
        mine[#mine + 1] = it
      elseif can_run(lane_of(it[2])) then
        gone[#gone + 1] = it[1]
        mine[#mine + 1] = it
      elseif aside > 0 then
        aside = aside - 1
        gone[#gone + 1] = it[1]
        others[#others + 1] = it
      else
        bounded = 1
        break
      end
    end
    if #gone > 0 then call('ZREM', Z, unpack(gone)) end
    if #unparked > 0 then call('ZREM', K, unpack(unparked)) end
    park(others)
    for _, it in ipairs(mine) do take(it[1], it[2], it[3], it[4], NO_BATCH) end
    taken()
    if bounded == 1 then return end
  end
end

-- Puts back what was popped and not looked at.
local function put_back(ids, from)
  local back = {}
  for k = #ids, from, -1 do back[#back + 1] = ids[k] end
  call('LPUSH', W, unpack(back))
end

-- What a body says of its job's priority, links and lane, and what this claim makes of it: whether it can run it, and the
-- records that fresh jobs like it share. Nearly all jobs of a page are alike.
local function look_at(body, base, batch)
  local alike = { runs = can_run(lane_of(body)), shares = false }
  -- What frees its key as it starts is taken with more care.
  if batch ~= NO_BATCH and alike.runs and not has(byte(body, 8) or 0, START) then
    local pb = links_byte(body)
    alike.shares, alike.ahead, alike.starts = true, fresh_record('0', pb, -base, batch), fresh_record('1', pb, -base, batch)
  end
  return alike
end

-- Takes from the head of the list, past a bounded number of entries whose jobs have left it.
local function take_listed()
  local most = wanted + 5 * BOUND
  while count < wanted do
    if most <= 0 then
      bounded = 1
      return
    end
    local page = math.min(wanted - count, 1000)
    -- Where nobody stood, probably nobody stands: not one by one.
    if most < wanted + 5 * BOUND then page = math.max(page, BOUND) end
    most = most - page
    local ids = call('LPOP', W, page)
    if not ids or #ids == 0 then return end
    local bodies = call('HMGET', B, unpack(ids))
    local records = (holes > 0 or noted > 0) and call('HMGET', S, unpack(ids)) or {}
    local base, batch = LIST + head, NO_BATCH
    if #ids >= BATCH then
      batches = batches + 1
      batch = pack('>I6', batches)
    end
    -- The same id can stand there twice: deleted, and pushed again. Only where there are holes.
    local others, seen, sorts, before, last = {}, holes > 0 and {}, {}, count, #ids
    for i, id in ipairs(ids) do
      local body, record = bodies[i], records[i]
      local listed = record and sub(record, 1, 2) == 'Rm'
      if not body or (seen and seen[id]) or (record and not listed) then
        holes = holes - 1
      else
        local like = sub(body, 7, 9 + (byte(body, 9) or 0))
        local sort = sorts[like]
        if not sort then
          sort = look_at(body, base, batch)
          sorts[like] = sort
        end
        if count >= wanted or (not sort.runs and aside == 0) then
          put_back(ids, i)
          if count < wanted then bounded = 1 end
          last = i - 1
          break
        end
        if listed then noted = noted - 1 end
        if seen then seen[id] = true end
        if sort.shares and not record then
          local starts = count < limit
          count = count + 1
          out[written + 1], out[written + 2] = id, body
          written = written + 2
          hash[filled + 1], hash[filled + 2] = id, starts and sort.starts or sort.ahead
          filled = filled + 2
        elseif sort.runs then
          take(id, body, record, base + i - 1, batch)
        else
          aside = aside - 1
          others[#others + 1] = { id, body, record, base + i - 1 }
        end
      end
    end
    head = head + last
    park(others)
    if batch ~= NO_BATCH and count > before then
      call('HSET', RU, batch, ARGV[4] .. ARGV[5] .. table.concat(ids, '', 1, last))
      call('HSET', RC, batch, count - before)
      call('ZADD', L, num(till), batch)
    end
    taken()
    if bounded == 1 then return end
    if #ids < page then
      -- Nothing stands in the list any more, unless it was put back.
      if last == #ids then noted = 0 end
      return
    end
  end
end

if limit >= 0 and meta[1] and not meta[2] then
  -- Usually nothing stands anywhere but in the list.
  if call('EXISTS', D, P, Z, KL) > 0 then
    if promote(BOUND) == BOUND then bounded = 1 end
    if ARGV[8] == '1' and limit > 0 then take_suspect() end
    if wanted > 0 then
      local promoted_more = bounded
      bounded = 0
      take_ranked(LIST_END)
      if bounded == 0 then take_listed() end
      if bounded == 0 then take_ranked(10 * LEVEL + LEVEL) end
      bounded = math.max(bounded, promoted_more)
    end
    local first = call('ZRANGE', D, 0, 0, 'WITHSCORES')
    if first[2] then due = num(tonumber(first[2])) end
  elseif wanted > 0 then
    take_listed()
  end
end
-- What this claim took itself need not wake others; what it left or moved aside may.
if limit >= 0 and not meta[2] then ring = ring and (count >= wanted or aside < BOUND) end
commit()
return { num(now), answers, suspects, bounded, due, call('EXISTS', O), out, not_fresh }
