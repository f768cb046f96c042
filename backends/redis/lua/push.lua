-- push: takes jobs in, all or none, in this order.
--
-- ARGV: .., 3: how many jobs n; 4: '1' when all of them are plain (no key, limit or parents, priority 5, due now, ids
-- that differ); 5: '1' when a parent that is not stored counts as one that failed instead of refusing the batch; then n
-- ids, n bodies, and unless plain n due times.
-- Returns 'I' when all were inserted, or an answer for each (see insert).
-- Cost: 6 commands for a plain batch.
-- Stands before job.lua, so that plain jobs do not pay for what it defines. push_each.lua goes on for the others.

local n, plain, lenient = tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5] == '1'
local stored = call('HMGET', B, unpack(ARGV, 6, 5 + n))

if plain then
  local prefix = pack('>I6', now)
  local hash, ids, answers, all = {}, {}, {}, true
  for i = 1, n do
    if stored[i] then
      answers[i], all = 'S', false
    else
      answers[i] = 'I'
      local id = ARGV[5 + i]
      ids[#ids + 1] = id
      hash[#hash + 1] = id
      hash[#hash + 1] = prefix .. ARGV[5 + n + i]
    end
  end
  if #ids > 0 then
    open()
    call('HSET', B, unpack(hash))
    local length = call('RPUSH', W, unpack(ids))
    -- Whoever sleeps saw the list empty.
    if length - holes <= #ids then ring = true end
    commit()
  end
  return all and 'I' or answers
end
