-- Lists of payments: an index for each filter, in the order of the pages (accepted_at, payment_id, newest first, read
-- backwards), so that a page costs the same however many payments there are. Updates come at the providers' pace, so
-- that a state in an index costs the sink little; inserts come in spikes, and have one more entry to write in each.

DROP INDEX payments_by_merchant;
CREATE INDEX payments_by_time ON payments (merchant_id, accepted_at, payment_id);
CREATE INDEX payments_by_state ON payments (merchant_id, state, accepted_at, payment_id);
CREATE INDEX payments_by_lane ON payments (merchant_id, lane, accepted_at, payment_id);
CREATE INDEX payments_by_customer ON payments (merchant_id, customer_id, accepted_at, payment_id)
WHERE customer_id IS NOT NULL;

CREATE TABLE payment_terms (
    merchant_id text NOT NULL,
    term        uuid NOT NULL,
    accepted_at timestamptz NOT NULL,
    payment_id  uuid NOT NULL,
    PRIMARY KEY (merchant_id, term, accepted_at, payment_id)
);
COMMENT ON TABLE payment_terms IS 'Payments by metadata key, and by key and value: an index in the order of the pages, which GIN cannot give.';
COMMENT ON COLUMN payment_terms.merchant_id IS 'Who is paid.';
COMMENT ON COLUMN payment_terms.term IS 'metadata_term of a key, or of a key and its value.';
COMMENT ON COLUMN payment_terms.accepted_at IS 'Of the payment.';
COMMENT ON COLUMN payment_terms.payment_id IS 'The payment.';

-- Half of a SHA-256: whoever reads by it looks at the metadata itself too. No key holds a '='.
CREATE FUNCTION metadata_term(name text, value text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN encode(substring(sha256(convert_to(name || coalesce('=' || value, ''), 'UTF8')) FROM 1 FOR 16), 'hex')::uuid;

CREATE FUNCTION note_new_terms() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO payment_terms (merchant_id, term, accepted_at, payment_id)
SELECT written.merchant_id, metadata_term(pair.key, wanted.value), written.accepted_at, written.payment_id
FROM written CROSS JOIN jsonb_each_text(written.metadata) AS pair
     CROSS JOIN LATERAL (VALUES (NULL), (pair.value)) AS wanted (value)
ON CONFLICT DO NOTHING; RETURN NULL; END $$;

CREATE FUNCTION note_later_terms() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO payment_terms (merchant_id, term, accepted_at, payment_id)
SELECT new.merchant_id, metadata_term(pair.key, wanted.value), new.accepted_at, new.payment_id
FROM jsonb_each_text(new.metadata) AS pair CROSS JOIN LATERAL (VALUES (NULL), (pair.value)) AS wanted (value)
ON CONFLICT DO NOTHING; RETURN NULL; END $$;

CREATE FUNCTION forget_terms() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
TRUNCATE payment_terms; RETURN NULL; END $$;

CREATE TRIGGER payments_note_new_terms AFTER INSERT ON payments REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION note_new_terms();
CREATE TRIGGER payments_note_later_terms AFTER UPDATE ON payments
FOR EACH ROW WHEN (old.metadata IS DISTINCT FROM new.metadata) EXECUTE FUNCTION note_later_terms();
CREATE TRIGGER payments_forget_terms AFTER TRUNCATE ON payments EXECUTE FUNCTION forget_terms();

INSERT INTO payment_terms (merchant_id, term, accepted_at, payment_id)
SELECT payments.merchant_id, metadata_term(pair.key, wanted.value), payments.accepted_at, payments.payment_id
FROM payments CROSS JOIN jsonb_each_text(payments.metadata) AS pair
     CROSS JOIN LATERAL (VALUES (NULL), (pair.value)) AS wanted (value)
ON CONFLICT DO NOTHING;

SELECT protect_merchants_rows('payment_terms',
    'merchant_id = ANY ((SELECT string_to_array(current_setting(''kifiya.merchants'', true), '',''))::text[])');
REVOKE SELECT ON payment_terms FROM kifiya_dispatch, kifiya_analyst;
