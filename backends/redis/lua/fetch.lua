-- fetch: jobs as they are stored. Writes nothing.
--
-- ARGV: .., 3: how many n; then n ids. Returns for each: '' when it is not stored, or {body, record or '', last error,
-- progress, log}, the last three nil where there are none.
-- Cost: 2 commands a call, 1 for each that has more to say.
local EXTRA = 4

local n, found = tonumber(ARGV[3]), {}
if n == 0 then return found end
local bodies, records = call('HMGET', B, unpack(ARGV, 4, 3 + n)), call('HMGET', S, unpack(ARGV, 4, 3 + n))
for i = 1, n do
  local id, body, r = ARGV[3 + i], bodies[i], records[i]
  if not body then
    found[i] = ''
  else
    local extra = { false, false, false }
    if r and byte(r, 3) % (EXTRA * 2) >= EXTRA then extra = call('HMGET', X, id .. 'e', id .. 'p', id .. 'g') end
    found[i] = { body, r or '', extra[1], extra[2], extra[3] }
  end
end
return found
