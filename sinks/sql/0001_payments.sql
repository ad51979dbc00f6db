-- The projection of payments.events and payments.dead-letter. Amounts are minor units of the currency, times UTC.

CREATE TABLE currencies (
    code     text PRIMARY KEY,
    exponent smallint NOT NULL
);
COMMENT ON TABLE currencies IS 'ISO 4217 currencies that can be charged.';
COMMENT ON COLUMN currencies.code IS 'Alphabetic code.';
COMMENT ON COLUMN currencies.exponent IS 'Digits after the decimal point.';

CREATE TABLE payments (
    payment_id         uuid PRIMARY KEY,
    merchant_id        text NOT NULL,
    idempotency_key    text NOT NULL,
    fingerprint        text NOT NULL,
    state              text NOT NULL,
    version            integer NOT NULL,
    amount_minor       bigint NOT NULL,
    currency           text NOT NULL,
    payment_method     text NOT NULL,
    customer_id        text,
    description        text,
    metadata           jsonb NOT NULL DEFAULT '{}',
    lane               text NOT NULL,
    expires_at         timestamptz,
    attempt            integer NOT NULL,
    reason             text,
    provider_charge_id text,
    accepted_at        timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    UNIQUE (merchant_id, idempotency_key)
) WITH (fillfactor = 80);
CREATE INDEX payments_by_merchant ON payments (merchant_id, accepted_at DESC, payment_id);
COMMENT ON TABLE payments IS 'Each payment as its newest event left it.';
COMMENT ON COLUMN payments.payment_id IS 'UUIDv5 of merchant and idempotency key.';
COMMENT ON COLUMN payments.merchant_id IS 'Who is paid.';
COMMENT ON COLUMN payments.idempotency_key IS 'The merchant''s own name for the payment.';
COMMENT ON COLUMN payments.fingerprint IS 'SHA-256 of the business fields.';
COMMENT ON COLUMN payments.state IS 'PENDING, PROCESSING, UNKNOWN, REVIEW, COMPLETED, FAILED or CANCELLED.';
COMMENT ON COLUMN payments.version IS 'Grows by one with each event.';
COMMENT ON COLUMN payments.amount_minor IS 'Amount in minor units of the currency.';
COMMENT ON COLUMN payments.currency IS 'ISO 4217 alphabetic code.';
COMMENT ON COLUMN payments.payment_method IS 'Token of the payment method, never a card number.';
COMMENT ON COLUMN payments.customer_id IS 'The merchant''s name for the payer.';
COMMENT ON COLUMN payments.description IS 'Free text of the merchant.';
COMMENT ON COLUMN payments.metadata IS 'The merchant''s own keys and values.';
COMMENT ON COLUMN payments.lane IS 'The provider account that is charged.';
COMMENT ON COLUMN payments.expires_at IS 'Past it the payment fails as expired, if it was never sent.';
COMMENT ON COLUMN payments.attempt IS 'Calls to the provider begun so far.';
COMMENT ON COLUMN payments.reason IS 'Machine-readable reason of the state.';
COMMENT ON COLUMN payments.provider_charge_id IS 'The provider''s name for the charge.';
COMMENT ON COLUMN payments.accepted_at IS 'When the gateway accepted the command.';
COMMENT ON COLUMN payments.updated_at IS 'When the newest event happened.';

CREATE TABLE payment_events (
    payment_id         uuid NOT NULL,
    version            integer NOT NULL,
    type               text NOT NULL,
    state              text NOT NULL,
    attempt            integer NOT NULL,
    call               text,
    outcome            text,
    reason             text,
    detail             text,
    provider_charge_id text,
    replay_id          text,
    lane               text NOT NULL,
    at                 timestamptz NOT NULL,
    sent_at_us         bigint,
    topic              text NOT NULL,
    partition          integer NOT NULL,
    "offset"           bigint NOT NULL,
    PRIMARY KEY (payment_id, version)
);
COMMENT ON TABLE payment_events IS 'Every change of a payment and every call to its provider: the audit trail.';
COMMENT ON COLUMN payment_events.payment_id IS 'The payment.';
COMMENT ON COLUMN payment_events.version IS 'Place in the payment''s history, from 1.';
COMMENT ON COLUMN payment_events.type IS 'state_changed, call_intended, call_finished, call_not_sent or cancel_refused.';
COMMENT ON COLUMN payment_events.state IS 'State after the event.';
COMMENT ON COLUMN payment_events.attempt IS 'Calls to the provider begun so far.';
COMMENT ON COLUMN payment_events.call IS 'charge or status; null where no call is concerned.';
COMMENT ON COLUMN payment_events.outcome IS 'Of a finished call: approved, declined, retryable, unknown, rejected or absent.';
COMMENT ON COLUMN payment_events.reason IS 'Machine-readable reason.';
COMMENT ON COLUMN payment_events.detail IS 'A sentence for a person, masked.';
COMMENT ON COLUMN payment_events.provider_charge_id IS 'The provider''s name for the charge.';
COMMENT ON COLUMN payment_events.replay_id IS 'Set where a person''s replay caused the event.';
COMMENT ON COLUMN payment_events.lane IS 'The provider account.';
COMMENT ON COLUMN payment_events.at IS 'When it happened, on the gateway''s clock.';
COMMENT ON COLUMN payment_events.sent_at_us IS 'When the request was written, epoch microseconds on the limiter''s clock.';
COMMENT ON COLUMN payment_events.topic IS 'Where the event stands in Kafka: topic.';
COMMENT ON COLUMN payment_events.partition IS 'Where the event stands in Kafka: partition.';
COMMENT ON COLUMN payment_events."offset" IS 'Where the event stands in Kafka: offset.';

CREATE TABLE dead_letters (
    topic           text NOT NULL,
    partition       integer NOT NULL,
    "offset"        bigint NOT NULL,
    reason          text NOT NULL,
    detail          text NOT NULL,
    stage           text NOT NULL,
    payment_id      text,
    merchant_id     text,
    lane            text,
    attempts        integer NOT NULL,
    original        bytea NOT NULL,
    original_size   bigint NOT NULL,
    original_sha256 text NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX dead_letters_by_payment ON dead_letters (payment_id) WHERE payment_id IS NOT NULL;
COMMENT ON TABLE dead_letters IS 'Records that wait for a person, one a record of origin.';
COMMENT ON COLUMN dead_letters.topic IS 'Topic of the record that was given up.';
COMMENT ON COLUMN dead_letters.partition IS 'Partition of that record.';
COMMENT ON COLUMN dead_letters."offset" IS 'Offset of that record.';
COMMENT ON COLUMN dead_letters.reason IS 'Machine-readable reason.';
COMMENT ON COLUMN dead_letters.detail IS 'A sentence for a person, masked.';
COMMENT ON COLUMN dead_letters.stage IS 'The role that gave it up.';
COMMENT ON COLUMN dead_letters.payment_id IS 'The payment, where it is known.';
COMMENT ON COLUMN dead_letters.merchant_id IS 'The merchant, where it is known.';
COMMENT ON COLUMN dead_letters.lane IS 'The lane, where it is known.';
COMMENT ON COLUMN dead_letters.attempts IS 'Calls to the provider begun before.';
COMMENT ON COLUMN dead_letters.original IS 'The record''s bytes, cut to 4 KiB where it was over 64 KiB, empty where it held a card number.';
COMMENT ON COLUMN dead_letters.original_size IS 'The record''s true size in bytes.';
COMMENT ON COLUMN dead_letters.original_sha256 IS 'SHA-256 of the whole record.';
COMMENT ON COLUMN dead_letters.at IS 'When it was given up.';

CREATE TABLE sink_offsets (
    topic         text NOT NULL,
    partition     integer NOT NULL,
    next_offset   bigint NOT NULL,
    written_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);
COMMENT ON TABLE sink_offsets IS 'How far each partition is written, in the same transaction as its rows.';
COMMENT ON COLUMN sink_offsets.topic IS 'Topic.';
COMMENT ON COLUMN sink_offsets.partition IS 'Partition.';
COMMENT ON COLUMN sink_offsets.next_offset IS 'Offset of the next record to write.';
COMMENT ON COLUMN sink_offsets.written_at IS 'When the last batch was written.';
