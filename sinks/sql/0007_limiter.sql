-- The limiter's sliding log, for lanes whose Redis is away: the same rule as streams/limiter/acquire.lua.

-- Unlogged: a grant waits for no disk. Whatever a crash or a failover takes away is known as lost by the server's start.
CREATE UNLOGGED TABLE limiter_log (
    lane       text PRIMARY KEY,
    started_us bigint NOT NULL,
    slots      bigint[] NOT NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE limiter_log IS 'The last slots of each lane, as many as its limit. Losing them is safe: it only delays.';
COMMENT ON COLUMN limiter_log.lane IS 'The lane.';
COMMENT ON COLUMN limiter_log.started_us IS 'Start of the server that wrote it, epoch microseconds: after another start, slots may be missing.';
COMMENT ON COLUMN limiter_log.slots IS 'Slots, oldest first, epoch microseconds of the server''s clock.';

-- Reserve the next slot of a lane in its sliding log, on the server's own clock. All times are microseconds.
--
-- wanted     the lane
-- allowed    slots allowed to start in any window
-- span_us    the provider's window plus the guard
-- lead_us    the slot must be at least this far ahead
-- granted    whether number is a slot; else ask again after so long
--
-- A missing row, another start of the server (restart, failover) or another limit mean that slots may have been granted
-- that are not in the log: everything up to one window ahead counts as taken.
CREATE FUNCTION limiter_reserve(wanted text, allowed integer, span_us bigint, lead_us bigint,
                                OUT granted boolean, OUT number bigint, OUT now_us bigint) LANGUAGE plpgsql AS $$
DECLARE
  start_us bigint := (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint;
  log limiter_log;
  known boolean;
  taken bigint[] := '{}';
BEGIN
  INSERT INTO limiter_log VALUES (wanted, 0, '{}') ON CONFLICT DO NOTHING;
  SELECT * INTO STRICT log FROM limiter_log WHERE lane = wanted FOR UPDATE;
  -- Read behind the lock: whoever held it has reserved by an earlier moment.
  now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
  known := log.started_us = start_us AND cardinality(log.slots) = allowed;
  FOR i IN 1 .. allowed LOOP
    taken := taken || CASE WHEN known AND log.slots[i] <= now_us + 2 * span_us THEN log.slots[i]
                           ELSE now_us + span_us END; -- lost, or written by a clock that ran ahead
  END LOOP;
  number := greatest(now_us + least(lead_us, span_us), taken[1] + span_us);
  granted := number - now_us <= span_us;
  IF granted THEN
    taken := taken[2:] || number;
  ELSE
    number := number - now_us - span_us;
  END IF;
  IF granted OR NOT known OR taken <> log.slots THEN
    UPDATE limiter_log SET started_us = start_us, slots = taken WHERE lane = wanted;
  END IF;
END $$;

GRANT SELECT, INSERT, UPDATE ON limiter_log TO kifiya_dispatch;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON limiter_log TO kifiya_ops;
REVOKE EXECUTE ON FUNCTION limiter_reserve FROM PUBLIC;
GRANT EXECUTE ON FUNCTION limiter_reserve TO kifiya_dispatch, kifiya_ops;
