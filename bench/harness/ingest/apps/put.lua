-- For wrk: PUT objects 0, 1, 2 ... each under its number, the number stamped on its first 8 bytes.
-- The only argument is the file with all bytes but those.

local tail
local number = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  tail = file:read("*a")
  file:close()
end

function request()
  local n = number
  number = number + 1
  local stamp = string.char(n % 256, math.floor(n / 256) % 256, math.floor(n / 65536) % 256,
    math.floor(n / 16777216) % 256, 0, 0, 0, 0)
  return wrk.format("PUT", string.format("/%06d", n), nil, stamp .. tail)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "errors": %d, "p50": %d, "p90": %d, "p99": %d}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
