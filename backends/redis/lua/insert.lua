-- A new job into storage: what the unique key says, the parents it waits for, and the gates.

local SKIP, SUPERSEDE, QUEUE_ONE = 0, 1, 2

local function state_of(id)
  local j = load(id)
  return j and j.st
end

-- When a job is due: `due` is '' for now, 'a' and so many ms after now, or 't' and an instant.
local function due_at(due)
  if due == '' then return now end
  local ms = tonumber(sub(due, 2))
  if sub(due, 1, 1) == 'a' then return later(ms) end
  return ms
end

-- What the holder of its unique key means for a new job: nil to insert it, or 'C' (conflict), 'U' (supersede the holder),
-- 'N' (supersede the one behind it) or 'Q' (wait behind it), and the other job.
local function plan_key(link)
  local k = key_get(link.key)
  if not k then return nil end
  if key_is_free(k) then
    key_drop(link.key, k)
    return nil
  end
  if link.conflict == SUPERSEDE then
    if k.behind then return 'N', k.behind end
    local st = state_of(k.holder)
    if st == 'R' or st == 'S' or st == 'B' then return 'U', k.holder end
  elseif link.conflict == QUEUE_ONE then
    if k.behind then return 'C', k.behind end
    if state_of(k.holder) == 'X' then return 'Q', k.holder end
  end
  return 'C', k.holder
end

-- Counts the parents a new job waits for, and registers it with them. Returns one whose failure calls the job off.
local function bind_parents(j, link)
  local failed, left, met = nil, 0, {}
  for _, id in ipairs(link.parents or {}) do
    if not met[id] then
      met[id] = true
      local parent = load(id)
      local st = parent and parent.st
      if st == 'C' then
        -- It has completed.
      elseif (not st or st == 'K' or st == 'D') and link.policy == IGNORE then
        -- As if it had.
      elseif not st or st == 'K' or (st == 'D' and link.policy ~= WAIT) then
        failed = id
      else
        left = left + 1
        seq = seq + 1
        call('ZADD', CH, 0, id .. pack('>I6', seq) .. j.id)
        if not has(parent.fl, CHILDREN) then
          parent.fl = with(parent.fl, CHILDREN)
          save(parent)
        end
      end
    end
  end
  j.parents_left = left
  return failed
end

-- Pushes one job. Returns I (inserted), S (same id), C and the holder (conflict), or U and the old job (superseded). A
-- parent that is not stored counts as one that failed.
local function insert(id, body, due)
  if jobs[id] or call('HEXISTS', B, id) == 1 then return 'S' end
  body = pack('>I6', now) .. body
  local j = fresh(id, body)
  local link = links(j)
  local plan, other
  if link.key then plan, other = plan_key(link) end
  if plan == 'C' then return 'C' .. other end
  if plan == 'U' or plan == 'N' then
    local old = load(other)
    if old then finish(old, 'K', ' ', id .. 'superseded by ' .. uuid(id)) end
  end
  call('HSET', B, id, body)
  jobs[id] = j
  local failed = bind_parents(j, link)
  if plan == 'Q' or plan == 'N' then
    j.rank, j.t = next_rank(j), due_at(due)
    local k = key_get(link.key)
    k.behind = id
    key_set(link.key, k)
    enter_blocked(j, 'u')
  else
    hold_key(j)
    admit(j, due_at(due), 'd')
  end
  if failed then finish(j, 'K', ' ', orphaned(failed)) end
  if plan == 'U' or plan == 'N' then return 'U' .. other end
  return 'I'
end
