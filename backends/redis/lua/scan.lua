-- scan: a page of the ids of a named queue, in no order. Writes nothing.
--
-- ARGV: .., 3: cursor, '0' at first.
-- Returns {next cursor, '0' at the end, ids}.
-- Cost: 1 command that looks at about 1,000 jobs.

local found = call('HSCAN', B, ARGV[3], 'COUNT', 1000)
local ids = {}
for i = 1, #found[2], 2 do
  ids[#ids + 1] = found[2][i]
end
return { found[1], table.concat(ids) }
