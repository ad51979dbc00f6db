-- Merchants and their API keys, a role for each part of the gateway, and row-level security over all that is a merchant's.
-- The roles cannot log in: users who may are made members.

DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['kifiya_ingress', 'kifiya_outbox', 'kifiya_sink', 'kifiya_dispatch', 'kifiya_ops', 'kifiya_analyst'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another database's migration was as fast
      END;
    END IF;
  END LOOP;
END $$;

CREATE TABLE merchants (
    merchant_id text PRIMARY KEY CHECK (merchant_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    mode        text NOT NULL CHECK (mode IN ('test', 'live')),
    name        text NOT NULL DEFAULT '',
    rate_limit  text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, mode)
);
COMMENT ON TABLE merchants IS 'Who may be paid. A merchant is for tests or live for ever, so that the two never mix.';
COMMENT ON COLUMN merchants.merchant_id IS 'The merchant''s id, as payments carry it.';
COMMENT ON COLUMN merchants.mode IS 'test: its payments reach the sandbox only; live: everything but the sandbox.';
COMMENT ON COLUMN merchants.name IS 'For people.';
COMMENT ON COLUMN merchants.rate_limit IS 'Requests, such as 100/second; null: the gateway''s default.';
COMMENT ON COLUMN merchants.created_at IS 'When it was added.';

CREATE TABLE api_keys (
    key_id      text PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{16}$'),
    merchant_id text NOT NULL,
    mode        text NOT NULL,
    scopes      text[] NOT NULL,
    secret_hmac bytea NOT NULL CHECK (length(secret_hmac) = 32),
    label       text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    FOREIGN KEY (merchant_id, mode) REFERENCES merchants (merchant_id, mode)
);
CREATE INDEX api_keys_by_merchant ON api_keys (merchant_id, created_at);
COMMENT ON TABLE api_keys IS 'API keys of merchants; of the key itself only an HMAC is stored.';
COMMENT ON COLUMN api_keys.key_id IS 'The part of the key that is no secret.';
COMMENT ON COLUMN api_keys.merchant_id IS 'Whose it is.';
COMMENT ON COLUMN api_keys.mode IS 'The merchant''s: test or live.';
COMMENT ON COLUMN api_keys.scopes IS 'What it may do: payments:write, payments:read, ops.';
COMMENT ON COLUMN api_keys.secret_hmac IS 'HMAC-SHA256 of the whole key under API_KEY_PEPPER.';
COMMENT ON COLUMN api_keys.label IS 'For people.';
COMMENT ON COLUMN api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN api_keys.revoked_at IS 'From then on it is refused; may lie ahead, after a rotation.';

-- Ingresses listen: a change takes effect at once, not when what they remember has grown old.
CREATE FUNCTION tell_key_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('kifiya_keys', CASE WHEN tg_op = 'DELETE' THEN old.key_id ELSE new.key_id END);
  RETURN NULL;
END $$;
CREATE TRIGGER api_keys_tell AFTER INSERT OR UPDATE OR DELETE ON api_keys
FOR EACH ROW EXECUTE FUNCTION tell_key_changed();

CREATE FUNCTION tell_merchant_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('kifiya_keys', key_id) FROM api_keys WHERE merchant_id = new.merchant_id;
  RETURN NULL;
END $$;
CREATE TRIGGER merchants_tell AFTER UPDATE ON merchants FOR EACH ROW EXECUTE FUNCTION tell_merchant_changed();

-- What a table of merchants' rows gets, those of later migrations too: security that the owner cannot slip past. The
-- ingress sees the merchants that are set in its transaction, whatever its query forgets; the others see all.
CREATE FUNCTION protect_merchants_rows(wanted regclass, mine text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', wanted);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', wanted);
  EXECUTE format('GRANT SELECT ON %s TO kifiya_ingress, kifiya_dispatch, kifiya_analyst', wanted);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON %s TO kifiya_sink, kifiya_ops', wanted);
  EXECUTE format('CREATE POLICY own_rows ON %s FOR SELECT TO kifiya_ingress USING (%s)', wanted, mine);
  EXECUTE format('CREATE POLICY reads_all ON %s FOR SELECT TO kifiya_dispatch, kifiya_analyst USING (true)', wanted);
  EXECUTE format('CREATE POLICY writes_all ON %s TO kifiya_sink, kifiya_ops USING (true) WITH CHECK (true)', wanted);
END $$;

SELECT protect_merchants_rows('payments',
    'merchant_id = ANY ((SELECT string_to_array(current_setting(''kifiya.merchants'', true), '',''))::text[])');
SELECT protect_merchants_rows('payment_events',
    'EXISTS (SELECT FROM payments p WHERE p.payment_id = payment_events.payment_id)');
SELECT protect_merchants_rows('dead_letters',
    'merchant_id = ANY ((SELECT string_to_array(current_setting(''kifiya.merchants'', true), '',''))::text[])');
REVOKE SELECT ON dead_letters FROM kifiya_ingress, kifiya_dispatch, kifiya_analyst;
REVOKE SELECT ON payment_events FROM kifiya_dispatch;

GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON sink_offsets TO kifiya_sink, kifiya_ops;
GRANT SELECT ON currencies, payment_status TO kifiya_ingress, kifiya_sink, kifiya_ops, kifiya_analyst;
GRANT SELECT (merchant_id, mode, rate_limit) ON merchants TO kifiya_ingress;
GRANT SELECT (key_id, merchant_id, mode, scopes, secret_hmac, revoked_at) ON api_keys TO kifiya_ingress;
GRANT SELECT, INSERT, UPDATE ON merchants, api_keys TO kifiya_ops;
ALTER VIEW payment_status SET (security_invoker = true);

-- Payments by id, each for its own merchant, in one round trip however many merchants ask. ids and merchants go in
-- pairs. Each statement of the function sees what the one before has set, for this transaction only.
CREATE FUNCTION payments_of(ids uuid[], merchants text[]) RETURNS SETOF payments LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('kifiya.merchants', (SELECT string_agg(DISTINCT m, ',') FROM unnest(merchants) AS m), true);
  RETURN QUERY SELECT p.* FROM unnest(ids, merchants) AS asked (payment_id, merchant_id)
  JOIN payments p ON p.payment_id = asked.payment_id AND p.merchant_id = asked.merchant_id;
END $$;
