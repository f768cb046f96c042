-- work: settles verdicts, then claims jobs: either half may be empty. One call is one atomic step.
--
-- ARGV: .., 3: how many verdicts; 4: session; 5: nonce; 6: limit, or -1 for no claim; 7: how many ahead; 8: '1' when a
-- suspect may come; 9: the lease in ms; 10: kinds as `name=version;`..; then see settle.lua.
-- Returns {now, answers, suspects taken, bound reached, next due or '', whether the outbox holds something, then for each
-- job id, body, and record or, of a fresh one, whether it starts}.
-- Cost: settling plain completions 3 to 7 commands a call, claiming 8 to 12; 5 to 20 for each other verdict.
-- Invariant: a verdict changes something only if (id, epoch, nonce) are those of the record, and a job is handed out only
-- with a new epoch and the claim's nonce.

-- Jobs moved aside, due jobs let in, and suspects looked at in one call.
local BOUND = 200

local limit, ahead = tonumber(ARGV[6]), tonumber(ARGV[7])
local answers = settle(tonumber(ARGV[3]))
local jobs_out, suspects, bounded, due = {}, 0, 0, ''

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
local prefixes = {}
local hash, leases, starting = {}, {}, {}
local tail, till
local function take(id, body, record, rank)
  if not tail then
    tail = pack('>d', now) .. ARGV[4]
    till = num(later(tonumber(ARGV[9])))
  end
  local started = count < limit and '1' or '0'
  count = count + 1
  local made
  if record then
    made = 'X' .. started .. char(without(byte(record, 3), SETTLED)) .. sub(record, 4, 4)
      .. pack('>I6', unpack_('>I6', record, 5) + 1) .. ARGV[5] .. sub(record, 27, 34) .. pack('>d', rank) .. tail
    jobs_out[#jobs_out + 1] = id
    jobs_out[#jobs_out + 1] = body
    jobs_out[#jobs_out + 1] = made
    jobs[id] = nil
  else
    local links = links_byte(body)
    local prefix = prefixes[started .. links]
    if not prefix then
      prefix = 'X' .. started .. '\0' .. char(links) .. pack('>I6', 1) .. ARGV[5] .. pack('>I4I2I2', 0, 0, 0)
      prefixes[started .. links] = prefix
    end
    made = prefix .. pack('>d', rank) .. tail
    local at = #jobs_out
    jobs_out[at + 1], jobs_out[at + 2], jobs_out[at + 3] = id, body, started
    if next(jobs) then jobs[id] = nil end
  end
  local at = #hash
  hash[at + 1], hash[at + 2] = id, made
  leases[at + 1], leases[at + 2] = till, id
  if has(byte(body, 8) or 0, START) then starting[#starting + 1] = id end
end

-- Writes down who was taken. Before anything looks at records again.
local function taken()
  if #hash == 0 then return end
  call('HSET', S, unpack(hash))
  call('ZADD', L, unpack(leases))
  for _, id in ipairs(starting) do free_key_at_start(load(id)) end
  hash, leases, starting = {}, {}, {}
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
      take(it[1], it[2], it[3], it[4])
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
    for _, it in ipairs(mine) do take(it[1], it[2], it[3], it[4]) end
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
    local bodies, records = call('HMGET', B, unpack(ids)), call('HMGET', S, unpack(ids))
    -- The same id can stand there twice: deleted, and pushed again.
    local others, seen = {}, {}
    for i, id in ipairs(ids) do
      local body, record = bodies[i], records[i]
      local rank = LIST + head
      if not body or seen[id] or (record and sub(record, 1, 2) ~= 'Rm') then
        holes = holes - 1
      elseif count >= wanted then
        put_back(ids, i)
        break
      elseif can_run(lane_of(body)) then
        seen[id] = true
        take(id, body, record, rank)
      elseif aside > 0 then
        aside = aside - 1
        seen[id] = true
        others[#others + 1] = { id, body, record, rank }
      else
        put_back(ids, i)
        bounded = 1
        break
      end
      head = head + 1
    end
    park(others)
    taken()
    if bounded == 1 or #ids < page then return end
  end
end

if limit >= 0 and meta[1] and not meta[2] then
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
end
-- What this claim took itself need not wake others; what it left or moved aside may.
if limit >= 0 and not meta[2] then ring = ring and (count >= wanted or aside < BOUND) end
commit()
local reply = { num(now), answers, suspects, bounded, due, call('EXISTS', O) }
for i = 1, #jobs_out do reply[6 + i] = jobs_out[i] end
return reply
