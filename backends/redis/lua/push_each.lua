-- push, for jobs that are not all plain: one by one. See push.lua.
--
-- Cost: 3 to 10 commands a job.
-- Invariant: nothing is written before the last thing that can be refused was looked at.

if not lenient then
  local earlier = {}
  for i = 1, n do
    local id, body = ARGV[5 + i], ARGV[5 + n + i]
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
  answers[i] = insert(ARGV[5 + i], ARGV[5 + n + i], ARGV[5 + 2 * n + i])
end
trim(0)
commit()
return answers
