-- hand_back: gives back what a session holds, a page of the leases at a time.
--
-- ARGV: .., 3: session; 4: nonce or '' for any; 5: cursor, '0' at first; 6: at most so many.
-- Returns {how many, the next cursor, '0' at the end}. What begins and ends meanwhile may be missed: it lapses.
-- Cost: 2 commands a page of about 200, and 4 to 20 for each job.

local found = call('ZSCAN', L, ARGV[5], 'COUNT', 200)
local ids, given, most = {}, 0, tonumber(ARGV[6])
for i = 1, #found[2], 2 do ids[#ids + 1] = found[2][i] end
for at = 1, #ids, 1000 do
  local records = call('HMGET', S, unpack(ids, at, math.min(at + 999, #ids)))
  for i, r in ipairs(records) do
    if given < most and r and sub(r, 1, 1) == 'X' and sub(r, 51, 66) == ARGV[3]
      and (ARGV[4] == '' or sub(r, 11, 26) == ARGV[4]) then
      release(load(ids[at + i - 1]))
      given = given + 1
    end
  end
end
trim(0)
commit()
return { given, found[1] }
