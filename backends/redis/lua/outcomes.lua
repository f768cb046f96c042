-- outcomes: the records of jobs that have ended, and a mark that somebody waits for those that have not.
--
-- ARGV: .., 3: how many n; 4: for how many ms somebody waits; then n ids.
-- Returns for each: '' when it is not stored, '-' when it has not ended, or {body, record, last error or nil}.
-- Cost: 2 commands a call, 1 for each that has ended with more to say, and 2 to wait.
local EXTRA = 4

local n, found, none = tonumber(ARGV[3]), {}, true
for i = 1, n do
  local id = ARGV[4 + i]
  local r = call('HGET', S, id)
  local st = r and sub(r, 1, 1)
  if st == 'C' or st == 'K' or st == 'D' then
    local failure = false
    if byte(r, 3) % (EXTRA * 2) >= EXTRA then failure = call('HGET', X, id .. 'e') end
    found[i], none = { call('HGET', B, id), r, failure }, false
  elseif call('HEXISTS', B, id) == 0 then
    found[i], none = '', false
  else
    found[i] = '-'
  end
end
local wait = tonumber(ARGV[4])
if none and n > 0 and wait > 0 and meta[1] then
  -- Real time in a virtually timed queue as well: whoever waits, waits by it.
  local time = call('TIME')
  local till = time[1] * 1000 + wait
  if not await or await < till then call('HSET', M, 'await', num(till)) end
end
return found
