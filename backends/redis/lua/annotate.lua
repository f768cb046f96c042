-- annotate: progress and log lines of running jobs, fenced like verdicts.
--
-- ARGV: .., 3: how many n; then for each id, fence (epoch u48, nonce), progress (percent u8 and note, or ''), and lines,
-- each with its length u16 before it.
-- Returns one letter each: Y noted, N its lease no longer stands.
-- Cost: 1 command a call, 2 to 4 a note.
local LINES = 100

local n, answers = tonumber(ARGV[3]), {}
for i = 1, n do
  local at = 4 * i
  local id, fence, progress, lines = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local r = call('HGET', S, id)
  if r and sub(r, 1, 1) == 'X' and sub(r, 5, 26) == sub(fence, 1, 22) then
    if progress ~= '' then call('HSET', X, id .. 'p', progress) end
    if lines ~= '' then
      local log, stamp, from = {}, pack('>d', now), 1
      local old = call('HGET', X, id .. 'g') or ''
      while from <= #old do
        local size = unpack_('>I2', old, from + 8)
        log[#log + 1] = sub(old, from, from + 9 + size)
        from = from + 10 + size
      end
      from = 1
      while from <= #lines do
        local size = unpack_('>I2', lines, from)
        log[#log + 1] = stamp .. sub(lines, from, from + 1 + size)
        from = from + 2 + size
      end
      call('HSET', X, id .. 'g', table.concat(log, '', math.max(#log - LINES + 1, 1)))
    end
    if not has(byte(r, 3), EXTRA) then
      call('HSET', S, id, sub(r, 1, 2) .. char(with(byte(r, 3), EXTRA)) .. sub(r, 4))
    end
    answers[i] = 'Y'
  else
    answers[i] = 'N'
  end
end
return table.concat(answers)
