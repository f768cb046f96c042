-- push: takes jobs in, all or none, in this order. Those that are all plain go through push_plain.lua.
--
-- ARGV: .., 3: how many jobs n; 4: '1' when a parent that is not stored counts as one that failed instead of refusing the
-- batch; then n ids, n bodies, n due times.
-- Returns an answer for each (see insert).
-- Cost: 3 to 10 commands a job.
-- Invariant: nothing is written before the last thing that can be refused was looked at.

local n, lenient = tonumber(ARGV[3]), ARGV[4] == '1'
local stored = call('HMGET', B, unpack(ARGV, 5, 4 + n))

if not lenient then
  local earlier = {}
  for i = 1, n do
    local id, body = ARGV[4 + i], ARGV[4 + n + i]
    if not stored[i] and has(byte(body, 2), PARENTS) then
      for _, parent in ipairs(parse_links('------' .. body).parents) do
        if not earlier[parent] and call('HEXISTS', B, parent) == 0 then
          return redis.error_reply('WLPARENT ' .. uuid(parent))
        end
      end
    end
    earlier[id] = true
  end
end

open()
local answers = {}
for i = 1, n do
  answers[i] = insert(ARGV[4 + i], ARGV[4 + n + i], ARGV[4 + 2 * n + i])
end
trim(0)
commit()
return answers
