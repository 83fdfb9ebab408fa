"""What Redis itself runs: Lua scripts, each atomic."""

from __future__ import annotations

from typing import Final

# A key is a hash: state (processing, done), token, fingerprint, data. The key's expiry is the lease while it
# is processing, the ttl when it is done: Redis's clock, nothing to clean up. Scripts run one at a time, so
# each step is atomic; those of one call are independent of each other. The token stays in the result: a
# repeated completion recognises itself. A note is a hash of its own beside it, so that a claim hides it and
# its end shows it again.
STEPS: Final = """
local steps = {}
function steps.claim(key, note, token, fingerprint, lease)
  local found = redis.call('HMGET', key, 'state', 'token', 'fingerprint', 'data')
  if found[1] == 'done' then return {'done', found[3], found[4]} end
  if found[1] and found[2] ~= token then return {'processing', found[3]} end
  redis.call('HSET', key, 'state', 'processing', 'token', token, 'fingerprint', fingerprint)
  redis.call('PEXPIRE', key, lease)
  return {}
end
function steps.complete(key, note, token, fingerprint, ttl, data)
  local found = redis.call('HMGET', key, 'state', 'token', 'fingerprint')
  if found[1] and found[2] ~= token then return {found[1], found[3]} end
  redis.call('HSET', key, 'state', 'done', 'token', token, 'fingerprint', fingerprint, 'data', data)
  redis.call('PEXPIRE', key, ttl)
  redis.call('DEL', note)
  return {}
end
function steps.release(key, note, token)
  local found = redis.call('HMGET', key, 'state', 'token')
  if found[1] == 'processing' and found[2] == token then redis.call('DEL', key) end
  return {}
end
local answers = {}
for i = 1, #KEYS / 2 do
  local at = i * 5 - 4
  local step, key, note = steps[ARGV[at]], KEYS[2 * i - 1], KEYS[2 * i]
  local ok, answer = pcall(step, key, note, unpack(ARGV, at + 1, at + 4))
  if not ok then
    if type(answer) == 'table' then answer = answer.err end
    answer = {'error', tostring(answer)}
  end
  answers[i] = answer
end
return answers
"""
NOTE: Final = """
if redis.call('HGET', KEYS[1], 'state') == 'done' then return 0 end
redis.call('HSET', KEYS[2], 'state', ARGV[1], 'fingerprint', ARGV[2], 'data', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""
LOOKUP: Final = """
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then key = KEYS[2] end
local found = redis.call('HMGET', key, 'state', 'fingerprint', 'data')
if not found[1] then return false end
local now = redis.call('TIME')
local expires = now[1] * 1000 + math.floor(now[2] / 1000) + redis.call('PTTL', key)
return {found[1], found[2], found[3] or '', string.format('%.0f', expires)}
"""
