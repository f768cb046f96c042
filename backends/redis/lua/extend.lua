-- extend: the named leases last for another `lease` from now, never shorter than before.
--
-- ARGV: .., 3: session; 4: the lease in ms; 5: how many n; then n ids and n fences (epoch u48, nonce, '1' when started).
-- Returns one letter each: K kept, C kept and its cancellation is asked for, L lost.
-- Cost: 3 to 4 commands a call.

local n = tonumber(ARGV[5])
local records = call('HMGET', S, unpack(ARGV, 6, 5 + n))
local till = num(later(tonumber(ARGV[4])))
local answers, leases, started = {}, {}, {}
for i = 1, n do
  local id, fence, r = ARGV[5 + i], ARGV[5 + n + i], records[i]
  if r and sub(r, 1, 1) == 'X' and sub(r, 5, 26) == sub(fence, 1, 22)
    and sub(r, 51, 66) == ARGV[3] then
    leases[#leases + 1] = till
    leases[#leases + 1] = id
    if sub(fence, 23) == '1' and sub(r, 2, 2) == '0' then
      started[#started + 1] = id
      started[#started + 1] = 'X1' .. sub(r, 3)
    end
    answers[i] = has(byte(r, 3), CANCEL) and 'C' or 'K'
  else
    answers[i] = 'L'
  end
end
if #leases > 0 then call('ZADD', L, 'XX', 'GT', unpack(leases)) end
if #started > 0 then call('HSET', S, unpack(started)) end
return table.concat(answers)
