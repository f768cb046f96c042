-- manage: the operators' verbs.
--
-- ARGV: .., 3: cancel, revive, run, delete, pause or resume; 4: id; 5: reason of a cancellation.
-- Returns {what became of it, more}: see each verb.
-- Cost: 3 to 20 commands, and what hangs on an end.

local verb, id = ARGV[3], ARGV[4]
local FINALS = { C = true, K = true, D = true }

if verb == 'pause' then
  open()
  call('HSET', M, 'paused', '1')
  return { 'ok', '' }
elseif verb == 'resume' then
  open()
  call('HDEL', M, 'paused')
  meta[2] = false
  ring = true
  commit()
  return { 'ok', '' }
end

local j = load(id)
if not j then return { 'missing', '' } end

if verb == 'cancel' then
  if FINALS[j.st] then return { 'ended', j.st } end
  if j.st == 'X' then
    -- The first reason stands.
    if not has(j.fl, CANCEL) then
      call('HSET', X, id .. 'r', ARGV[5])
      j.fl = with(with(j.fl, CANCEL), EXTRA)
      save(j)
    end
    return { 'requested', sub(j.tail, 1, 16), num(now) }
  end
  finish(j, 'K', ' ', ZERO16 .. ARGV[5])
  trim(0)
  commit()
  return { 'cancelled', '' }
elseif verb == 'revive' then
  if j.st ~= 'D' then return { 'state', j.st } end
  local key = links(j).key
  local k = key and key_get(key)
  if k and k.holder ~= id and not key_is_free(k) then return { 'conflict', k.holder } end
  hold_key(j)
  j.generation, j.attempts, j.lost = j.generation + 1, 0, 0
  j.fl = without(j.fl, SUSPECT)
  readmit(j, now, 'd')
elseif verb == 'run' then
  if j.st ~= 'S' then return { 'state', j.st } end
  readmit(j, now, 'd')
elseif verb == 'delete' then
  if not FINALS[j.st] then return { 'state', j.st } end
  leave(j)
  forget({ id })
  settle_cascade()
  trim(0)
end
commit()
return { 'ok', '' }
