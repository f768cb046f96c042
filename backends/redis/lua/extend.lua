-- extend: the named leases last for another `lease` from now, never shorter than before.
--
-- ARGV: .., 3: session; 4: the lease in ms; 5: how many n; then n ids and n fences (epoch u48, nonce, '1' when started).
-- Returns one letter each: K kept, C kept and its cancellation is asked for, L lost.
-- Cost: 2 to 4 commands a call. A batch's entry in L stays where it is: the sweep that comes to it looks again.

local n = tonumber(ARGV[5])
local records = call('HMGET', S, unpack(ARGV, 6, 5 + n))
local till = later(tonumber(ARGV[4]))
local answers, leases, extended = {}, {}, {}
for i = 1, n do
  local id, fence, r = ARGV[5 + i], ARGV[5 + n + i], records[i]
  if r and sub(r, 1, 1) == 'X' and sub(r, 5, 26) == sub(fence, 1, 22)
    and sub(r, 51, 66) == ARGV[3] then
    local starts = sub(fence, 23) == '1' and sub(r, 2, 2) == '0'
    local longer = unpack_('>d', r, 67) < till
    if starts or longer then
      extended[#extended + 1] = id
      extended[#extended + 1] = 'X' .. (starts and '1' or sub(r, 2, 2)) .. sub(r, 3, 66)
        .. (longer and pack('>d', till) or sub(r, 67, 74)) .. sub(r, 75)
    end
    if longer and sub(r, 75, 80) == NO_BATCH then
      leases[#leases + 1] = num(till)
      leases[#leases + 1] = id
    end
    answers[i] = has(byte(r, 3), CANCEL) and 'C' or 'K'
  else
    answers[i] = 'L'
  end
end
if #leases > 0 then call('ZADD', L, 'XX', unpack(leases)) end
if #extended > 0 then call('HSET', S, unpack(extended)) end
return table.concat(answers)
