-- hand_back: gives back what a session holds, a page of the leases at a time.
--
-- ARGV: .., 3: session; 4: nonce or '' for any; 5: cursor, '0' at first; 6: at most so many.
-- Returns {how many, the next cursor, '0' at the end}. What begins and ends meanwhile may be missed: it lapses.
-- Cost: 2 commands a page of about 20 leases or batches, 2 for each batch of the session, and 4 to 20 for each job.

local session, nonce = ARGV[3], ARGV[4]
local given, most = 0, tonumber(ARGV[6])

local function give_back(ids, batch)
  for at = 1, #ids, 1000 do
    local records = call('HMGET', S, unpack(ids, at, math.min(at + 999, #ids)))
    for i, r in ipairs(records) do
      if given < most and r and sub(r, 1, 1) == 'X' and sub(r, 51, 66) == session and sub(r, 75, 80) == batch
        and (nonce == '' or sub(r, 11, 26) == nonce) then
        -- Anew: an id can stand in a batch twice.
        local j = load(ids[at + i - 1])
        if j.st == 'X' then
          release(j)
          given = given + 1
        end
      end
    end
  end
end

local found = call('ZSCAN', L, ARGV[5], 'COUNT', 20)
local singles = {}
for i = 1, #found[2], 2 do
  local entry = found[2][i]
  if #entry == 16 then
    singles[#singles + 1] = entry
  else
    local batch = call('HGET', RU, entry)
    if batch and sub(batch, 1, 16) == session and (nonce == '' or sub(batch, 17, 32) == nonce) then
      give_back(ids_of(batch), entry)
    end
  end
end
give_back(singles, NO_BATCH)
trim(0)
commit()
return { given, found[1] }
